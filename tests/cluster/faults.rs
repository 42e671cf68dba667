//! What happens to running nodes: processes are killed, stopped and cut off, disks run full, namespaces go. All heals, and
//! what is wrong is said meanwhile.

use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, docker::docker, eventually, run};

pub const TESTS: &[Test] = &[
    ("faults::whatever_is_killed_comes_back", whatever_is_killed_comes_back),
    ("faults::a_removed_lease_namespace_comes_back", a_removed_lease_namespace_comes_back),
    ("faults::a_full_disk_is_said_and_outlived", a_full_disk_is_said_and_outlived),
];

/// They wait for bounds to pass: until a question counts as not answered, until a silent node is given up.
pub const SLOW: &[Test] = &[
    ("faults::a_hung_runtime_is_said_and_outlived", a_hung_runtime_is_said_and_outlived),
    ("faults::a_paused_node_comes_back", a_paused_node_comes_back),
    ("faults::a_node_cut_off_comes_back", a_node_cut_off_comes_back),
];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Signals every process of that name in a node, but the first of the node. The node's role is called `exe`: its init
/// starts it as /proc/self/exe.
pub fn signal(node: &str, process: &str, signal: &str) {
    let line = format!(
        "for p in /proc/[0-9]*; do pid=${{p#/proc/}}; \
         [ \"$pid\" = 1 ] || [ \"$(cat $p/comm 2>/dev/null)\" != {process} ] || kill -{signal} $pid; done"
    );
    docker(&["exec", node, "sh", "-c", &line]);
}

fn agents(cluster: &Cluster) -> Vec<String> {
    cluster.nodes().into_iter().filter(|node| node.contains("-agent-")).collect()
}

/// A Pod on each node, behind a Service.
pub fn serve(cluster: &Cluster, namespace: &str) {
    let manifest = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:1.36
        command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec busybox httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    let path = file.path().display().to_string();
    cluster.kubectl(&["apply", "--namespace", namespace, "--filename", &path]).ok();
    eventually(SECONDS(90), "a Pod on each node serves", || serving(cluster, namespace, 3));
}

/// Whether all nodes are Ready and so many endpoints are.
fn serving(cluster: &Cluster, namespace: &str, endpoints: usize) -> Result<(), String> {
    let ready = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let nodes = cluster.kubectl(&["get", "nodes", "--output", ready]).try_ok()?;
    if nodes.lines().any(|line| !line.ends_with(" True")) {
        return Err(nodes);
    }
    match endpoints_of(cluster, namespace)? {
        count if count == endpoints => Ok(()),
        count => Err(format!("{count} endpoints")),
    }
}

fn endpoints_of(cluster: &Cluster, namespace: &str) -> Result<usize, String> {
    let path = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
    let slices = ["get", "endpointslices", "--namespace", namespace, "--output", path];
    Ok(cluster.kubectl(&slices).try_ok()?.split_whitespace().count())
}

/// Somebody inside a Pod can still be asked, and reaches the Service.
pub fn works(cluster: &Cluster, namespace: &str) -> Result<(), String> {
    serving(cluster, namespace, 3)?;
    for pod in pods(cluster, namespace)? {
        let exec =
            ["exec", "--namespace", namespace, &pod, "--", "wget", "-T", "2", "-q", "-O", "-", "http://web/"];
        cluster.kubectl(&exec).try_ok()?;
    }
    Ok(())
}

fn pods(cluster: &Cluster, namespace: &str) -> Result<Vec<String>, String> {
    let list = cluster.kubectl(&["get", "pods", "--namespace", namespace, "--output=name"]).try_ok()?;
    Ok(list.lines().map(ToOwned::to_owned).collect())
}

fn restarts(cluster: &Cluster, namespace: &str) -> Result<u32, String> {
    let path = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    let said = cluster.kubectl(&["get", "pods", "--namespace", namespace, "--output", path]).try_ok()?;
    Ok(said.split_whitespace().filter_map(|count| count.parse::<u32>().ok()).sum())
}

fn whatever_is_killed_comes_back(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("killed"));
    serve(cluster, &namespace);
    let node = agents(cluster).remove(0);

    signal(&node, "containerd", "KILL");
    eventually(SECONDS(60), "containerd is back", || works(cluster, &namespace));
    assert_eq!(restarts(cluster, &namespace), Ok(0), "containers outlive the runtime");

    signal(&node, "containerd-shim", "KILL");
    eventually(SECONDS(60), "containers whose shim died are started again", || {
        match restarts(cluster, &namespace)? {
            0 => Err("not yet".to_owned()),
            _ => works(cluster, &namespace),
        }
    });

    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

fn a_removed_lease_namespace_comes_back(env: &Env) {
    let cluster = env.cluster();
    cluster.kubectl(&["delete", "namespace", "kube-node-lease", "--timeout=60s"]).ok();
    eventually(SECONDS(60), "every node has a Lease again", || {
        let leases = ["get", "leases", "--namespace=kube-node-lease", "--output=name"];
        let said = cluster.kubectl(&leases).try_ok()?;
        if said.lines().count() == 3 { Ok(()) } else { Err(said) }
    });
    cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=1s"]).ok();
}

fn a_hung_runtime_is_said_and_outlived(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("hung"));
    serve(cluster, &namespace);
    let node = agents(cluster).remove(0);
    let lease = || {
        let path = "jsonpath={.spec.renewTime}";
        let get = ["get", "lease", &node, "--namespace=kube-node-lease", "--output", path];
        cluster.kubectl(&get).ok()
    };
    signal(&node, "containerd", "STOP");
    let before = lease();
    eventually(SECONDS(60), "the node says that its runtime does not answer", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")]['status','reason','message']}";
        let said = cluster.kubectl(&["get", "node", &node, "--output", path]).try_ok()?;
        if said.starts_with("False") && said.contains("runtime") { Ok(()) } else { Err(said) }
    });
    assert_ne!(lease(), before, "the Lease goes on");
    signal(&node, "containerd", "CONT");
    eventually(SECONDS(60), "it is Ready again, and its Pods serve", || works(cluster, &namespace));
    assert_eq!(restarts(cluster, &namespace), Ok(0), "nothing was restarted for it");
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

/// A volume of a few megabytes for the server's state; another container keeps it from going when the server restarts.
fn a_full_disk_is_said_and_outlived(env: &Env) {
    let name = env.name("full");
    let (volume, keeper) = (format!("minik-{name}-server-0-state"), format!("minik-{name}-keeper"));
    let label = format!("dev.minik.cluster={name}");
    let small = ["--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=32m"];
    docker(&[&["volume", "create", "--label", &label], &small[..], &[&volume]].concat());
    crate::support::test_images();
    let mount = format!("{volume}:/state");
    // Should this be killed, it goes by itself.
    let run_keeper = ["run", "--detach", "--rm", "--name", &keeper, "--volume", &mount];
    docker(&[&run_keeper[..], &["busybox:1.36", "sleep", "300"]].concat());
    let server = format!("minik-{name}-server-0");
    env.minik(&["cluster", "create", &name]).ok();
    let cluster = env.attach(&name);

    let fill = "dd if=/dev/zero of=/state/fill bs=64k 2>/dev/null; true";
    docker(&["exec", &keeper, "sh", "-c", fill]);
    let write = |n: u32| {
        let text = format!("--from-literal=k={}", "x".repeat(100_000));
        cluster.kubectl(&["create", "configmap", &format!("m{n}"), &text])
    };
    let mut written = Vec::new();
    let why = eventually(SECONDS(60), "a write is refused", || {
        let n = u32::try_from(written.len()).unwrap();
        match write(n).try_ok() {
            Ok(_) => {
                written.push(n);
                Err("there is still room".to_owned())
            }
            Err(why) => Ok(why),
        }
    });
    eventually(SECONDS(60), "the server ends and says why", || {
        let log = run("docker", &["logs", &server], &[]);
        let said = log.stdout + &log.stderr;
        if said.contains("is the disk full?") { Ok(()) } else { Err(said) }
    });
    docker(&["exec", &keeper, "rm", "/state/fill"]);
    eventually(SECONDS(90), "it carries on once there is room", || write(1_000_000).try_ok());
    for n in written {
        cluster.kubectl(&["get", "configmap", &format!("m{n}")]).ok();
    }
    cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]).ok();
    docker(&["rm", "--force", &keeper]);
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
    assert!(!why.is_empty());
}

fn a_paused_node_comes_back(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("paused"));
    serve(cluster, &namespace);
    let node = agents(cluster).remove(0);
    docker(&["pause", &node]);
    eventually(SECONDS(90), "its endpoint is gone", || match endpoints_of(cluster, &namespace)? {
        2 => Ok(()),
        count => Err(format!("{count} endpoints")),
    });
    docker(&["unpause", &node]);
    eventually(SECONDS(60), "the same Pods serve again", || works(cluster, &namespace));
    assert_eq!(restarts(cluster, &namespace), Ok(0), "nothing was restarted for it");
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}

fn a_node_cut_off_comes_back(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("cut"));
    serve(cluster, &namespace);
    let node = agents(cluster).remove(0);
    let server = cluster.nodes().into_iter().find(|node| node.contains("-server-")).unwrap();
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker(&["inspect", "--format", format, &server]);
    let rule = |verb: &str, chain: &str, side: &str| {
        docker(&["exec", &node, "iptables", "-w", verb, chain, side, address.trim(), "-j", "DROP"]);
    };
    let both = |verb: &str| {
        rule(verb, "INPUT", "--source");
        rule(verb, "OUTPUT", "--destination");
    };
    both("--insert");
    eventually(SECONDS(90), "its endpoint is gone", || match endpoints_of(cluster, &namespace)? {
        2 => Ok(()),
        count => Err(format!("{count} endpoints")),
    });
    both("--delete");
    eventually(SECONDS(60), "the same Pods serve again", || works(cluster, &namespace));
    assert_eq!(restarts(cluster, &namespace), Ok(0), "nothing was restarted for it");
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
}
