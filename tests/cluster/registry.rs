//! Registries of minik's own, and configuration files, as people use them.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::support::{Env, docker, eventually, run, test_images};

pub const TESTS: &[Test] = &[
    ("registry::pushed_and_pulled", pushed_and_pulled),
    ("registry::a_file_for_kind", a_file_for_kind),
    ("registry::an_interrupted_pull_leaves_nothing", an_interrupted_pull_leaves_nothing),
];

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// A cluster that was there before the registry, and one that comes after it, run what the host pushed.
fn pushed_and_pulled(env: &Env) {
    test_images();
    let (name, later, port) = (env.name("reg"), env.name("later"), free_port());
    env.minik(&["cluster", "create", &name]).ok();
    let made = env.minik(&["registry", "create", &name, "--port", &port]).ok();
    assert!(made.contains(&format!("docker push localhost:{port}/IMAGE")), "{made}");
    assert!(env.minik(&["registry", "create", &name, "--port", &port]).ok().contains("already"));
    env.minik(&["registry", "create", &name, "--port", &free_port()]).fails_with(5);
    let image = format!("localhost:{port}/team/web:1");
    docker::docker(&["tag", "minik-test/web:1", &image]);
    docker::docker(&["push", &image]);
    // Pushed again it is all there already.
    let again = docker::docker(&["push", &image]);
    assert!(again.contains("Layer already exists"), "{again}");
    docker::docker(&["rmi", &image]);
    docker::docker(&["pull", &image]);
    docker::docker(&["rmi", &image]);

    env.minik(&["cluster", "create", &later]).ok();
    for cluster in [&name, &later] {
        let cluster = env.attach(cluster);
        cluster.kubectl(&["run", "web", "--image", &image, "--image-pull-policy=Always"]).ok();
        cluster.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]).ok();
        let map = cluster.get(&["configmap", "local-registry-hosting", "-n", "kube-public"]);
        let text = map["data"]["localRegistryHosting.v1"].as_str().unwrap_or_default().to_owned();
        assert!(text.contains(&format!("host: \"localhost:{port}\"")), "{map}");
    }
    env.minik(&["registry", "stop", &name]).ok();
    assert!(env.minik(&["registry", "list"]).ok().contains("Stopped"));
    env.minik(&["registry", "start", &name]).ok();
    docker::docker(&["pull", &image]);
    docker::docker(&["rmi", &image]);
    // A cluster goes while the registry is in its network.
    env.minik(&["cluster", "delete", &later]).ok();
    env.assert_gone(&later);
    env.minik(&["registry", "delete", &name]).ok();
    assert!(env.minik(&["registry", "delete", &name]).ok().contains("Already"));
    let volumes = docker::docker(&["volume", "ls", "--format", "{{.Name}}"]);
    assert!(!volumes.contains(&format!("minik-registry-{name}")), "{volumes}");
    let map = env.attach(&name).kubectl(&["get", "configmap", "local-registry-hosting", "-n", "kube-public"]);
    assert!(map.stderr.contains("NotFound"), "{map:?}");
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}

/// A file for another tool makes the cluster that it describes, in a network of somebody else; and ours adds the rest.
fn a_file_for_kind(env: &Env) {
    let (name, network, port) = (env.name("kindly"), env.name("theirs"), free_port());
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    std::fs::write(dir.path().join("src/hello"), "from the host").unwrap();
    let theirs = format!(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: {name}\n\
         networking: {{podSubnet: 10.98.0.0/16, serviceSubnet: 10.99.0.0/20}}\n\
         kubeadmConfigPatches:\n- |\n  kind: ClusterConfiguration\n  apiServer: {{extraArgs: {{service-node-port-range: 30000-30100}}}}\n\
         - |\n  kind: KubeletConfiguration\n  maxPods: 20\nnodes:\n- role: control-plane\n  \
         extraPortMappings: [{{containerPort: 30080, hostPort: {port}, listenAddress: 127.0.0.1}}]\n  \
         extraMounts: [{{hostPath: {}, containerPath: /src}}]\n- {{role: worker, labels: {{tier: work}}}}\n",
        dir.path().join("src").display()
    );
    let file = dir.path().join("kind.yaml").display().to_string();
    std::fs::write(&file, theirs).unwrap();
    let manifest = dir.path().join("first.yaml").display().to_string();
    std::fs::write(
        &manifest,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first, namespace: made}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: made}\n",
    )
    .unwrap();
    docker::docker(&["network", "create", "--subnet", "172.27.0.0/16", &network]);
    let more = ["--network", &network, "--host-alias", "db.corp=10.7.7.7", "--disable", "ingress"];
    let create = [&["cluster", "create", "--config", &file, "--manifest", &manifest], &more[..]].concat();
    env.minik(&create).ok();
    let cluster = env.attach(&name);
    let nodes = cluster.get(&["nodes"]);
    let addresses = nodes["items"][0]["status"]["addresses"].to_string();
    assert!(addresses.contains("172.27.254."), "{addresses}");
    assert_eq!(cluster.get(&["nodes", "-l", "tier=work"])["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(nodes["items"][0]["status"]["allocatable"]["pods"], "20", "{nodes}");
    let outside = ["create", "service", "nodeport", "far", "--tcp=80", "--node-port=30101"];
    let said = cluster.kubectl(&outside).fails_with(1);
    assert!(said.contains("The range of valid ports is 30000-30100"), "{said}");
    let kubernetes = cluster.get(&["service", "kubernetes"]);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.99.0.1");
    cluster.kubectl(&["get", "configmap", "first", "-n", "made"]).ok();
    let server = format!("minik-{name}-server-0");
    assert_eq!(docker::docker(&["exec", &server, "cat", "/src/hello"]), "from the host");
    assert!(docker::docker(&["exec", &server, "getent", "hosts", "db.corp"]).contains("10.7.7.7"));
    // From Pods as well, and the host has a name there.
    test_images();
    env.minik(&["image", "load", "busybox:1.36", "--cluster", &name]).ok();
    let ask = "nslookup db.corp && nslookup host.minik.internal";
    cluster.kubectl(&["run", "names", "--image=busybox:1.36", "--restart=Never", "--", "sh", "-c", ask]).ok();
    eventually(Duration::from_secs(60), "the names are known in Pods", || {
        let pod = cluster.get(&["pod", "names"]);
        let said = cluster.kubectl(&["logs", "names"]);
        let known = pod["status"]["phase"] == "Succeeded" && said.stdout.contains("10.7.7.7");
        if known { Ok(()) } else { Err(format!("{} {}", pod["status"]["phase"], said.stdout)) }
    });
    eventually(Duration::from_secs(20), "the host port leads to the node", || {
        let out = run("curl", &["--silent", "--max-time", "2", &format!("http://127.0.0.1:{port}/")], &[]);
        // Nobody serves there: it is the node that says so, by closing.
        if out.code == 52 || out.code == 56 { Ok(()) } else { Err(format!("{}", out.code)) }
    });
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
    let left =
        docker::docker(&["network", "ls", "--format", "{{.Name}}", "--filter", &format!("name={network}")]);
    docker::docker(&["network", "rm", &network]);
    assert_eq!(left.trim(), network, "a network of somebody else stays");
}

/// The registry says nothing: who gives up waiting ends it on the nodes, too.
fn an_interrupted_pull_leaves_nothing(env: &Env) {
    let cluster = env.cluster();
    let silent = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let node = cluster.nodes().remove(0);
    let format = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}";
    let gateway = docker::docker(&["inspect", "--format", format, &node]);
    let image = format!("{}:{}/app:1", gateway.trim(), silent.local_addr().unwrap().port());
    let mut pull = env.minik_command(&["image", "pull", &image, "--cluster", &cluster.name]).spawn().unwrap();
    let pulling = || -> usize {
        let count = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; echo; done";
        let of = |node: &String| docker::docker(&["exec", node, "sh", "-c", count]);
        cluster.nodes().iter().map(|node| of(node).matches(&format!("images pull {image}")).count()).sum()
    };
    eventually(Duration::from_secs(60), "every node asks the registry", || match pulling() {
        3 => Ok(()),
        count => Err(format!("{count} of 3")),
    });
    kill(Pid::from_raw(i32::try_from(pull.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(pull.wait().unwrap().code(), Some(130));
    eventually(Duration::from_secs(60), "no node asks any more", || match pulling() {
        0 => Ok(()),
        count => Err(format!("{count} still do")),
    });
}
