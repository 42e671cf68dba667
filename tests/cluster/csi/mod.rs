//! Storage drivers: a small one, which is this very program, registers with the kubelets and mounts directories.

mod driver;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, docker::docker, eventually};

pub use driver::run as run_driver;

/// It needs an image made of this program: run with `--ignored`.
pub const SLOW: &[Test] = &[("csi::a_driver_s_volumes_are_mounted_grow_and_are_taken_back", volumes)];

/// The argument that makes this program the driver.
pub const DRIVER: &str = "csi-driver";
const IMAGE: &str = "minik-test/csi:1";
const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const DRIVER_YAML: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/csi/driver.yaml");
const PODS_YAML: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/csi/pods.yaml");

/// An image with nothing in it but this program.
fn image() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("driver");
    let own = std::env::current_exe().expect("this program");
    std::fs::copy(own, &copy).expect("copied");
    // Without its debug information it is a third.
    let _ = std::process::Command::new("strip").arg(&copy).status();
    let (folder, file) = (dir.path().display().to_string(), dir.path().join("image.tar"));
    let archive = file.display().to_string();
    let tar = std::process::Command::new("tar").args(["-cf", &archive, "-C", &folder, "driver"]).status();
    assert!(tar.is_ok_and(|status| status.success()), "packed");
    let entry = format!("ENTRYPOINT [\"/driver\", \"{DRIVER}\"]");
    docker(&["import", "--change", &entry, &archive, IMAGE]);
}

fn logs(cluster: &Cluster) -> String {
    let all = ["logs", "--namespace", "csi-test", "--selector=app=csi-test", "--tail=-1"];
    cluster.kubectl(&all).try_ok().unwrap_or_default()
}

/// Starts the node of the Pods again: its mounts are gone, what is in the volumes is not.
fn restarted(cluster: &Cluster) {
    let get = |path: &str| {
        cluster.kubectl(&["get", "pod", "--namespace", "csi-test", "one", "--output", path]).try_ok()
    };
    let id = "jsonpath={.status.containerStatuses[0].containerID}";
    let (node, before) = (get("jsonpath={.spec.nodeName}").expect("a node"), get(id).expect("a container"));
    docker(&["restart", "--time", "30", &node]);
    eventually(SECONDS(120), "the Pods run again", || {
        let wait = [
            "wait",
            "--namespace",
            "csi-test",
            "pod/one",
            "pod/two",
            "--for=condition=Ready",
            "--timeout=5s",
        ];
        cluster.kubectl(&wait).try_ok()?;
        match get(id)? {
            now if now != before => Ok(()),
            same => Err(same),
        }
    });
}

fn has_grown(cluster: &Cluster, expect: &str) {
    eventually(SECONDS(60), "the claim has grown", || {
        let path = "jsonpath={.status.capacity.storage}";
        let size =
            cluster.kubectl(&["get", "pvc", "--namespace", "csi-test", "data", "--output", path]).try_ok()?;
        if size == expect { Ok(()) } else { Err(size) }
    });
}

/// As an external resizer does: the volume is larger, and the claim says that the file system is to follow. A driver that
/// wants that is asked for its volumes again.
fn grow_while_mounted(cluster: &Cluster) {
    let often = r#"{"spec":{"requiresRepublish":true}}"#;
    cluster.kubectl(&["patch", "csidriver", "test.csi.minik.dev", "--patch", often]).ok();
    let grown = r#"{"spec":{"capacity":{"storage":"2Gi"}}}"#;
    cluster.kubectl(&["patch", "pv", "csi-test", "--patch", grown]).ok();
    let published = || logs(cluster).lines().filter(|line| line.starts_with("NodePublishVolume")).count();
    let before = published();
    let pending = r#"{"status":{"conditions":[{"type":"FileSystemResizePending","status":"True"}]}}"#;
    let claim = ["pvc", "--namespace", "csi-test", "data", "--subresource=status", "--patch", pending];
    cluster.kubectl(&[&["patch"], &claim[..]].concat()).ok();
    has_grown(cluster, "2Gi");
    eventually(SECONDS(60), "the file system was told", || {
        let said = logs(cluster);
        if said.contains("NodeExpandVolume") && published() > before { Ok(()) } else { Err(said) }
    });
}

fn volumes(env: &Env) {
    image();
    let cluster = env.cluster();
    env.minik(&["image", "load", "--cluster", &cluster.name, IMAGE]).ok();
    cluster.kubectl(&["apply", "--filename", DRIVER_YAML]).ok();
    cluster.kubectl(&["rollout", "status", "--namespace", "csi-test", "ds/driver", "--timeout=90s"]).ok();
    eventually(SECONDS(30), "every node tells of the driver", || {
        let path = "jsonpath={.items[*].spec.drivers[*].name}";
        let names = cluster.kubectl(&["get", "csinodes", "--output", path]).try_ok()?;
        if names.split_whitespace().count() == 3 { Ok(()) } else { Err(names) }
    });
    let ids = cluster.kubectl(&["get", "nodes", "--output=jsonpath={.items[*].metadata.annotations}"]).ok();
    assert!(ids.contains("test.csi.minik.dev"), "{ids}");

    // A node of theirs is started again below; the server would take the API with it.
    let servers = ["get", "nodes", "--selector=node-role.kubernetes.io/control-plane", "--output=name"];
    let server = cluster.kubectl(&servers).ok();
    cluster.kubectl(&["cordon", server.trim()]).ok();
    cluster.kubectl(&["apply", "--filename", PODS_YAML]).ok();
    let wait =
        ["wait", "--namespace", "csi-test", "pod/one", "pod/two", "--for=condition=Ready", "--timeout=90s"];
    let ready = cluster.kubectl(&wait);
    if ready.code != 0 {
        let said = cluster.kubectl(&["describe", "pods", "--namespace", "csi-test", "one", "two"]).stdout;
        panic!("{}\n{said}\n{}", ready.stderr, logs(cluster));
    }
    let inside = |pod: &str, command: &str| {
        cluster.kubectl(&["exec", "--namespace", "csi-test", pod, "--", "sh", "-c", command]).ok()
    };
    // Both have the same volume, staged once; the inline one is the Pod's own, and knows whose it is.
    inside("one", "echo shared > /data/file");
    assert_eq!(inside("two", "cat /data/file"), "shared\n");
    assert!(inside("one", "cat /inline/pod").contains("csi-test/one"), "told who it is for");
    restarted(cluster);
    cluster.kubectl(&["uncordon", server.trim()]).ok();
    assert_eq!(inside("one", "cat /data/file"), "shared\n", "after the node was started again");
    assert_eq!(inside("two", "cat /data/file"), "shared\n", "after the node was started again");
    grow_while_mounted(cluster);
    // The volume grew before its claim heard of it: the file system is told at the next mount.
    let grown = r#"{"spec":{"capacity":{"storage":"3Gi"}}}"#;
    cluster.kubectl(&["patch", "pv", "csi-test", "--patch", grown]).ok();
    cluster.kubectl(&["delete", "pod", "--namespace", "csi-test", "two", "--timeout=60s"]).ok();
    assert_eq!(inside("one", "cat /data/file"), "shared\n", "the other Pod still has it");
    // The volume itself stays as it has become.
    cluster.kubectl(&["apply", "--filename", PODS_YAML, "--selector=part=pods"]).ok();
    cluster.kubectl(&wait).ok();
    has_grown(cluster, "3Gi");
    cluster.kubectl(&["delete", "pod", "--namespace", "csi-test", "one", "two", "--timeout=90s"]).ok();
    eventually(SECONDS(30), "everything is taken back", || {
        let said = logs(cluster);
        let places = |call: &str| -> BTreeSet<String> {
            let calls = said.lines().filter_map(|line| line.strip_prefix(call));
            calls.filter_map(|rest| rest.split_whitespace().next()).map(ToOwned::to_owned).collect()
        };
        let taken_back = places("NodePublishVolume ") == places("NodeUnpublishVolume ");
        let unstaged = said.lines().filter(|line| line.starts_with("NodeUnstageVolume")).count();
        if taken_back && unstaged == 1 { Ok(()) } else { Err(said) }
    });
    cluster.kubectl(&["delete", "--filename", PODS_YAML, "--ignore-not-found", "--timeout=60s"]).ok();
    cluster.kubectl(&["delete", "--filename", DRIVER_YAML, "--timeout=90s"]).ok();
    eventually(SECONDS(30), "nobody tells of it any more", || {
        let path = "jsonpath={.items[*].spec.drivers[*].name}";
        let names = cluster.kubectl(&["get", "csinodes", "--output", path]).ok();
        if names.is_empty() { Ok(()) } else { Err(names) }
    });
}
