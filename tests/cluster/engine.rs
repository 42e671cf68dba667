//! The Docker engine is started anew under a running cluster: everything comes back as it was.

use std::time::Duration;

use serde_json::Value;

use crate::Test;
use crate::faults::{serve, works};
use crate::support::{Cluster, Env, docker, eventually, run, test_images};

/// Everybody's containers stop: only where nobody else's run.
pub const SLOW: &[Test] = &[
    ("engine::restarted_under_a_cluster", restarted_under_a_cluster),
    ("engine::restarted_under_a_create", restarted_under_a_create),
];

const NAMESPACE: &str = "engine";

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Containers with their addresses, as Docker says.
    containers: Vec<String>,
    nodes: Vec<(String, String)>,
    pods: Vec<String>,
    load_balancer: String,
}

fn look(cluster: &Cluster) -> Seen {
    let format = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let mut containers: Vec<String> =
        cluster.nodes().iter().map(|node| docker::docker(&["inspect", "--format", format, node])).collect();
    containers.sort();
    let items = |kind: &str| -> Vec<Value> {
        cluster.get(&[kind, "--namespace", NAMESPACE])["items"].as_array().cloned().unwrap_or_default()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let web = cluster.get(&["service", "web", "--namespace", NAMESPACE]);
    Seen {
        containers,
        nodes: items("nodes")
            .iter()
            .map(|node| (text(&node["metadata"]["name"]), text(&node["status"]["addresses"][0]["address"])))
            .collect(),
        pods: items("pods").iter().map(|pod| text(&pod["metadata"]["uid"])).collect(),
        load_balancer: text(&web["status"]["loadBalancer"]["ingress"][0]["ip"]),
    }
}

/// A command of one's own restarts an engine of one's own, which `DOCKER_HOST` leads to.
const OWN: &str = "MINIK_TEST_RESTART_ENGINE";

fn restart_engine() {
    let own = std::env::var(OWN);
    let systemd = std::path::Path::new("/run/systemd/system").exists();
    match (own, systemd) {
        (Ok(line), _) => run("sh", &["-c", &line], &[]).ok(),
        (Err(_), true) => run("systemctl", &["restart", "docker"], &[]).ok(),
        (Err(_), false) => run("service", &["docker", "restart"], &[]).ok(),
    };
    eventually(Duration::from_secs(120), "Docker answers again", || match docker::answers() {
        true => Ok(()),
        false => Err(String::new()),
    });
}

fn assert_alone() {
    let others = docker::docker(&["ps", "--format", "{{.Names}}"]);
    assert!(others.is_empty(), "this stops every container, and others' run: {others}");
}

/// Whatever the command was at, it says so and leaves nothing.
fn restarted_under_a_create(env: &Env) {
    assert_alone();
    let name = env.name("between");
    let mut create = env.minik_command(&["cluster", "create", &name, "--nodes", "3"]).spawn().unwrap();
    eventually(Duration::from_secs(120), "its network is made", || {
        let made = docker::remains(&name);
        if made.iter().any(|part| part.starts_with("network")) { Ok(()) } else { Err(format!("{made:?}")) }
    });
    restart_engine();
    // It may have been through by then.
    if create.wait().unwrap().success() {
        env.minik(&["cluster", "delete", &name]).ok();
    }
    env.assert_gone(&name);
}

fn restarted_under_a_cluster(env: &Env) {
    assert_alone();
    test_images();
    let name = env.name("engine");
    env.minik(&["cluster", "create", &name, "--nodes", "3"]).ok();
    env.minik(&["image", "load", "busybox:1.36", "--cluster", &name]).ok();
    let cluster = env.attach(&name);
    cluster.kubectl(&["create", "namespace", NAMESPACE]).ok();
    serve(&cluster, NAMESPACE);
    let outside = r#"{"spec": {"type": "LoadBalancer"}}"#;
    cluster.kubectl(&["patch", "service", "web", "--namespace", NAMESPACE, "--patch", outside]).ok();
    let page = |address: &str| {
        let url = format!("http://{address}/");
        run("curl", &["--silent", "--fail", "--max-time", "2", &url], &[]).try_ok()
    };
    eventually(Duration::from_secs(60), "the LoadBalancer's address serves", || {
        page(&look(&cluster).load_balancer)
    });
    let before = look(&cluster);
    let started = std::time::Instant::now();
    restart_engine();
    eventually(Duration::from_secs(180), "every Pod serves and is reached", || works(&cluster, NAMESPACE));
    eventually(Duration::from_secs(60), "so does the LoadBalancer's address", || page(&before.load_balancer));
    println!("everything served again {:?} after the engine was told to restart", started.elapsed());
    assert_eq!(look(&cluster), before);
    let inspected = env.minik(&["cluster", "inspect", &name, "-o", "json"]).ok();
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["differences"], serde_json::json!([]), "{inspected}");
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}
