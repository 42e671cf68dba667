//! Nodes broken on purpose: seen from outside, and healed whatever becomes of who broke them.

use std::time::Duration;

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, Env, docker, eventually};

pub const TESTS: &[Test] = &[("broken::broken_and_healed", broken_and_healed)];

/// Whether the node's kubelet answers the API server.
fn reachable(cluster: &Cluster, node: &str) -> bool {
    let path = format!("/api/v1/nodes/{node}/proxy/healthz");
    cluster.kubectl(&["get", "--raw", &path, "--request-timeout=2s"]).code == 0
}

fn broken(env: &Env, cluster: &str) -> Value {
    let text = env.minik(&["cluster", "inspect", cluster, "-o", "json"]).ok();
    serde_json::from_str::<Value>(&text).expect("JSON")["broken"].clone()
}

fn wait_until(cluster: &Cluster, node: &str, expect: bool) {
    let what = if expect { "the node answers again" } else { "the node is out of reach" };
    eventually(Duration::from_secs(60), what, || match reachable(cluster, node) == expect {
        true => Ok(()),
        false => Err(String::new()),
    });
}

/// One cluster for all of them: each verb breaks what it says, `inspect` tells, and it ends by itself or by `heal`.
fn broken_and_healed(env: &Env) {
    let name = env.name("broken");
    env.minik(&["cluster", "create", &name, "--nodes", "2"]).ok();
    let cluster = env.attach(&name);
    let node = format!("minik-{name}-agent-0");
    let of = |verb: &str, more: &[&str]| {
        env.minik(&[&["node", verb, "agent-0", "--cluster", &name], more].concat())
    };
    assert_eq!(broken(env, &name), Value::Null);

    // Healed by the node itself: nothing of minik's runs on the host meanwhile.
    let said = of("pause", &["--for", "4s"]).ok();
    assert!(said.contains("is paused until") && said.contains("minik node heal agent-0"), "{said}");
    assert_eq!(broken(env, &name)[0]["fault"], "pause");
    assert!(!reachable(&cluster, &node), "a node that stands still does not answer");
    wait_until(&cluster, &node, true);
    assert_eq!(broken(env, &name), Value::Null);

    // Cut off, and healed before its time.
    of("partition", &["--for", "10m"]).ok();
    assert!(!reachable(&cluster, &node));
    assert_eq!(broken(env, &name)[0]["fault"], "partition");
    assert!(of("heal", &[]).ok().contains("no longer cut off"));
    wait_until(&cluster, &node, true);
    of("partition", &["--from", "server-0", "--for", "10m"]).ok();
    assert!(!reachable(&cluster, &node));
    of("heal", &[]).ok();
    assert!(of("heal", &[]).ok().contains("Nothing is broken"));

    // Slow: a megabit a second is an eighth of a megabyte.
    of("slow", &["--rate", "1Mbit", "--loss", "0.1%", "--for", "10m"]).ok();
    let rate = docker::docker(&["exec", &node, "tc", "qdisc", "show", "dev", "eth0"]);
    assert!(rate.contains("tbf") && rate.contains("1Mbit"), "{rate}");
    of("heal", &[]).ok();
    let rate = docker::docker(&["exec", &node, "tc", "qdisc", "show", "dev", "eth0"]);
    assert!(!rate.contains("tbf"), "{rate}");

    // Dead for a time; the engine starts the container, the node waits in there.
    let started = || docker::docker(&["inspect", "--format", "{{.State.StartedAt}}", &node]);
    let before = started();
    of("kill", &["--for", "10m"]).ok();
    eventually(Duration::from_secs(30), "the container starts again", || match started() == before {
        true => Err(String::new()),
        false => Ok(()),
    });
    eventually(Duration::from_secs(30), "inspect says that it is dead", || {
        let broken = broken(env, &name);
        if broken[0]["fault"] == "kill" { Ok(()) } else { Err(broken.to_string()) }
    });
    assert!(!reachable(&cluster, &node));
    of("heal", &[]).ok();
    wait_until(&cluster, &node, true);
    env.minik(&["node", "stop", "agent-0", "--cluster", &name]).ok();
    assert!(of("pause", &[]).fails_with(1).contains("does not run"));
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}
