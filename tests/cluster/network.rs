//! The ways in and the names, on real nodes with real clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, eventually};

pub const TESTS: &[Test] = &[
    ("network::routes_serve_while_endpoints_roll", routes_serve_while_endpoints_roll),
    ("network::names_are_added_and_the_host_is_known", names_are_added_and_the_host_is_known),
];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const ALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network.yaml");
const LOAD: usize = 4;

/// A namespace with everything of `network.yaml` in it, ready.
pub fn made(env: &Env, part: &str) -> String {
    let (namespace, cluster) = (env.namespace(part), env.cluster());
    eventually(SECONDS(60), "the Gateway API", || {
        cluster.kubectl(&["get", "gatewayclass", "minik"]).try_ok()
    });
    cluster.kubectl(&["apply", "--namespace", &namespace, "--filename", ALL]).ok();
    let wait = |what: &str, condition: &str| {
        let condition = format!("--for={condition}");
        cluster.kubectl(&["wait", "--namespace", &namespace, what, &condition, "--timeout=90s"]).ok();
    };
    wait("deployment/web", "condition=Available");
    wait("gateway/door", "condition=Programmed");
    wait("pod/client", "condition=Ready");
    namespace
}

pub fn value(cluster: &Cluster, namespace: &str, object: &str, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["get", object, "--namespace", namespace, "--output", &path]).ok()
}

/// The status line and all that follows.
pub fn ask(at: SocketAddr, host: &str, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, SECONDS(30))?;
        stream.set_read_timeout(Some(SECONDS(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().map_err(|error| error.to_string())
}

fn expect(at: SocketAddr, host: &str, path: &str, status: &str) {
    eventually(SECONDS(60), &format!("{status} from {host}{path} at {at}"), || {
        let answer = ask(at, host, path)?;
        if answer.starts_with(&format!("HTTP/1.1 {status}")) { Ok(()) } else { Err(answer) }
    });
}

fn routes_serve_while_endpoints_roll(env: &Env) {
    let (namespace, cluster) = (made(env, "routes"), env.cluster());
    let ingress = eventually(SECONDS(60), "the Ingress's address", || {
        let ip = value(cluster, &namespace, "ingress/web", ".status.loadBalancer.ingress[0].ip");
        if ip.is_empty() { Err("none yet".to_owned()) } else { Ok(ip) }
    });
    assert_eq!(value(cluster, &namespace, "ingress/of-somebody-else", ".status.loadBalancer.ingress"), "");
    let events = cluster
        .kubectl(&["get", "events", "--namespace", &namespace, "--field-selector", "reason=NotSupported"])
        .ok();
    assert!(events.contains("limit-rps"), "{events}");
    let door = value(cluster, &namespace, "gateway/door", ".status.addresses[0].value");
    let address = |ip: &str, port: u16| SocketAddr::new(ip.parse().expect("an address"), port);
    let (ingress, door) = (address(&ingress, 80), address(&door, 8080));
    expect(ingress, "web.example", "/", "200");
    expect(ingress, "other.example", "/", "404");
    expect(door, "route.example", "/app", "200");
    expect(door, "route.example", "/app/healthz", "200");
    expect(door, "route.example", "/missing", "500");
    expect(door, "web.example", "/app", "404");
    let conditions = ".status.parents[0].conditions[*].reason";
    assert_eq!(value(cluster, &namespace, "httproute/web", conditions), "Accepted BackendNotFound");
    assert_eq!(value(cluster, &namespace, "gateway/door", ".status.listeners[0].attachedRoutes"), "1");

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = [(ingress, "web.example", "/"), (door, "route.example", "/app")].map(|(at, host, path)| {
        let one = |_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask(at, host, path) {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failed.push(other),
                    }
                }
                failed
            })
        };
        (0..LOAD).map(one).collect::<Vec<_>>()
    });
    cluster
        .kubectl(&["set", "image", "deployment/web", "web=minik-test/web:2", "--namespace", &namespace])
        .ok();
    let rolled = ["rollout", "status", "deployment/web", "--timeout=90s", "--namespace", &namespace];
    let rolled = cluster.kubectl(&rolled);
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<_> = load.into_iter().flatten().flat_map(|load| load.join().expect("no panic")).collect();
    rolled.ok();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        answered.load(Ordering::Relaxed),
        failed[0]
    );
    assert!(answered.load(Ordering::Relaxed) > 10 * LOAD, "{} answered", answered.load(Ordering::Relaxed));
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

fn names_are_added_and_the_host_is_known(env: &Env) {
    let (namespace, cluster) = (made(env, "names"), env.cluster());
    let inside = |command: &str| {
        cluster.kubectl(&["exec", "client", "--namespace", &namespace, "--", "sh", "-c", command]).try_ok()
    };
    // The machine that the cluster runs on, as a Pod reaches it.
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.read(&mut [0; 512]);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nthe host\n").expect("written");
    });
    let said =
        inside(&format!("wget -q -T 10 -O - http://host.minik.internal:{port}/")).expect("the host answers");
    assert_eq!(said, "the host\n");
    answering.join().expect("no panic");
    // Names that people add, for as long as they are there.
    let hosts = "--from-literal=hosts=192.0.2.7 build.corp.example";
    cluster.kubectl(&["create", "configmap", "minik-dns", "--namespace", "kube-system", hosts]).ok();
    eventually(SECONDS(60), "the added name", || {
        let said = inside("nslookup build.corp.example")?;
        if said.contains("192.0.2.7") { Ok(()) } else { Err(said) }
    });
    cluster.kubectl(&["delete", "configmap", "minik-dns", "--namespace", "kube-system"]).ok();
    eventually(SECONDS(60), "the name to go", || match inside("nslookup build.corp.example 2>&1") {
        Ok(said) if said.contains("192.0.2.7") => Err(said),
        _ => Ok(()),
    });
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}
