//! What nodes' kernels hold of Services, and the names that people add, on real nodes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Test;
use crate::network::{ask, made, value};
use crate::support::docker::docker;
use crate::support::{Env, eventually, run};

pub const TESTS: &[Test] = &[
    ("network::rules_come_back_and_udp_flows_go", rules_come_back_and_udp_flows_go),
    ("network::addresses_are_given_as_asked", addresses_are_given_as_asked),
    ("network::policies_know_the_ingress_proxy", policies_know_the_ingress_proxy),
    ("network::stub_domains_are_asked_and_counted", stub_domains_are_asked_and_counted),
];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const MORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network_more.yaml");
const DUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network_dual.yaml");

/// A namespace with all of `network.yaml` and `network_more.yaml`.
fn more(env: &Env, part: &str) -> String {
    let (namespace, cluster) = (made(env, part), env.cluster());
    cluster.kubectl(&["apply", "--namespace", &namespace, "--filename", MORE]).ok();
    let ready = ["wait", "pod/door", "--for=condition=Ready", "--timeout=90s", "--namespace", &namespace];
    cluster.kubectl(&ready).ok();
    namespace
}

/// `address:port` answers, from wherever the tests run.
fn answers(ip: &str, port: u16) {
    let at = SocketAddr::new(ip.parse().expect("an address"), port);
    eventually(SECONDS(30), &format!("an answer from {at}"), || {
        let answer = ask(at, "web.example", "/healthz")?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    });
}

fn rules_come_back_and_udp_flows_go(env: &Env) {
    let (namespace, cluster) = (more(env, "rules"), env.cluster());
    let node = cluster.nodes().into_iter().find(|node| node.contains("-agent-")).expect("an agent");
    let inside = |line: &str| run("docker", &["exec", &node, "sh", "-c", line], &[]).try_ok();
    // Somebody deletes the rules.
    let (has, goes) = match inside("nft list table ip kube-proxy") {
        Ok(_) => ("nft list map ip kube-proxy service-ips", "nft delete table ip kube-proxy"),
        Err(_) => ("iptables -t nat -S KUBE-SERVICES", "iptables -t nat -F KUBE-SERVICES"),
    };
    let vip = value(cluster, &namespace, "service/web", ".spec.clusterIP");
    let held = || {
        let rules = inside(has)?;
        if rules.contains(&vip) { Ok(()) } else { Err(rules) }
    };
    eventually(SECONDS(30), "the Service's rules", held);
    inside(goes).expect("deleted");
    eventually(SECONDS(30), "the Service's rules to come back", held);
    let here = value(cluster, &namespace, "pod/door", ".status.hostIP");
    answers(&here, 18_080);

    // Flows of UDP that led to an endpoint go with it.
    let vip = value(cluster, &namespace, "service/datagrams", ".spec.clusterIP");
    let flows = || inside(&format!("conntrack -L -p udp --dst {vip} 2>/dev/null"));
    let pods = || value(cluster, &namespace, "pod", ".items[?(@.metadata.labels.app==\"web\")].status.podIP");
    let first = eventually(SECONDS(30), "a flow to an endpoint", || {
        inside(&format!("bash -c 'echo x > /dev/udp/{vip}/53'"))?;
        let flows = flows()?;
        let to = pods()
            .split(' ')
            .find(|ip| !ip.is_empty() && flows.contains(&format!("src={ip} ")))
            .map(str::to_owned);
        to.ok_or(flows)
    });
    let filter = format!("--field-selector=status.podIP={first}");
    cluster.kubectl(&["delete", "pod", "--namespace", &namespace, &filter]).ok();
    eventually(SECONDS(60), "the flow to go with its endpoint", || {
        let flows = flows()?;
        if flows.contains(&format!("src={first} ")) { Err(flows) } else { Ok(()) }
    });
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

fn addresses_are_given_as_asked(env: &Env) {
    let (namespace, cluster) = (more(env, "addresses"), env.cluster());
    // One family of addresses: both together are refused in upstream's words.
    let refused = cluster.kubectl(&["create", "--namespace", &namespace, "--filename", DUAL]);
    let why = refused.try_ok().expect_err("refused");
    assert!(why.contains("this cluster is not configured for dual-stack services"), "{why}");
    assert_eq!(value(cluster, &namespace, "service/preferring", ".spec.ipFamilies"), "[\"IPv4\"]");
    // A pool, named by a Service. Its address is far from those that are given by themselves.
    let given = |service: &str| {
        eventually(SECONDS(30), &format!("the address of {service}"), || {
            let path = ".status.loadBalancer.ingress[0].ip";
            let ip = value(cluster, &namespace, &format!("service/{service}"), path);
            if ip.is_empty() { Err("none yet".to_owned()) } else { Ok(ip) }
        })
    };
    let other: Ipv4Addr = given("balanced").parse().expect("an address");
    let [a, b, c, _] = other.octets();
    let pool = format!("{a}.{b}.{c}.231");
    let literal = format!("--from-literal=far={pool}/32");
    cluster
        .kubectl(&["create", "configmap", "minik-loadbalancer", "--namespace", "kube-system", &literal])
        .ok();
    assert_eq!(given("pooled"), pool);
    answers(&pool, 80);
    cluster.kubectl(&["delete", "configmap", "minik-loadbalancer", "--namespace", "kube-system"]).ok();
    // Another controller's Service is left alone.
    assert_eq!(value(cluster, &namespace, "service/foreign", ".status.loadBalancer.ingress"), "");
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

fn policies_know_the_ingress_proxy(env: &Env) {
    let (namespace, cluster) = (made(env, "proxied"), env.cluster());
    let client = |to: &str| {
        let line = format!("wget -q -T 2 -O - http://{to}:8080/healthz");
        cluster.kubectl(&["exec", "client", "--namespace", &namespace, "--", "sh", "-c", &line]).try_ok()
    };
    let pods = value(cluster, &namespace, "pod", ".items[?(@.metadata.labels.app==\"web\")].status.podIP");
    for pod in pods.split(' ') {
        eventually(SECONDS(30), &format!("{pod} to be open"), || client(pod).map(drop));
    }
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network_policy.yaml");
    cluster.kubectl(&["apply", "--namespace", &namespace, "--filename", policy]).ok();
    for pod in pods.split(' ') {
        eventually(SECONDS(30), &format!("{pod} to be closed to other Pods"), || match client(pod) {
            Ok(said) => Err(said),
            Err(_) => Ok(()),
        });
    }
    let ingress = eventually(SECONDS(30), "the Ingress's address", || {
        let ip = value(cluster, &namespace, "ingress/web", ".status.loadBalancer.ingress[0].ip");
        if ip.is_empty() { Err("none yet".to_owned()) } else { Ok(ip) }
    });
    // Wherever the endpoints are: each is asked in its turn.
    for _ in 0..6 {
        answers(&ingress, 80);
    }
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

/// Answers every question with 192.0.2.53, until it is told to stop.
fn name_server(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 512];
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let question = &buffer[..length];
        // The name begins after the header; type and class follow its end.
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).expect("a name") + 5;
        let mut answer = question[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x84, 0]);
        answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 53]);
        socket.send_to(&answer, client).expect("sent");
    }
}

fn stub_domains_are_asked_and_counted(env: &Env) {
    let (namespace, cluster) = (made(env, "stubs"), env.cluster());
    let inside = |command: &str| {
        cluster.kubectl(&["exec", "client", "--namespace", &namespace, "--", "sh", "-c", command]).try_ok()
    };
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let serving = std::thread::spawn(move || name_server(&socket, &stopped));
    // The machine that the tests run on, as nodes see it.
    let node = cluster.nodes().into_iter().next().expect("a node");
    let here =
        docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", &node]);
    let stub = format!("--from-literal=stubDomains={{\"corp.example\": [\"{}:{port}\"]}}", here.trim());
    cluster.kubectl(&["create", "configmap", "minik-dns", "--namespace", "kube-system", &stub]).ok();
    for name in ["build.corp.example", "git.corp.example"] {
        eventually(SECONDS(60), &format!("{name} from the stub domain's server"), || {
            let said = inside(&format!("nslookup -type=a {name} 2>&1"))?;
            if said.contains("192.0.2.53") { Ok(()) } else { Err(said) }
        });
    }
    cluster.kubectl(&["delete", "configmap", "minik-dns", "--namespace", "kube-system"]).ok();
    stop.store(true, Ordering::Relaxed);
    serving.join().expect("no panic");
    let told = inside("wget -q -T 10 -O - http://kube-dns.kube-system:9153/metrics").expect("metrics");
    let counted = told.lines().find(|line| line.starts_with("coredns_forward_requests_total "));
    let counted: f64 = counted.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a number");
    assert!(counted >= 2.0, "{told}");
    assert!(told.contains(r#"coredns_dns_responses_total{rcode="NOERROR"}"#), "{told}");
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}
