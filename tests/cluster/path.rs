//! The whole path, as a person goes it: a web application with a counter in Redis, from nothing to nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, docker, eventually, run};

pub const TESTS: &[Test] = &[
    ("path::from_create_to_delete", from_create_to_delete),
    ("path::bad_input_is_refused_clearly", bad_input_is_refused_clearly),
];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn from_create_to_delete(env: &Env) {
    let name = env.name("path");
    crate::support::test_images();
    env.minik(&["cluster", "create", &name, "--nodes", "3"]).ok();
    let cluster = env.attach(&name);
    env.minik(&["image", "load", "minik-test/web:1", "minik-test/web:2", "redis:6.0", "--cluster", &name])
        .ok();

    look_around(&cluster);
    let url = deploy_and_expose(&cluster);
    scale_and_see_both(&cluster, &url);
    count_in_redis(&cluster, &url);
    look_inside(&cluster);
    replace_a_pod(&cluster);
    update_and_undo(&cluster, &url);

    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}

fn look_around(cluster: &Cluster) {
    let info = cluster.kubectl(&["cluster-info"]).ok();
    assert!(info.contains("control plane") && info.contains("https://127.0.0.1:"), "{info}");
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "wide"]).ok();
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 3, "{nodes}");
    assert!(nodes.contains("INTERNAL-IP") && nodes.contains("containerd://"), "{nodes}");
}

/// Answers the URL of the application.
fn deploy_and_expose(cluster: &Cluster) -> String {
    cluster.kubectl(&["create", "deployment", "web", "--image=minik-test/web:1", "--port", "8080"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let list = cluster.kubectl(&["get", "deployments,replicasets,pods"]).ok();
    for part in ["deployment.apps/web", "replicaset.apps/web-", "pod/web-", "1/1", "Running"] {
        assert!(list.contains(part), "{part:?} is missing:\n{list}");
    }
    cluster
        .kubectl(&[
            "expose",
            "deployment",
            "web",
            "--type=LoadBalancer",
            "--port",
            "80",
            "--target-port",
            "8080",
        ])
        .ok();
    let all = cluster.kubectl(&["get", "all"]).ok();
    assert!(all.contains("service/web") && all.contains("service/kubernetes"), "{all}");
    let ip = eventually(SECONDS(60), "an external address", || {
        let service = cluster.get(&["service", "web"]);
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        ip.map(ToOwned::to_owned).ok_or_else(|| service.to_string())
    });
    let services = cluster.kubectl(&["get", "services"]).ok();
    assert!(services.contains("EXTERNAL-IP") && services.contains(&ip), "{services}");
    let url = format!("http://{ip}/");
    let page = eventually(SECONDS(60), "the page from the host", || curl(&url));
    assert!(page.contains("Served by: web-") && page.contains("Visitors: unavailable"), "{page}");
    url
}

fn scale_and_see_both(cluster: &Cluster, url: &str) {
    cluster.kubectl(&["scale", "deployment", "web", "--replicas=2"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let mut seen = BTreeSet::new();
    eventually(SECONDS(60), "both Pods answer", || {
        seen.insert(served_by(&curl(url)?)?);
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(seen, pods(cluster, "app=web"));
}

fn count_in_redis(cluster: &Cluster, url: &str) {
    cluster.kubectl(&["create", "deployment", "redis", "--image=redis:6.0", "--port", "6379"]).ok();
    cluster.kubectl(&["expose", "deployment", "redis", "--type=ClusterIP", "--port", "6379"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/redis", "--timeout=60s"]).ok();
    let mut last = eventually(SECONDS(60), "the counter", || visitors(&curl(url)?));
    // Whichever Pod answers, it is one counter.
    let mut seen = BTreeSet::new();
    eventually(SECONDS(60), "the counter rises whichever Pod answers", || {
        let page = curl(url)?;
        let count = visitors(&page)?;
        assert!(count > last, "the counter went from {last} to {count}");
        last = count;
        seen.insert(served_by(&page)?);
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    // From every node: by the Service's address and by the external one.
    let service = cluster.get(&["service", "web"]);
    let cluster_ip = service["spec"]["clusterIP"].as_str().expect("an address");
    for node in cluster.nodes() {
        for address in [format!("http://{cluster_ip}/"), url.to_owned()] {
            let count = visitors(&from_node(&node, &address)).expect("a count");
            assert!(count > last, "from {node} by {address}: the counter went from {last} to {count}");
            last = count;
        }
    }
}

fn look_inside(cluster: &Cluster) {
    let pod = pods(cluster, "app=web").into_iter().next().expect("a Pod");
    let described = cluster.kubectl(&["describe", "pod", &pod]).ok();
    for part in ["Name:", "Node:", "Events:", "Scheduled", "Started", "minik-test/web:1"] {
        assert!(described.contains(part), "{part:?} is missing:\n{described}");
    }
    let log = cluster.kubectl(&["logs", &pod]).ok();
    assert!(log.contains("listening on 8080"), "{log}");
    let said = cluster.kubectl_in_terminal(&["exec", "-ti", &pod, "--", "sh"], "hostname; tty; exit 3\n");
    assert!(said.stdout.contains(&pod) && said.stdout.contains("/dev/"), "{}", said.stdout);
    let direct = cluster.kubectl(&["exec", &pod, "--", "sh", "-c", "cat /etc/resolv.conf; exit 7"]);
    assert!(direct.stdout.contains("cluster.local"), "{direct:?}");
    assert_eq!(direct.code, 7, "the exit code arrives: {direct:?}");
}

fn replace_a_pod(cluster: &Cluster) {
    let before = pods(cluster, "app=web");
    let victim = before.first().expect("a Pod");
    cluster.kubectl(&["delete", "pod", victim]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    eventually(SECONDS(60), "two Pods again, one of them new", || {
        let after = pods(cluster, "app=web");
        if after.len() == 2 && !after.contains(victim) { Ok(()) } else { Err(format!("{after:?}")) }
    });
}

fn update_and_undo(cluster: &Cluster, url: &str) {
    let version = |expect: &'static str| {
        eventually(SECONDS(60), "the version on the page", || {
            let page = curl(url)?;
            if page.contains(&format!("Version: {expect}")) { Ok(()) } else { Err(page) }
        });
    };
    version("1");
    cluster.kubectl(&["set", "image", "deployment/web", "web=minik-test/web:2"]).ok();
    let status = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    assert!(status.contains("successfully rolled out"), "{status}");
    version("2");
    cluster.kubectl(&["rollout", "undo", "deployment/web"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    version("1");
}

fn bad_input_is_refused_clearly(env: &Env) {
    let cluster = env.cluster();
    let namespace = env.namespace("bad");
    let apply = |manifest: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifest).unwrap();
        cluster.kubectl(&["apply", "--namespace", &namespace, "-f", &file.path().display().to_string()])
    };
    let malformed = apply("apiVersion: v1\nkind: Pod\nmetadata: [\n").fails_with(1);
    assert!(malformed.contains("error"), "{malformed}");
    let unknown = apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containerz: [], containers: [{name: c, image: busybox}]}\n",
    )
    .fails_with(1);
    assert!(unknown.contains("unknown field \"spec.containerz\""), "{unknown}");
    let wrong_type =
        apply("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: many}]}\n")
            .fails_with(1);
    assert!(wrong_type.contains("port"), "{wrong_type}");
    let invalid = apply("apiVersion: v1\nkind: Pod\nmetadata: {name: UPPER}\nspec: {containers: [{name: c, image: busybox}]}\n")
        .fails_with(1);
    assert!(invalid.contains("metadata.name") && invalid.contains("Invalid value"), "{invalid}");
    let no_kind = cluster.kubectl(&["get", "nonsense"]).fails_with(1);
    assert!(no_kind.contains("the server doesn't have a resource type \"nonsense\""), "{no_kind}");
    let left = cluster.get(&["pods,services", "--namespace", &namespace]);
    assert_eq!(left["items"].as_array().map(Vec::len), Some(0), "nothing half made: {left}");

    // An image that does not exist is said on the Pod.
    cluster.kubectl(&["run", "lost", "--image=minik-test/none:1", "--namespace", &namespace]).ok();
    eventually(SECONDS(60), "the Pod says that its image cannot be pulled", || {
        let pod = cluster.get(&["pod", "lost", "--namespace", &namespace]);
        let reason =
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        if matches!(reason, "ErrImagePull" | "ImagePullBackOff") {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
}

fn curl(url: &str) -> Result<String, String> {
    run("curl", &["--silent", "--show-error", "--fail", "--max-time", "3", url], &[]).try_ok()
}

/// The page as a node sees it; bash is the only client there.
fn from_node(node: &str, url: &str) -> String {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let script = format!("exec 3<>/dev/tcp/{host}/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    docker::docker(&["exec", node, "timeout", "5", "bash", "-c", &script])
}

fn line_of(page: &str, mark: &str) -> Result<String, String> {
    let rest = page.split(mark).nth(1).ok_or_else(|| page.to_owned())?;
    Ok(rest.split('<').next().unwrap_or_default().trim().to_owned())
}

fn served_by(page: &str) -> Result<String, String> {
    line_of(page, "Served by: ")
}

fn visitors(page: &str) -> Result<u64, String> {
    let text = line_of(page, "Visitors: ")?;
    text.parse().map_err(|_| format!("Visitors: {text}"))
}

/// Names of the Pods that are not going away.
fn pods(cluster: &Cluster, selector: &str) -> BTreeSet<String> {
    let list = cluster.get(&["pods", "--selector", selector]);
    let items = list["items"].as_array().expect("a list").iter();
    items
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
        .collect()
}
