//! Pods and their volumes on real nodes: order and hooks, sidecars, claims, limits, people who look inside, a node that
//! stops.

use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, docker::docker, eventually, run, test_images};

pub const TESTS: &[Test] = &[
    ("pods::run_in_order_and_end", run_in_order_and_end),
    ("pods::keep_what_they_claim", keep_what_they_claim),
    ("pods::are_looked_into", are_looked_into),
    ("pods::that_end_at_once_are_heard", that_end_at_once_are_heard),
    ("pods::read_images_and_files", read_images_and_files),
    ("pods::start_again_together", start_again_together),
    ("pods::of_a_node_s_own_folder_are_shown", of_a_node_s_own_folder_are_shown),
    ("pods::end_before_their_node_does", end_before_their_node_does),
    ("pods::are_measured_by_whom_rbac_lets", are_measured_by_whom_rbac_lets),
    ("pods::make_room_on_a_full_node", make_room_on_a_full_node),
];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const PODS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/pods.yaml");

/// A namespace with everything of `pods.yaml` in it.
fn made(env: &Env, part: &str) -> String {
    let namespace = env.namespace(part);
    env.cluster().kubectl(&["apply", "--namespace", &namespace, "--filename", PODS]).ok();
    namespace
}

fn wait(cluster: &Cluster, namespace: &str, pod: &str, what: &str) {
    let what = format!("--for={what}");
    cluster.kubectl(&["wait", "--namespace", namespace, &format!("pod/{pod}"), &what, "--timeout=90s"]).ok();
}

fn field(cluster: &Cluster, namespace: &str, pod: &str, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["get", "pod", pod, "--namespace", namespace, "--output", &path]).ok()
}

fn remove(cluster: &Cluster, namespace: &str) {
    cluster.kubectl(&["delete", "namespace", namespace, "--timeout=120s"]).ok();
}

fn run_in_order_and_end(env: &Env) {
    let (namespace, cluster) = (made(env, "order"), env.cluster());
    wait(cluster, &namespace, "on-the-node", "condition=Ready");
    let ip = field(cluster, &namespace, "on-the-node", ".status.podIP");
    assert_eq!(ip, field(cluster, &namespace, "on-the-node", ".status.hostIP"));
    wait(cluster, &namespace, "in-order", "condition=Ready");
    let started = |index: u32| {
        let path = format!(".status.containerStatuses[{index}].state.running.startedAt");
        field(cluster, &namespace, "in-order", &path)
    };
    assert!(started(0) < started(1), "the second waits for the first's hook: {} {}", started(0), started(1));
    wait(cluster, &namespace, "with-sidecar", "jsonpath={.status.phase}=Succeeded");
    wait(cluster, &namespace, "too-much", "jsonpath={.status.reason}=Evicted");
    let why = field(cluster, &namespace, "too-much", ".status.message");
    assert!(why.contains("EmptyDir volume \"scratch\" exceeds the limit \"2Mi\""), "{why}");
    let end =
        ["delete", "pod", "hanging-hook", "--grace-period=2", "--timeout=30s", "--namespace", &namespace];
    cluster.kubectl(&end).ok();
    remove(cluster, &namespace);
}

fn keep_what_they_claim(env: &Env) {
    let (namespace, cluster) = (made(env, "claims"), env.cluster());
    let inside = |command: &str| {
        let exec = ["exec", "keeper", "--namespace", &namespace, "--", "sh", "-c", command];
        cluster.kubectl(&exec).ok()
    };
    wait(cluster, &namespace, "keeper", "condition=Ready");
    assert_eq!(inside("cat /data/log && touch /own/mine"), "kept\n");
    // Another Pod of that name finds the data; what was its own is gone.
    cluster.kubectl(&["delete", "pod", "keeper", "--namespace", &namespace, "--timeout=60s"]).ok();
    eventually(SECONDS(60), "the Pod's own claim goes with it", || {
        let left = cluster.kubectl(&["get", "pvc", "--namespace", &namespace, "--output=name"]).ok();
        if left.contains("keeper-own") { Err(left) } else { Ok(()) }
    });
    cluster.kubectl(&["apply", "--namespace", &namespace, "--filename", PODS]).ok();
    wait(cluster, &namespace, "keeper", "condition=Ready");
    assert_eq!(inside("cat /data/log && ls /own"), "kept\nkept\n");
    let volumes = cluster.kubectl(&["get", "pv", "--output=name"]).ok();
    remove(cluster, &namespace);
    eventually(SECONDS(60), "volumes go with their claims", || {
        let left = cluster.kubectl(&["get", "pv", "--output=name"]).ok();
        if volumes.lines().any(|volume| left.contains(volume)) { Err(left) } else { Ok(()) }
    });
}

fn are_looked_into(env: &Env) {
    let (namespace, cluster) = (made(env, "looks"), env.cluster());
    // The container ends while the attachment begins: it must return, again and again.
    for n in 0..3 {
        let name = format!("short-{n}");
        let run = [
            "run",
            "--stdin",
            "--tty",
            "--rm",
            &name,
            "--image=busybox:1.36",
            "--restart=Never",
            "--namespace",
            &namespace,
            "--",
            "sh",
            "-c",
            "env",
        ];
        cluster.kubectl_in_terminal(&run, "").ok();
    }
    wait(cluster, &namespace, "in-order", "condition=Ready");
    let debug = [
        "debug",
        "in-order",
        "--image=busybox:1.36",
        "--target=first",
        "--container=look",
        "--namespace",
        &namespace,
        "--",
        "ps",
    ];
    cluster.kubectl(&debug).ok();
    eventually(SECONDS(60), "the ephemeral container saw its neighbour", || {
        let logs = ["logs", "in-order", "--container=look", "--namespace", &namespace];
        let seen = cluster.kubectl(&logs).try_ok()?;
        if seen.contains("sleep 3600") { Ok(()) } else { Err(seen) }
    });
    let more = r#"{"spec": {"containers": [{"name": "second",
        "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "300m", "memory": "96Mi"}}}]}}"#;
    let patch =
        ["patch", "pod", "in-order", "--subresource=resize", "--patch", more, "--namespace", &namespace];
    cluster.kubectl(&patch).ok();
    eventually(SECONDS(60), "the limit is another one, and nothing was restarted", || {
        let limit =
            field(cluster, &namespace, "in-order", ".status.containerStatuses[1].resources.limits.memory");
        let restarts = field(cluster, &namespace, "in-order", ".status.containerStatuses[1].restartCount");
        if (limit.as_str(), restarts.as_str()) == ("96Mi", "0") { Ok(()) } else { Err(limit + &restarts) }
    });
    let top = cluster.kubectl(&["top", "pods", "--namespace", &namespace]).ok();
    assert!(top.contains("in-order"), "{top}");
    assert_eq!(cluster.kubectl(&["top", "nodes", "--no-headers"]).ok().lines().count(), 3);
    remove(cluster, &namespace);
}

/// Whoever attaches comes late: what was said before is told from the log.
fn that_end_at_once_are_heard(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("heard"));
    for n in 0..4 {
        let (name, word) = (format!("short-{n}"), format!("word-{n}"));
        let run =
            ["run", "--stdin", "--rm", "--image=busybox:1.36", "--restart=Never", "--namespace", &namespace];
        let said = cluster.kubectl(&[&run[..], &[&name, "--", "echo", &word]].concat()).ok();
        assert!(said.contains(&word), "{said:?}");
    }
    remove(cluster, &namespace);
}

fn read_images_and_files(env: &Env) {
    let (namespace, cluster) = (made(env, "images"), env.cluster());
    wait(cluster, &namespace, "with-image", "condition=Ready");
    let inside = |command: &str| {
        let exec = ["exec", "with-image", "--namespace", &namespace, "--", "sh", "-c", command];
        cluster.kubectl(&exec)
    };
    inside("test -s /redis/usr/bin/redis-server && test -s /part/redis-server").ok();
    let refused = inside("touch /redis/new");
    assert!(refused.code != 0 && refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    wait(cluster, &namespace, "reads-a-file", "jsonpath={.status.phase}=Succeeded");
    let said = cluster.kubectl(&["logs", "reads-a-file", "--namespace", &namespace]).ok();
    assert_eq!(said, "here and there\n");
    let node = field(cluster, &namespace, "with-image", ".spec.nodeName");
    remove(cluster, &namespace);
    // Nothing of it is left: neither its mount nor its snapshot.
    let left =
        "grep -c kubernetes.io~image /proc/self/mountinfo; ctr -n k8s.io snapshots ls | grep -c minik-volume";
    eventually(SECONDS(60), "the image is let go", || {
        match docker(&["exec", &node, "sh", "-c", &format!("{left} || true")]).as_str() {
            "0\n0" | "0\n0\n" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

fn start_again_together(env: &Env) {
    let (namespace, cluster) = (made(env, "again"), env.cluster());
    let restarts = ".status.containerStatuses[*].restartCount";
    eventually(SECONDS(90), "all were started again", || {
        let counts = field(cluster, &namespace, "all-again", restarts);
        if counts == "1 1" { Ok(()) } else { Err(counts) }
    });
    wait(cluster, &namespace, "all-again", "condition=Ready");
    assert_eq!(field(cluster, &namespace, "all-again", ".status.initContainerStatuses[0].restartCount"), "1");
    remove(cluster, &namespace);
}

fn of_a_node_s_own_folder_are_shown(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("static"));
    let node = cluster.nodes().into_iter().find(|node| node.contains("-agent-")).expect("an agent");
    let pod = format!("own-{node}");
    let write = |word: &str| {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: own, namespace: {namespace}}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: 'busybox:1.36', \
             command: [sh, -c, 'echo {word}; sleep 3600']}}\n"
        );
        let command = format!("printf '%s' \"{manifest}\" > /etc/kubernetes/manifests/{namespace}.yaml");
        docker(&["exec", &node, "sh", "-c", &command]);
    };
    let seen = |what: &str, expect: &dyn Fn(&str, &str) -> bool| {
        eventually(SECONDS(90), what, || {
            let path = "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.conditions[?(@.type==\"Ready\")].status}";
            let get = ["get", "pod", &pod, "--namespace", &namespace, "--output", path];
            let said = cluster.kubectl(&get).try_ok()?;
            match said.split(' ').collect::<Vec<_>>().as_slice() {
                [uid, id, "True"] if expect(uid, id) => Ok(((*uid).to_owned(), (*id).to_owned())),
                _ => Err(said),
            }
        })
    };
    write("one");
    let (uid, id) = seen("the static Pod is shown", &|_, _| true);
    let logs = || cluster.kubectl(&["logs", &pod, "--namespace", &namespace]).ok();
    assert_eq!(logs(), "one\n");
    // Deleted at the API server it is shown again, and has not noticed.
    cluster.kubectl(&["delete", "pod", &pod, "--namespace", &namespace, "--timeout=60s"]).ok();
    let (_, same) = seen("the mirror is made anew", &|now, _| now != uid);
    assert_eq!(same, id);
    write("two");
    seen("the file's new Pod runs", &|_, now| now != id);
    assert_eq!(logs(), "two\n");
    docker(&["exec", &node, "rm", &format!("/etc/kubernetes/manifests/{namespace}.yaml")]);
    cluster.kubectl(&["wait", "--for=delete", "pod", &pod, "--namespace", &namespace, "--timeout=90s"]).ok();
    remove(cluster, &namespace);
}

/// As metrics-server and Prometheus come: to the kubelet itself, with a ServiceAccount's token.
fn are_measured_by_whom_rbac_lets(env: &Env) {
    let (cluster, namespace) = (env.cluster(), env.namespace("measured"));
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default/token");
    let asked = tempfile::NamedTempFile::new().expect("a file");
    let request = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}"#;
    std::fs::write(asked.path(), request).expect("written");
    let token = || {
        let file = asked.path().display().to_string();
        let said = cluster.kubectl(&["create", "--raw", &path, "--filename", &file]).try_ok()?;
        let said: serde_json::Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        said["status"]["token"].as_str().map(ToOwned::to_owned).ok_or_else(|| said.to_string())
    };
    let token = eventually(SECONDS(60), "the namespace has its account", token);
    let node = cluster.nodes().into_iter().find(|node| node.contains("-agent-")).expect("an agent");
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker(&["inspect", "--format", format, &node]);
    let ask = |token: &str, path: &str| {
        let (header, url) =
            (format!("Authorization: Bearer {token}"), format!("https://{}:10250{path}", address.trim()));
        let code = [
            "--silent",
            "--insecure",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ];
        run("curl", &[&code[..], &["--header", &header, &url]].concat(), &[]).try_ok()
    };
    let check = |token: &str, path: &str, expect: &str| {
        eventually(SECONDS(60), &format!("{path}: {expect}"), || match ask(token, path)? {
            code if code == expect => Ok(()),
            code => Err(code),
        });
    };
    check("nonsense", "/stats/summary", "401");
    // Of another thing than what is allowed below: a refusal is believed for half a minute, as by upstream's kubelet.
    check(&token, "/pods", "403");
    let role = ["create", "clusterrole", &namespace, "--verb=get", "--resource=nodes/stats,nodes/metrics"];
    cluster.kubectl(&role).ok();
    let (role, account) =
        (format!("--clusterrole={namespace}"), format!("--serviceaccount={namespace}:default"));
    cluster.kubectl(&["create", "clusterrolebinding", &namespace, &role, &account]).ok();
    check(&token, "/stats/summary", "200");
    check(&token, "/metrics/resource", "200");
    cluster.kubectl(&["delete", "clusterrole,clusterrolebinding", &namespace]).ok();
    remove(cluster, &namespace);
}

fn end_before_their_node_does(env: &Env) {
    let cluster = env.cluster();
    let servers = ["get", "nodes", "--selector=node-role.kubernetes.io/control-plane", "--output=name"];
    let server = cluster.kubectl(&servers).ok();
    // Stopping the server would take the API with it: nobody could be asked.
    cluster.kubectl(&["cordon", server.trim()]).ok();
    let namespace = made(env, "stops");
    wait(cluster, &namespace, "in-order", "condition=Ready");
    cluster.kubectl(&["uncordon", server.trim()]).ok();
    let node = field(cluster, &namespace, "in-order", ".spec.nodeName");
    docker(&["stop", &node]);
    const DISTURBED: &str = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
    assert_eq!(field(cluster, &namespace, "in-order", DISTURBED), "TerminationByKubelet");
    let code = ".status.containerStatuses[0].state.terminated.exitCode";
    assert_eq!(field(cluster, &namespace, "in-order", code), "0", "it was told to end, not killed");
    docker(&["start", &node]);
    wait(cluster, &namespace, "in-order", "condition=Ready");
    assert_eq!(field(cluster, &namespace, "in-order", DISTURBED), "", "the disturbance is over");
    remove(cluster, &namespace);
}

/// One Pod fills its node's disk: the node says so and takes no more, that Pod ends and no other, and all is well again.
fn make_room_on_a_full_node(env: &Env) {
    let (name, dir) = (env.name("full"), tempfile::tempdir().expect("a folder"));
    let file = dir.path().join("cluster.yaml").display().to_string();
    let hard = "{eviction-hard: nodefs.available<100Mi, eviction-pressure-transition-period: 5s}";
    let text = format!(
        "apiVersion: minik.dev/v1alpha1\nkind: Cluster\nname: {name}\narguments: {{kubelet: {hard}}}\n\
         images: ['busybox:1.36']\n"
    );
    std::fs::write(&file, text).expect("written");
    test_images();
    env.minik(&["cluster", "create", "--config", &file]).ok();
    let cluster = &env.attach(&name);
    let node = format!("minik-{name}-server-0");
    // A disk of its own for the kubelet's files, so that the host's need not be filled.
    let disk = "mount -t tmpfs -o size=256m tmpfs /var/lib/kubelet && mkdir /var/lib/kubelet/pods";
    docker(&["exec", &node, "sh", "-c", disk]);
    let full = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/pods_full.yaml");
    cluster.kubectl(&["apply", "--filename", full]).ok();
    let condition = |status: &str| {
        let what = format!("--for=condition=DiskPressure={status}");
        cluster.kubectl(&["wait", &format!("node/{node}"), &what, "--timeout=60s"]).ok();
    };
    condition("true");
    eventually(SECONDS(20), "nothing more is scheduled there", || {
        let taints = ["get", "node", &node, "--output=jsonpath={.spec.taints[*].key}"];
        let taints = cluster.kubectl(&taints).ok();
        if taints.contains("node.kubernetes.io/disk-pressure") { Ok(()) } else { Err(taints) }
    });
    // Past the scheduler the node itself says no.
    let late = "{\"spec\": {\"nodeName\": \"NODE\"}}".replace("NODE", &node);
    let run = ["run", "late", "--image=busybox:1.36", "--restart=Never", "--overrides", &late];
    cluster.kubectl(&run).ok();
    wait(cluster, "default", "late", "jsonpath={.status.reason}=Evicted");
    let why = field(cluster, "default", "late", ".status.message");
    assert_eq!(why, "Pod was rejected: The node had condition: [DiskPressure]. ");
    wait(cluster, "default", "filler", "jsonpath={.status.reason}=Evicted");
    let why = field(cluster, "default", "filler", ".status.message");
    assert!(
        why.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi"),
        "{why}"
    );
    let disturbed = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
    assert_eq!(field(cluster, "default", "filler", disturbed), "TerminationByKubelet");
    // What it filled is given back while the Pod is still there to be looked at.
    condition("false");
    for pod in ["modest", "small"] {
        assert_eq!(field(cluster, "default", pod, ".status.phase"), "Running", "{pod}");
    }
    cluster.kubectl(&["run", "next", "--image=busybox:1.36", "--restart=Never", "--", "true"]).ok();
    wait(cluster, "default", "next", "jsonpath={.status.phase}=Succeeded");
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}
