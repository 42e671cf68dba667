//! A cluster with several servers: any one of them may go, come back, be taken out, be brought in.

use std::time::{Duration, Instant};

use crate::Test;
use crate::support::{Cluster, Env, docker::docker, eventually};

pub const TESTS: &[Test] = &[("servers::any_one_may_go", any_one_may_go)];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// The addresses that the Service `kubernetes` leads to.
fn endpoints(cluster: &Cluster) -> Result<usize, String> {
    let words = ["get", "endpoints", "kubernetes", "--output", "jsonpath={.subsets[*].addresses[*].ip}"];
    Ok(cluster.kubectl(&words).try_ok()?.split_whitespace().count())
}

/// Waits until so many servers serve.
fn serve(cluster: &Cluster, servers: usize) {
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
