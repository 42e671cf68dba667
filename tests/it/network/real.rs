//! Service rules, DNS and load balancer addresses in a real kernel, with real packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use minik::edge::loadbalancer;
use minik::node::network::{Change, Feed, ServiceKey, Slice, Source, View};
use minik::node::proxy::{self, BackendKind, Proxy, Settings};
use minik::rt::Tasks;
use minik::sys::exec::{Exec, Invocation, Running, System};
use minik::sys::netlink::Netlink;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::namespaces::{Place, ask, ask_udp, available, on_node, sh};
use super::objects::{At, service, slice};

const NODE: &str = "192.168.77.1";
const OUTSIDE: &str = "192.168.77.2";
const POD_A: &str = "10.42.0.11";
const POD_B: &str = "10.42.0.12";
const VIP: &str = "10.43.0.20";

/// A node with two Pods that serve on 8080, the world outside, and a running proxy.
struct Stage {
    a: Place,
    b: Place,
    outside: Place,
    source: Source,
    feed: Feed,
    applied: watch::Receiver<u64>,
    tasks: Tasks,
    runtime: Runtime,
}

impl Stage {
    fn new(kind: BackendKind) -> Self {
        Self::over(kind, Arc::new(System))
    }

    /// A stage whose rules go to these tools.
    fn over(kind: BackendKind, tools: Arc<dyn Exec>) -> Self {
        minik::node::routes::apply_settings();
        let (a, b) = (Place::pod(POD_A), Place::pod(POD_B));
        let outside = Place::outside(OUTSIDE, NODE);
        for place in [&a, &b, &outside] {
            place.serve(8080);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime in this namespace");
        let (source, feed) = Source::new();
        let tasks = Tasks::new();
        let settings = Settings {
            node: "here".into(),
            node_ip: NODE.parse().expect("address"),
            pod_cidr: "10.42.0.0/16".parse().expect("network"),
            service_cidr: Some("10.43.0.0/16".parse().expect("network")),
            answered_here: BTreeSet::new(),
        };
        let backend = proxy::open(kind, tools);
        let guard = runtime.enter();
        let applied = proxy::run(Proxy { feed: feed.clone(), settings, backend }, &tasks);
        drop(guard);
        Self { a, b, outside, source, feed, applied, tasks, runtime }
    }

    /// Shows the proxy a Service `web` with these endpoints and waits until it holds.
    fn web(&mut self, spec: Value, ingress: &[&str], endpoints: &[At<'_>]) {
        let service = service("web", spec, ingress);
        let slice = slice("web", json!({ "name": "", "port": 8080, "protocol": "TCP" }), endpoints);
        let put = |view: &mut View| {
            view.put_service(service);
            view.put_slice(slice);
            Change::Services
        };
        let listed = *self.feed.services().borrow() > 0;
        if listed {
            self.source.edit(put);
        } else {
            let mut view = View::default();
            put(&mut view);
            self.source.replace(view);
        }
        self.settle();
    }

    /// Shows the proxy one slice and waits until it holds.
    fn slice(&mut self, slice: Slice) {
        self.source.edit(|view| view.put_slice(slice));
        self.settle();
    }

    fn settle(&mut self) {
        let wanted = *self.feed.services().borrow();
        let applied = self.applied.wait_for(|generation| *generation >= wanted);
        let waited = async { tokio::time::timeout(Duration::from_secs(20), applied).await.map(drop) };
        self.runtime.block_on(waited).expect("rules applied in time");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let drained = self.runtime.block_on(self.tasks.drain(Duration::from_secs(30)));
        if !std::thread::panicking() {
            drained.expect("all tasks end");
        }
    }
}

fn ports(extra: Value) -> Value {
    let mut spec = json!({
        "clusterIP": VIP,
        "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 30080 }],
    });
    let (spec_map, extra) = (spec.as_object_mut().expect("a map"), extra);
    spec_map.extend(extra.as_object().expect("a map").clone());
    spec
}

const BOTH: &[At<'static>] = &[(POD_A, "here", "ready"), (POD_B, "here", "ready")];
const ONE: &[At<'static>] = &[(POD_A, "here", "ready")];

#[test]
fn connections_are_remembered_as_long_as_kube_proxy_has_it() {
    if !available() {
        return;
    }
    on_node(|| {
        minik::node::routes::apply_settings();
        for (state, seconds) in [("close_wait", "3600"), ("established", "86400")] {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}");
            assert_eq!(std::fs::read_to_string(path).expect("a setting").trim(), seconds, "{state}");
        }
    });
}

#[test]
fn cluster_ips_answer_pods_and_node() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        stage.web(ports(json!({})), &[], BOTH);
        let vip = format!("{VIP}:80");
        let mut seen = BTreeMap::<String, u32>::new();
        for _ in 0..60 {
            let answer = ask(&vip).expect("an answer for the node");
            let (pod, _) = answer.split_once(' ').expect("two words");
            *seen.entry(pod.to_owned()).or_default() += 1;
        }
        assert!(seen.len() == 2 && seen.values().all(|n| *n > 5), "both Pods share the work: {seen:?}");

        // A Pod keeps its own address, except where it reaches itself.
        stage.web(ports(json!({})), &[], ONE);
        assert_eq!(stage.b.ask(&vip), Ok(format!("{POD_A} {POD_B}")));
        assert_eq!(stage.a.ask(&vip), Ok(format!("{POD_A} 10.42.0.1")), "hairpin is masqueraded");

        // No endpoint: refused at once, not left waiting.
        stage.web(ports(json!({})), &[], &[]);
        assert_eq!(ask(&vip), Err("ConnectionRefused".into()));
        assert_eq!(stage.b.ask(&vip), Err("ConnectionRefused".into()));
        stage.web(ports(json!({})), &[], ONE);
        assert_eq!(stage.b.ask(&vip), Ok(format!("{POD_A} {POD_B}")));
    });
}

#[test]
fn node_ports_and_load_balancers_answer_the_world() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        let balancer = "192.168.77.200";
        let spec = |extra: Value| {
            let mut spec = ports(extra);
            spec["type"] = "LoadBalancer".into();
            spec
        };
        stage.web(spec(json!({})), &[balancer], ONE);
        let node_port = format!("{NODE}:30080");
        let seen = |source: &str| Ok(format!("{POD_A} {source}"));
        assert_eq!(stage.outside.ask(&node_port), seen("10.42.0.1"), "policy Cluster masquerades");
        assert!(ask("127.0.0.1:30080").is_ok(), "node ports answer on localhost");
        assert_eq!(stage.b.ask(&node_port), seen("10.42.0.1"));

        let range = Ipv4Addr::new(192, 168, 77, 128)..=Ipv4Addr::new(192, 168, 77, 254);
        let (announce, announced) = watch::channel(None);
        let guard = stage.runtime.enter();
        let netlink = Netlink::open(&stage.tasks).expect("netlink");
        sh("ip addr add 192.168.77.222/32 dev eth0");
        let options = loadbalancer::Options { interface: "eth0".into(), range, announced };
        loadbalancer::run(options, netlink, &stage.tasks);
        drop(guard);
        announce.send_replace(Some(BTreeSet::from([balancer.parse().expect("address")])));
        eventually("the address on eth0", || sh("ip -4 addr show dev eth0").contains("192.168.77.200/32"));
        assert!(!sh("ip -4 addr show dev eth0").contains("192.168.77.222"), "a leftover is cleared");
        assert_eq!(stage.outside.ask("192.168.77.200:80"), seen("10.42.0.1"));

        // Policy Local keeps the client's address.
        stage.web(spec(json!({ "externalTrafficPolicy": "Local" })), &[balancer], ONE);
        assert_eq!(stage.outside.ask("192.168.77.200:80"), seen(OUTSIDE));
        assert_eq!(stage.outside.ask(&node_port), seen(OUTSIDE));

        // Only the ranges named may come in.
        let ranges = |range: &str| spec(json!({ "loadBalancerSourceRanges": [range] }));
        stage.web(ranges("192.168.77.0/24"), &[balancer], ONE);
        assert_eq!(stage.outside.ask("192.168.77.200:80"), seen("10.42.0.1"));
        stage.web(ranges("192.168.99.0/24"), &[balancer], ONE);
        assert_eq!(stage.outside.ask("192.168.77.200:80"), Err("TimedOut".into()));

        announce.send_replace(Some(BTreeSet::new()));
        eventually("the address gone", || !sh("ip -4 addr show dev eth0").contains("192.168.77.200"));
    });
}

#[test]
fn whoever_lists_addresses_waits_for_who_does_already() {
    if !available() {
        return;
    }
    on_node(|| {
        // So many that the kernel needs several messages for one list.
        let add = (0..600).map(|n| format!("addr add 10.99.{}.{}/32 dev lo", n / 200, n % 200 + 1));
        sh(&format!("printf '{}' | ip -batch -", add.collect::<Vec<_>>().join("\\n")));
        let tasks = Tasks::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let netlink = Netlink::open(&tasks).expect("netlink");
            let lo = netlink.link("lo").await.expect("every machine has it");
            let list = |_| {
                let (netlink, lo) = (netlink.clone(), lo.clone());
                tasks.spawn(async move {
                    for _ in 0..50 {
                        assert_eq!(netlink.addresses(&lo).await.expect("listed").len(), 601);
                    }
                })
            };
            for listed in (0..8).map(list).collect::<Vec<_>>() {
                listed.await.expect("every list is complete");
            }
            tasks.drain(Duration::from_secs(5)).await.expect("drained");
        });
    });
}

#[test]
fn local_policy_without_a_local_endpoint_drops_and_says_so() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        let health = || ask_health(31000);
        let spec = ports(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        }));
        stage.web(spec.clone(), &["192.168.77.200"], ONE);
        assert!(health().starts_with("HTTP/1.1 200"), "{}", health());
        stage.web(spec, &["192.168.77.200"], &[(POD_A, "elsewhere", "ready")]);
        assert!(health().starts_with("HTTP/1.1 503"), "{}", health());
        assert_eq!(stage.outside.ask(&format!("{NODE}:30080")), Err("TimedOut".into()));
        assert_eq!(stage.b.ask(&format!("{VIP}:80")), Ok(format!("{POD_A} {POD_B}")), "inside it goes on");
        stage.web(ports(json!({})), &[], ONE);
        assert!(std::net::TcpStream::connect("127.0.0.1:31000").is_err(), "the health port is closed again");
    });
}

#[test]
fn clients_with_affinity_stay() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        stage.web(ports(json!({ "sessionAffinity": "ClientIP" })), &[], BOTH);
        let vip = format!("{VIP}:80");
        let first = ask(&vip);
        assert!(first.is_ok(), "{first:?}");
        let answers: BTreeSet<_> = (0..20).map(|_| ask(&vip)).collect();
        assert_eq!(answers, BTreeSet::from([first]));
    });
}

#[test]
fn udp_flows_leave_an_endpoint_that_goes() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        let udp = json!({ "name": "", "port": 8080, "protocol": "UDP" });
        let spec = json!({ "clusterIP": VIP, "ports": [{ "port": 53, "protocol": "UDP" }] });
        stage.source.edit(|view| view.put_service(service("names", spec, &[])));
        let view = stage.feed.read().clone();
        stage.source.replace(view);
        stage.slice(slice("names", udp.clone(), ONE));
        let socket = stage.b.inside(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
        let vip = format!("{VIP}:53");
        assert_eq!(ask_udp(&socket, &vip), Ok(format!("{POD_A} {POD_B}")));
        stage.slice(slice("names", udp, &[(POD_B, "here", "ready")]));
        let again = ask_udp(&socket, &vip).expect("the same socket reaches the other Pod");
        assert!(again.starts_with(POD_B), "{again}");
    });
}

#[test]
fn pods_reach_the_world_as_their_node() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        stage.source.replace(View::default());
        stage.settle();
        assert_eq!(stage.a.ask(&format!("{OUTSIDE}:8080")), Ok(format!("{OUTSIDE} {NODE}")));
        assert_eq!(
            stage.a.ask(&format!("{POD_B}:8080")),
            Ok(format!("{POD_B} {POD_A}")),
            "Pods see each other"
        );
    });
}

/// Runs a test on a fresh node for each backend.
fn on_backends(test: impl Fn(BackendKind) + Clone + Send + 'static) {
    for kind in [BackendKind::Iptables, BackendKind::Nftables] {
        let test = test.clone();
        on_node(move || test(kind));
    }
}

#[test]
fn what_somebody_deletes_is_put_back() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        stage.web(ports(json!({})), &[], ONE);
        let vip = format!("{VIP}:80");
        let answer = Ok(format!("{POD_A} {POD_B}"));
        assert_eq!(stage.b.ask(&vip), answer);
        let damage: &[&str] = match kind {
            BackendKind::Nftables => &["nft flush ruleset", "nft delete table ip kube-proxy"],
            _ => &["iptables -t nat -F", "iptables -t nat -F KUBE-SERVICES", "nft flush ruleset"],
        };
        for command in damage {
            sh(command);
            eventually(command, || stage.b.ask(&vip) == answer);
        }
        // A change is applied as ever. What was deleted while it was being put back is put back once more, maybe by now: the
        // kernel leaves a connection that begins in that moment without a translation, and its client tries again.
        stage.web(ports(json!({})), &[], BOTH);
        stage.web(ports(json!({})), &[], ONE);
        eventually("a change after the damage", || stage.b.ask(&vip) == answer);
    });
}

/// The system, and what it refused to do.
#[derive(Clone, Default)]
struct Strict(Arc<Mutex<Vec<String>>>);

impl Exec for Strict {
    fn run(&self, invocation: Invocation) -> Running<'_> {
        Box::pin(async move {
            let ran = System.run(invocation).await;
            if let Err(error) = &ran {
                self.0.lock().expect("not poisoned").push(error.to_string());
            }
            ran
        })
    }
}

/// What a backend writes of a change, tool and kernel take: nothing is written from the beginning again.
#[test]
fn no_change_is_refused() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let strict = Strict::default();
        let mut stage = Stage::over(kind, Arc::new(strict.clone()));
        let affinity = json!({ "sessionAffinity": "ClientIP" });
        let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
        for spec in [json!({}), affinity, local, json!({ "externalIPs": [OUTSIDE] }), json!({})] {
            for endpoints in [ONE, BOTH, &[], BOTH, ONE] {
                stage.web(ports(spec.clone()), &["192.168.77.200"], endpoints);
            }
        }
        let key = ServiceKey::new("default", "web");
        stage.source.edit(|view| view.remove_service(&key));
        stage.settle();
        let refused = strict.0.lock().expect("not poisoned").clone();
        assert_eq!(refused, Vec::<String>::new());
    });
}

#[test]
fn a_restarted_proxy_clears_what_was_left() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        stage.web(ports(json!({})), &[], BOTH);
        let all = || sh("iptables-save; nft list ruleset");
        let endpoints = ["KUBE-SEP-", "10.42.0.12 . 8080"];
        assert!(endpoints.iter().any(|endpoint| all().contains(endpoint)), "{}", all());
        stage.tasks.stop().cancel();
        let mut next = Stage::proxy_only(stage, kind);
        next.source.replace(View::default());
        next.settle();
        assert!(!all().contains("KUBE-SVC-") && !all().contains(VIP), "{}", all());
        assert!(!endpoints.iter().any(|endpoint| all().contains(endpoint)), "{}", all());
        if kind == BackendKind::Iptables {
            let after = sh("iptables-save");
            let jumps = after.lines().filter(|l| l.starts_with("-A PREROUTING")).count();
            assert_eq!(jumps, 1, "{after}");
        }
    });
}

#[test]
fn a_burst_of_changes_ends_as_the_last_one_says() {
    if !available() {
        return;
    }
    on_backends(|kind| {
        let mut stage = Stage::new(kind);
        stage.web(ports(json!({})), &[], &[]);
        let port = json!({ "name": "", "port": 8080, "protocol": "TCP" });
        let start = Instant::now();
        for n in 0..200u32 {
            let ready = if n % 2 == 0 { BOTH } else { ONE };
            stage.source.edit(|view| view.put_slice(slice("web", port.clone(), ready)));
        }
        stage.settle();
        eprintln!("200 changes settled in {:?}", start.elapsed());
        assert_eq!(stage.b.ask(&format!("{VIP}:80")), Ok(format!("{POD_A} {POD_B}")));

        let start = Instant::now();
        stage.source.edit(|view: &mut minik::node::network::View| -> Change {
            view.put_slice(slice("web", port, &[(POD_B, "here", "ready")]))
        });
        stage.settle();
        eprintln!("one change settled in {:?}", start.elapsed());
    });
}

impl Stage {
    /// The same place after the agent has died: a new proxy, that knows nothing.
    fn proxy_only(mut old: Self, kind: BackendKind) -> Self {
        let (source, feed) = Source::new();
        let settings = Settings {
            node: "here".into(),
            node_ip: NODE.parse().expect("address"),
            pod_cidr: "10.42.0.0/16".parse().expect("network"),
            service_cidr: Some("10.43.0.0/16".parse().expect("network")),
            answered_here: BTreeSet::new(),
        };
        old.tasks = Tasks::new();
        let guard = old.runtime.enter();
        let backend = proxy::open(kind, Arc::new(System));
        old.applied = proxy::run(Proxy { feed: feed.clone(), settings, backend }, &old.tasks);
        drop(guard);
        old.source = source;
        old.feed = feed;
        old
    }
}

fn ask_health(port: u16) -> String {
    use std::io::{Read, Write};
    let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the health port is open");
    server.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
    let mut said = String::new();
    server.read_to_string(&mut said).expect("answered");
    said
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}\n{}", sh("nft list ruleset"));
        std::thread::yield_now();
    }
}

#[test]
fn the_kernel_takes_every_golden_text() {
    if !available() {
        return;
    }
    on_node(|| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/proxy");
        let mut count = 0;
        for file in std::fs::read_dir(folder).expect("golden files") {
            let path = file.expect("a file").path();
            let tool = match path.extension().and_then(|end| end.to_str()) {
                Some("nft") => "nft --check -f",
                _ => "iptables-restore --noflush --counters --test",
            };
            sh(&format!("{tool} {}", path.display()));
            count += 1;
        }
        assert!(count > 0);
    });
}
