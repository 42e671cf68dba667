//! Snapshots of a whole cluster, and the Rust face for tests.

use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, docker, eventually, test_images};

pub const TESTS: &[Test] = &[
    ("snapshots::kept_put_back_and_forked", kept_put_back_and_forked),
    ("snapshots::a_cluster_for_a_rust_test", a_cluster_for_a_rust_test),
];

/// A Pod that keeps a file on a volume, on the agent.
const APP: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, 'sleep 100000']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
";

fn written(cluster: &Cluster) -> Result<String, String> {
    cluster.kubectl(&["exec", "app", "--", "cat", "/data/file"]).try_ok()
}

fn kept_put_back_and_forked(env: &Env) {
    test_images();
    let (name, fork, snapshot) = (env.name("snap"), env.name("fork"), env.name("before"));
    env.minik(&["cluster", "create", &name, "--nodes", "2"]).ok();
    env.minik(&["image", "load", "busybox:1.36", "--cluster", &name]).ok();
    let cluster = env.attach(&name);
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), APP).unwrap();
    cluster.kubectl(&["apply", "-f", &file.path().display().to_string()]).ok();
    cluster.kubectl(&["wait", "pod/app", "--for=condition=Ready", "--timeout=60s"]).ok();
    cluster.kubectl(&["exec", "app", "--", "sh", "-c", "echo before > /data/file; sync"]).ok();
    cluster.kubectl(&["create", "configmap", "kept"]).ok();

    env.minik(&["snapshot", "save", &snapshot, "--cluster", &name]).ok();
    env.minik(&["snapshot", "save", &snapshot, "--cluster", &name]).fails_with(5);
    assert!(env.minik(&["snapshot", "list"]).ok().contains(&snapshot));
    cluster.kubectl(&["exec", "app", "--", "sh", "-c", "echo after > /data/file"]).ok();
    cluster.kubectl(&["create", "configmap", "later"]).ok();
    cluster.kubectl(&["delete", "configmap", "kept"]).ok();

    env.minik(&["cluster", "reset", &name, "--to", &snapshot]).ok();
    cluster.kubectl(&["get", "configmap", "kept"]).ok();
    assert!(cluster.kubectl(&["get", "configmap", "later"]).stderr.contains("NotFound"));
    eventually(Duration::from_secs(60), "the file is as it was", || match written(&cluster)?.trim() {
        "before" => Ok(()),
        other => Err(other.to_owned()),
    });

    // A second cluster beside it, with addresses of its own.
    env.minik(&["snapshot", "restore", &snapshot, "--cluster", &fork]).ok();
    let second = env.attach(&fork);
    second.kubectl(&["get", "configmap", "kept"]).ok();
    eventually(Duration::from_secs(60), "the file is there too", || match written(&second)?.trim() {
        "before" => Ok(()),
        other => Err(other.to_owned()),
    });
    second.kubectl(&["create", "configmap", "own"]).ok();
    assert!(cluster.kubectl(&["get", "configmap", "own"]).stderr.contains("NotFound"), "they are apart");
    let address = |of: &Cluster| of.get(&["nodes"])["items"][0]["status"]["addresses"][0]["address"].clone();
    assert_ne!(address(&cluster), address(&second));
    env.minik(&["cluster", "stop", &fork]).ok();
    env.minik(&["cluster", "start", &fork]).ok();
    second.kubectl(&["get", "configmap", "own"]).ok();

    env.minik(&["cluster", "delete", &name, &fork]).ok();
    env.assert_gone(&name);
    env.assert_gone(&fork);
    env.minik(&["snapshot", "delete", &snapshot]).ok();
    assert!(env.minik(&["snapshot", "delete", &snapshot]).ok().contains("Nothing"));
    env.minik(&["snapshot", "restore", &snapshot]).fails_with(4);
}

/// As the manual has it; gone when it is dropped.
fn a_cluster_for_a_rust_test(env: &Env) {
    // The node image of this very program is there once a cluster was made.
    let server = format!("minik-{}-server-0", env.cluster().name);
    let image = docker::docker(&["inspect", "--format", "{{.Config.Image}}", &server]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let name = runtime.block_on(async {
        let cluster = minik::Cluster::builder().nodes(2).image(image.trim()).start().await.expect("made");
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> =
            kube::Api::all(cluster.client().expect("a client"));
        assert_eq!(nodes.list(&Default::default()).await.expect("listed").items.len(), 2);
        cluster.name().to_owned()
    });
    assert!(docker::remains(&name).is_empty(), "it stays when it is dropped");
}
