//! The life of a cluster: made, listed, refused, rolled back, interrupted, removed.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, Env, docker, eventually, test_images};

pub const TESTS: &[Test] = &[
    ("lifecycle::made_listed_and_removed", made_listed_and_removed),
    ("lifecycle::a_restart_changes_nothing", a_restart_changes_nothing),
    ("lifecycle::two_at_once", two_at_once),
    ("lifecycle::a_node_that_dies_is_rolled_back", a_node_that_dies_is_rolled_back),
    ("lifecycle::a_node_that_says_nothing_times_out", a_node_that_says_nothing_times_out),
    ("lifecycle::an_interrupt_leaves_nothing", an_interrupt_leaves_nothing),
    ("lifecycle::killed_in_any_phase_it_leaves_nothing", killed_in_any_phase_it_leaves_nothing),
    ("lifecycle::an_image_that_does_not_exist", an_image_that_does_not_exist),
    ("lifecycle::remains_without_rollback_can_be_removed", remains_without_rollback_can_be_removed),
    ("lifecycle::a_foreign_network_is_not_touched", a_foreign_network_is_not_touched),
    ("lifecycle::a_foreign_container_is_not_touched", a_foreign_container_is_not_touched),
    ("lifecycle::changed_stopped_and_started", changed_stopped_and_started),
    ("lifecycle::an_image_enters_the_host_once", an_image_enters_the_host_once),
    ("lifecycle::images_that_cannot_be_loaded", images_that_cannot_be_loaded),
];

/// An image that runs for ever as a node, without being one.
const SILENT: &str = "minik-test/web:1";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn made_listed_and_removed(env: &Env) {
    let name = env.name("life");
    let others = "apiVersion: v1\nkind: Config\ncontexts:\n- name: other\n  context: {cluster: c, user: u}\ncurrent-context: other\n";
    std::fs::write(env.kubeconfig(), others).unwrap();

    let made = json(&env.minik(&["cluster", "create", &name, "--nodes", "2", "-o", "json"]).ok());
    assert_eq!(made["nodes"].as_array().map(Vec::len), Some(2), "{made}");
    assert_eq!(made["context"], format!("minik-{name}"));

    let cluster = env.attach(&name);
    let nodes = cluster.get(&["nodes"]);
    for node in nodes["items"].as_array().unwrap() {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{node}");
    }
    // The user's own kubeconfig leads there as well, at once.
    let kubeconfig = env.kubeconfig().display().to_string();
    let get =
        crate::support::run("kubectl", &["get", "nodes", "-o", "name"], &[("KUBECONFIG", &kubeconfig)]).ok();
    assert_eq!(get.lines().count(), 2, "{get}");

    let error = env.minik(&["cluster", "create", &name]).fails_with(5);
    assert!(error.contains("already exists") && error.contains("hint:"), "{error}");

    let list = json(&env.minik(&["cluster", "list", "-o", "json"]).ok());
    let entry = list.as_array().unwrap().iter().find(|c| c["name"] == name.as_str()).expect("listed");
    assert_eq!(
        (entry["status"].as_str(), entry["nodes"].as_array().map(Vec::len)),
        (Some("Running"), Some(2))
    );

    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
    assert!(std::fs::read_to_string(env.kubeconfig()).unwrap().contains("current-context: other"));
    let again = env.minik(&["cluster", "delete", &name]).ok();
    assert!(again.contains("Nothing to delete"), "{again}");
}

/// Docker, or the machine, starts again: the same nodes come back with what they had.
fn a_restart_changes_nothing(env: &Env) {
    test_images();
    let name = env.name("restart");
    env.minik(&["cluster", "create", &name, "--nodes", "2"]).ok();
    env.minik(&["image", "load", "minik-test/web:1", "--cluster", &name]).ok();
    let cluster = env.attach(&name);
    cluster.kubectl(&["create", "deployment", "web", "--image=minik-test/web:1", "--replicas=2"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let addresses = |cluster: &Cluster| -> Vec<String> {
        let nodes = cluster.get(&["nodes"]);
        let items = nodes["items"].as_array().expect("a list").iter();
        items.map(|node| format!("{} {}", node["metadata"]["name"], node["status"]["addresses"])).collect()
    };
    let before = addresses(&cluster);

    let containers = cluster.nodes();
    docker::docker(
        &[&["restart"], containers.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat(),
    );
    eventually(Duration::from_secs(60), "all nodes are Ready again, and their Pods run", || {
        cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=1s"]).try_ok()?;
        cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=1s"]).try_ok()
    });
    assert_eq!(addresses(&cluster), before);
    let pods = cluster.get(&["pods", "-l", "app=web", "--field-selector", "status.phase=Running"]);
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(2), "{pods}");
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}

fn two_at_once(env: &Env) {
    let names = [env.name("one"), env.name("two")];
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| env.minik(&["cluster", "create", name, "--nodes", "1", "--timeout", "5m"]).ok());
        }
    });
    let subnets: Vec<String> = names
        .iter()
        .map(|name| {
            docker::docker(&[
                "network",
                "inspect",
                "--format",
                "{{(index .IPAM.Config 0).Subnet}}",
                &format!("minik-{name}"),
            ])
        })
        .collect();
    assert_ne!(subnets[0], subnets[1]);
    for name in &names {
        env.minik(&["cluster", "delete", name]).ok();
        env.assert_gone(name);
    }
}

fn a_node_that_dies_is_rolled_back(env: &Env) {
    test_images();
    let name = env.name("dies");
    let error = env.minik(&["cluster", "create", &name, "--image", "busybox:1.36"]).fails_with(6);
    assert!(error.contains("control plane") && error.contains("ended with exit code 0"), "{error}");
    env.assert_gone(&name);
}

fn a_node_that_says_nothing_times_out(env: &Env) {
    test_images();
    let name = env.name("silent");
    let error = env.minik(&["cluster", "create", &name, "--image", SILENT, "--timeout", "2s"]).fails_with(6);
    for part in ["not ready after 2 s", "the API server does not answer", "listening on 8080", "hint:"] {
        assert!(error.contains(part), "{part:?} is missing:\n{error}");
    }
    env.assert_gone(&name);
}

fn an_interrupt_leaves_nothing(env: &Env) {
    test_images();
    for (signal, part) in [(Signal::SIGINT, "int"), (Signal::SIGTERM, "term")] {
        let name = env.name(part);
        let mut child = env
            .minik_command(&["cluster", "create", &name, "--nodes", "2", "--image", SILENT])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually(Duration::from_secs(30), "containers are there", || {
            if docker::remains(&name).iter().filter(|what| what.starts_with("ps ")).count() == 2 {
                Ok(())
            } else {
                Err(String::new())
            }
        });
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        env.assert_gone(&name);
    }
}

/// Nobody can catch this signal: another process takes away what is half made. The later phases are waited for by what they
/// print.
fn killed_in_any_phase_it_leaves_nothing(env: &Env) {
    use std::io::BufRead;
    for (part, phase) in [("knodes", "nodes"), ("kcontrol", "control plane"), ("kready", "nodes ready")] {
        let name = env.name(part);
        let mut child = env
            .minik_command(&["cluster", "create", &name, "--nodes", "2"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        // A phase is said when it is over; the first one's time is while the image is looked for.
        let before = match phase {
            "nodes" => "node image",
            "control plane" => "nodes",
            _ => "control plane",
        };
        lines.map_while(Result::ok).find(|line| line.contains(before)).expect(before);
        child.kill().unwrap();
        child.wait().unwrap();
        eventually(Duration::from_secs(30), "what was half made is gone", || {
            let remains = docker::remains(&name);
            if remains.is_empty() { Ok(()) } else { Err(format!("{phase}: {remains:?}")) }
        });
        env.assert_gone(&name);
    }
}

fn an_image_that_does_not_exist(env: &Env) {
    let name = env.name("noimage");
    let error = env.minik(&["cluster", "create", &name, "--image", "minik-test/none:1"]).fails_with(4);
    assert!(error.contains("minik-test/none:1") && error.contains("does not exist"), "{error}");
    env.assert_gone(&name);
}

fn remains_without_rollback_can_be_removed(env: &Env) {
    test_images();
    let name = env.name("remains");
    let args =
        ["cluster", "create", &name, "--nodes", "2", "--image", SILENT, "--timeout", "1s", "--no-rollback"];
    env.minik(&args).fails_with(6);
    assert!(!docker::remains(&name).is_empty());
    // Half of it goes by other means.
    docker::docker(&["rm", "--force", &format!("minik-{name}-server-0")]);
    let list = env.minik(&["cluster", "list"]).ok();
    assert!(list.contains("Degraded"), "{list}");
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}

fn a_foreign_network_is_not_touched(env: &Env) {
    let name = env.name("foreign");
    let network = format!("minik-{name}");
    docker::docker(&["network", "create", &network]);
    let error = env.minik(&["cluster", "create", &name]).fails_with(5);
    let there =
        docker::docker(&["network", "ls", "--format", "{{.Name}}", "--filter", &format!("name={network}")]);
    docker::docker(&["network", "rm", &network]);
    assert!(error.contains(&network), "{error}");
    assert_eq!(there.trim(), network);
}

/// A container that has an agent's name and is not ours stops the creation, and nothing but that.
fn a_foreign_container_is_not_touched(env: &Env) {
    test_images();
    let name = env.name("taken");
    let agent = format!("minik-{name}-agent-0");
    docker::docker(&["create", "--name", &agent, "busybox:1.36", "true"]);
    let error = env.minik(&["cluster", "create", &name, "--nodes", "2"]).fails_with(5);
    let there =
        docker::docker(&["ps", "--all", "--format", "{{.Names}}", "--filter", &format!("name={agent}")]);
    docker::docker(&["rm", &agent]);
    assert!(error.contains(&agent) && error.contains("hint:"), "{error}");
    assert_eq!(there.trim(), agent);
    env.assert_gone(&name);
}

/// Nodes and host ports come and go while the cluster runs; stopped and started again it is the same.
fn changed_stopped_and_started(env: &Env) {
    test_images();
    let name = env.name("change");
    let sizes = ["--node-memory", "1Gi", "--node-cpus", "1", "-o", "json"];
    let made = json(&env.minik(&[&["cluster", "create", &name], &sizes[..]].concat()).ok());
    let cluster = env.attach(&name);
    let server = cluster.get(&["node", &format!("minik-{name}-server-0")]);
    assert_eq!(server["status"]["capacity"]["cpu"], "1", "{server}");
    assert_eq!(server["status"]["capacity"]["memory"], "1Gi", "{server}");

    // Join tokens run out: who adds a node makes one for it, and nodes that have joined need none to come back.
    let tokens =
        ["secrets", "--namespace=kube-system", "--field-selector=type=bootstrap.kubernetes.io/token"];
    cluster.kubectl(&[&["delete"], &tokens[..]].concat()).ok();
    let with = ["--label", "tier=new", "--taint", "tier=new:PreferNoSchedule", "-o", "json"];
    let added = json(&env.minik(&[&["node", "add", "--cluster", &name], &with[..]].concat()).ok());
    assert_eq!(added["steps"], serde_json::json!([format!("create minik-{name}-agent-0")]));
    let agent = cluster.get(&["node", &format!("minik-{name}-agent-0")]);
    assert_eq!(agent["metadata"]["labels"]["tier"], "new");
    assert_eq!(agent["spec"]["taints"][0]["effect"], "PreferNoSchedule", "{agent}");
    let token = cluster.get(&tokens);
    assert_eq!(token["items"].as_array().map(Vec::len), Some(1), "{token}");
    assert!(token["items"][0]["data"]["expiration"].is_string(), "{token}");
    cluster.kubectl(&[&["delete"], &tokens[..]].concat()).ok();
    docker::docker(&["restart", &format!("minik-{name}-agent-0")]);

    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    env.minik(&["cluster", "edit", &name, "--port-add", &format!("{host}:80")]).ok();
    env.minik(&["image", "load", "minik-test/web:1", "--cluster", &name]).ok();
    cluster.kubectl(&["create", "deployment", "web", "--image=minik-test/web:1", "--port=8080"]).ok();
    let ports = ["--port=80", "--target-port=8080"];
    cluster.kubectl(&[&["expose", "deployment", "web", "--type=LoadBalancer"], &ports[..]].concat()).ok();
    let url = format!("http://127.0.0.1:{host}/");
    let page = || crate::support::run("curl", &["--silent", "--fail", "--max-time", "2", &url], &[]).try_ok();
    eventually(Duration::from_secs(60), "the page through the host port", page);

    // A node of another size is another container: the one before it was meant to end.
    env.minik(&["cluster", "edit", &name, "--node-memory", "2Gi@agent:0"]).ok();
    let agent = cluster.get(&["node", &format!("minik-{name}-agent-0")]);
    assert_eq!(agent["status"]["capacity"]["memory"], "2Gi", "{agent}");

    let stopped = json(&env.minik(&["cluster", "stop", &name, "-o", "json"]).ok());
    assert_eq!(stopped["stopped"].as_array().map(Vec::len), Some(3), "{stopped}");
    assert!(env.minik(&["cluster", "stop", &name]).ok().contains("already"));
    assert!(env.minik(&["cluster", "list"]).ok().contains("Stopped"));
    // Somebody takes a container away meanwhile: it comes back on its own volumes.
    docker::docker(&["rm", &format!("minik-{name}-agent-0")]);
    env.minik(&["cluster", "start", &name]).ok();
    assert!(env.minik(&["cluster", "start", &name]).ok().contains("runs already"));
    let nodes = cluster.get(&["nodes"]);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(2), "{nodes}");
    eventually(Duration::from_secs(60), "the page is back", page);
    let inspected = json(&env.minik(&["cluster", "inspect", &name, "-o", "json"]).ok());
    assert_eq!((&inspected["server"], &inspected["differences"]), (&made["server"], &serde_json::json!([])));

    env.minik(&["cluster", "edit", &name, "--port-delete", &host.to_string()]).ok();
    assert!(page().is_err());
    env.minik(&["node", "delete", "agent-0", "--cluster", &name]).ok();
    let nodes = cluster.get(&["nodes"]);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(1), "{nodes}");
    env.minik(&["node", "delete", "agent-0", "--cluster", &name]).ok();
    env.minik(&["node", "delete", "server-0", "--cluster", &name]).fails_with(2);
    env.minik(&["node", "stop", "agent-7", "--cluster", &name]).fails_with(4);
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}

/// Loaded once, an image costs nothing a second time; archives are read to their end before anything is believed.
fn an_image_enters_the_host_once(env: &Env) {
    let cluster = &env.cluster().name;
    let again =
        json(&env.minik(&["image", "load", "minik-test/web:1", "--cluster", cluster, "-o", "json"]).ok());
    assert_eq!(again["bytes"], 0, "{again}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("box.tar").display().to_string();
    docker::docker(&["save", "--output", &file, "busybox:1.36"]);
    let whole = std::fs::read(&file).unwrap();
    let loaded = json(&env.minik(&["image", "load", &file, "--cluster", cluster, "-o", "json"]).ok());
    assert_eq!(loaded["images"], serde_json::json!(["docker.io/library/busybox:1.36"]));
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let error = env.minik(&["image", "load", &file, "--cluster", cluster]).fails_with(1);
    assert!(error.contains("box.tar"), "{error}");
    let list = json(&env.minik(&["image", "list", "--cluster", cluster, "-o", "json"]).ok());
    let web =
        list.as_array().unwrap().iter().find(|i| i["name"] == "docker.io/minik-test/web:1").expect("listed");
    assert_eq!(web["nodes"].as_array().map(Vec::len), Some(3), "{web}");
}

fn images_that_cannot_be_loaded(env: &Env) {
    let cluster = &env.cluster().name;
    let error = env.minik(&["image", "load", "minik-test/none:1", "--cluster", cluster]).fails_with(4);
    assert!(error.contains("minik-test/none:1"), "{error}");
    env.minik(&["image", "load", "/nowhere/image.tar", "--cluster", cluster]).fails_with(4);
    env.minik(&["image", "load", "busybox:1.36", "--cluster", &env.name("none")]).fails_with(4);
    // Something that is no archive is not taken for success.
    let file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    std::fs::write(file.path(), "no archive").unwrap();
    let path = file.path().display().to_string();
    assert_ne!(env.minik(&["image", "load", &path, "--cluster", cluster]).code, 0);
}
