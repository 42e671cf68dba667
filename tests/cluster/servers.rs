//! A cluster with several servers: any one of them may go, come back, be taken out, be brought in.

use std::time::{Duration, Instant};

use crate::Test;
use crate::support::{Cluster, Env, docker::docker, eventually};

pub const TESTS: &[Test] =
    &[("servers::any_one_may_go", any_one_may_go), ("servers::objects_outlive_them", objects_outlive_them)];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// The addresses that the Service `kubernetes` leads to.
fn endpoints(cluster: &Cluster) -> Result<usize, String> {
    let words = ["get", "endpoints", "kubernetes", "--output", "jsonpath={.subsets[*].addresses[*].ip}"];
    Ok(cluster.kubectl(&words).try_ok()?.split_whitespace().count())
}

/// Waits until so many servers serve.
pub fn serve(cluster: &Cluster, servers: usize) {
    eventually(SECONDS(40), &format!("{servers} servers serve"), || match endpoints(cluster)? {
        count if count == servers => Ok(()),
        count => Err(format!("{count} do")),
    });
}

/// Writes something, and reads it; returns how long that took at most.
fn write_and_read(cluster: &Cluster, name: &str) -> Duration {
    let start = Instant::now();
    eventually(SECONDS(20), "a write is taken", || {
        cluster.kubectl(&["create", "configmap", name, "--request-timeout", "10s"]).try_ok()
    });
    cluster.kubectl(&["get", "configmap", name]).ok();
    start.elapsed()
}

fn any_one_may_go(env: &Env) {
    let name = env.name("several");
    env.minik(&["cluster", "create", &name, "--servers", "3", "--nodes", "4", "--timeout", "5m"]).ok();
    let cluster = env.attach(&name);
    serve(&cluster, 3);
    let servers = cluster.get(&["nodes", "--selector", "node-role.kubernetes.io/control-plane"]);
    assert_eq!(servers["items"].as_array().map(Vec::len), Some(3));

    // The one that leads: whatever it was at must be taken over.
    let lease = cluster.get(&["lease", "kube-controller-manager", "--namespace", "kube-system"]);
    let leader = lease["spec"]["holderIdentity"].as_str().expect("somebody leads").to_owned();
    docker(&["kill", &leader]);
    let took = write_and_read(&cluster, "without-the-leader");
    eprintln!("without {leader}: a write and a read within {took:?}");
    cluster.kubectl(&["create", "deployment", "web", "--image", "minik-test/web:1"]).ok();
    eventually(SECONDS(40), "another server makes its Pod", || {
        let pods = cluster.get(&["pods", "--selector", "app=web"]);
        pods["items"].as_array().filter(|pods| pods.len() == 1).map(drop).ok_or_else(|| pods.to_string())
    });
    serve(&cluster, 2);
    docker(&["start", &leader]);
    serve(&cluster, 3);

    // Taken out for good, and another one brought in: it has what was written meanwhile.
    let gone = if leader.ends_with("server-0") { "server-1" } else { "server-0" };
    env.minik(&["node", "delete", gone, "--cluster", &name]).ok();
    serve(&cluster, 2);
    write_and_read(&cluster, "with-two");
    env.minik(&["node", "add", "--role", "server", "--cluster", &name]).ok();
    serve(&cluster, 3);
    cluster.kubectl(&["get", "configmap", "without-the-leader", "with-two"]).ok();
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}

/// Objects go from a server's own store into an etcd, into a backup, back, and into another cluster.
fn objects_outlive_them(env: &Env) {
    let (name, other) = (env.name("grown"), env.name("again"));
    env.minik(&["cluster", "create", &name]).ok();
    let cluster = env.attach(&name);
    cluster.kubectl(&["create", "configmap", "first", "--from-literal", "a=1"]).ok();
    let first = cluster.get(&["configmap", "first"]);
    let revision = |object: &serde_json::Value| -> u64 {
        object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a number")
    };

    env.minik(&["cluster", "edit", &name, "--servers", "3", "--timeout", "5m"]).ok();
    serve(&cluster, 3);
    let moved = cluster.get(&["configmap", "first"]);
    assert_eq!((&first["metadata"]["uid"], &first["data"]), (&moved["metadata"]["uid"], &moved["data"]));
    cluster.kubectl(&["create", "configmap", "second"]).ok();
    assert!(revision(&cluster.get(&["configmap", "second"])) > revision(&first));

    let saved = env.minik(&["backup", "save", "kept", "--cluster", &name, "-o", "json"]).ok();
    let saved: serde_json::Value = serde_json::from_str(&saved).expect("JSON");
    env.minik(&["backup", "save", "kept", "--cluster", &name]).fails_with(5);
    cluster.kubectl(&["delete", "configmap", "first"]).ok();
    cluster.kubectl(&["create", "configmap", "third"]).ok();
    let third = revision(&cluster.get(&["configmap", "third"]));
    env.minik(&["backup", "restore", "kept", "--timeout", "5m"]).ok();
    serve(&cluster, 3);
    assert_eq!(cluster.get(&["configmap", "first"])["metadata"]["uid"], first["metadata"]["uid"]);
    cluster.kubectl(&["get", "configmap", "third"]).fails_with(1);
    cluster.kubectl(&["create", "configmap", "fourth"]).ok();
    assert!(revision(&cluster.get(&["configmap", "fourth"])) > third, "no revision is seen twice");

    // Another cluster of them: its nodes have keys of their own.
    env.minik(&["cluster", "delete", &name]).ok();
    env.minik(&["backup", "restore", "kept", "--cluster", &other, "--timeout", "5m"]).ok();
    let cluster = env.attach(&other);
    serve(&cluster, 3);
    assert_eq!(cluster.get(&["configmap", "first"])["metadata"]["uid"], first["metadata"]["uid"]);
    env.minik(&["cluster", "delete", &other]).ok();
    let file = saved["path"].as_str().expect("a path");
    let whole = std::fs::read(file).expect("the backup");
    std::fs::write(file, &whole[..whole.len() / 2]).expect("a file");
    env.minik(&["backup", "restore", "kept", "--cluster", &other]).fails_with(1);
    env.minik(&["backup", "delete", "kept"]).ok();
    env.minik(&["backup", "restore", "kept"]).fails_with(4);
    env.assert_gone(&name);
    env.assert_gone(&other);
}
