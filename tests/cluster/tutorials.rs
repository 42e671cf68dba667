//! What learners do, command by command, and what nobody should: with real kubectl, on real nodes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, Env, docker::docker, eventually, tutorial_images};

pub const TESTS: &[Test] = &[
    ("tutorials::an_update_loses_no_request_and_a_drain_keeps_the_budget", update_and_drain),
    ("tutorials::nothing_restarts_with_the_agent", agent_killed),
    ("tutorials::abuse_is_told_clearly", abuse),
];

/// Minutes in all: run with `--ignored`.
pub const SLOW: &[Test] = &[
    ("tutorials::a_blog_with_a_database", blog),
    ("tutorials::a_stateful_set_keeps_its_data", stateful_set),
    ("tutorials::a_task_every_minute", cron_job),
    ("tutorials::a_fork_bomb_is_bounded", bomb),
];

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn path(file: &str) -> String {
    format!("{}/tests/cluster/tutorials/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// kubectl in one namespace.
struct At<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> At<'a> {
    fn new(env: &'a Env, part: &str) -> Self {
        Self { cluster: env.cluster(), namespace: env.namespace(part) }
    }

    /// The output of a command that must succeed.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], args].concat()).ok()
    }

    fn jsonpath(&self, what: &[&str], path: &str) -> String {
        self.run(&[&["get"], what, &["--output", &format!("jsonpath={{{path}}}")]].concat())
    }

    #[track_caller]
    fn rolled_out(&self, what: &str) {
        self.run(&["rollout", "status", what, "--timeout=90s"]);
    }

    fn external_ip(&self, service: &str) -> String {
        eventually(SECONDS(60), "an external address", || {
            let ip = self.jsonpath(&["service", service], ".status.loadBalancer.ingress[0].ip");
            if ip.is_empty() { Err("none yet".to_owned()) } else { Ok(ip) }
        })
    }

    /// Waits until what `describe` says of an object holds all of `texts`.
    #[track_caller]
    fn described(&self, object: &str, texts: &[&str]) {
        eventually(SECONDS(60), object, || {
            let said =
                self.cluster.kubectl(&["describe", object, "--namespace", &self.namespace]).try_ok()?;
            let missing: Vec<_> = texts.iter().filter(|text| !said.contains(**text)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in:\n{said}")) }
        });
    }

    fn remove(&self) {
        let delete = ["delete", "namespace", &self.namespace, "--timeout=120s"];
        self.cluster.kubectl(&delete).ok();
    }
}

/// One request on a connection of its own; the answer's body.
fn request(ip: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let address = format!("{ip}:80").parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, SECONDS(3))?;
        stream.set_read_timeout(Some(SECONDS(5)))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    match answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200") {
        true => Ok(answer),
        false => Err(answer),
    }
}

/// Asks without pause until it is told to stop; the failures, and how many there were that did not.
fn load(ip: String, stop: Arc<AtomicBool>, count: Arc<AtomicU32>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut failures = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match request(&ip, "GET", "/healthz", "") {
                Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                Err(why) => failures.push(why),
            }
        }
        failures
    })
}

fn update_and_drain(env: &Env) {
    let at = At::new(env, "rolling");
    at.run(&["apply", "--filename", &path("rolling.yaml")]);
    at.rolled_out("deployment/web");
    let ip = at.external_ip("web");
    eventually(SECONDS(60), "the first answer", || request(&ip, "GET", "/healthz", ""));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..2).map(|_| load(ip.clone(), stop.clone(), count.clone())).collect();
    at.run(&["set", "image", "deployment/web", "web=minik-test/web:2"]);
    at.rolled_out("deployment/web");
    // The rollout is complete in the API a moment before every node's rules follow.
    eventually(SECONDS(60), "the new version answers", || {
        let page = request(&ip, "GET", "/", "")?;
        if page.contains("Version: 2") { Ok(page) } else { Err(page) }
    });

    // Emptying a node moves its Pods one by one, and still nothing is lost.
    let node = at.jsonpath(&["pods", "--selector=app=web"], ".items[0].spec.nodeName");
    let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s"];
    let selected = [&drain[..], &["--pod-selector=app=web"]].concat();
    at.cluster.kubectl(&selected).ok();
    at.rolled_out("deployment/web");
    let nodes = at.jsonpath(&["pods", "--selector=app=web"], ".items[*].spec.nodeName");
    at.cluster.kubectl(&["uncordon", &node]).ok();
    assert!(!nodes.contains(&node), "{nodes}");

    stop.store(true, Ordering::Relaxed);
    let failures: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().expect("it ended")).collect();
    assert!(failures.is_empty(), "of {} requests: {failures:?}", count.load(Ordering::Relaxed));
    assert!(count.load(Ordering::Relaxed) > 100, "{count:?} requests are no load");
    at.remove();
}

fn agent_killed(env: &Env) {
    let at = At::new(env, "killed");
    at.run(&["create", "deployment", "web", "--image=minik-test/web:1", "--replicas=3"]);
    at.rolled_out("deployment/web");
    let restarts = ".items[*].status.containerStatuses[*].restartCount";
    let ids = ".items[*].status.containerStatuses[*].containerID";
    let before = at.jsonpath(&["pods"], ids);
    for node in at.cluster.nodes() {
        // The role is the init's first child.
        let kill = "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in */exe' node run '*) kill -9 ${p#/proc/};; esac; done";
        docker(&["exec", &node, "sh", "-c", kill]);
    }
    eventually(SECONDS(60), "the nodes are well again", || {
        let wait = ["wait", "nodes", "--all", "--for=condition=Ready", "--timeout=5s"];
        at.cluster.kubectl(&wait).try_ok()
    });
    // New Pods start: the runtime and its network are there again.
    at.run(&["scale", "deployment", "web", "--replicas=6"]);
    at.rolled_out("deployment/web");
    let after = at.jsonpath(&["pods"], ids);
    assert!(before.split(' ').all(|id| after.contains(id)), "the same containers: {before} {after}");
    let restarts = at.jsonpath(&["pods"], restarts);
    assert!(restarts.split(' ').all(|count| count == "0"), "{restarts}");
    let pod = at.jsonpath(&["pods"], ".items[0].metadata.name");
    assert_eq!(at.run(&["exec", &pod, "--", "wget", "-qO-", "http://localhost:8080/healthz"]), "ok\n");
    at.remove();
}

fn abuse(env: &Env) {
    let at = At::new(env, "abuse");
    at.run(&["apply", "--filename", &path("abuse.yaml")]);
    at.described(
        "pod/unknown-image",
        &["ImagePullBackOff", "Failed to pull image \"localhost:1/no-such-thing:1\""],
    );
    at.described("pod/bad-name", &["InvalidImageName", "couldn't parse image name"]);
    at.described("pod/unbindable", &["pod has unbound immediate PersistentVolumeClaims"]);
    at.described("pvc/nobody", &["storageclass.storage.k8s.io \"nope\" not found"]);
    at.described("pod/bad-command", &["StartError", "executable file `no-such-program` not found", "1970"]);
    at.described("pod/greedy", &["Insufficient cpu"]);
    at.described("pod/huge-pages", &["Insufficient hugepages-2Mi"]);

    at.run(&["wait", "pod/deaf", "pod/chatty", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(at.run(&["logs", "chatty", "--tail=3"]).lines().count(), 3, "no more than asked for");
    let started = std::time::Instant::now();
    at.run(&["delete", "pod", "deaf", "--timeout=30s"]);
    assert!(started.elapsed() < SECONDS(15), "its grace was two seconds: {:?}", started.elapsed());
    let nodes = at.cluster.kubectl(&["get", "nodes", "--no-headers"]).ok();
    assert!(nodes.lines().all(|line| line.contains(" Ready ")), "{nodes}");
    at.remove();
}

fn bomb(env: &Env) {
    let at = At::new(env, "bomb");
    at.run(&["apply", "--filename", &path("bomb.yaml")]);
    eventually(SECONDS(120), "the bomb is bounded", || {
        let said = at.cluster.kubectl(&["logs", "bomb", "--namespace", &at.namespace]).try_ok()?;
        if said.contains("can't fork") { Ok(()) } else { Err(said) }
    });
    at.run(&["delete", "pod", "bomb", "--timeout=60s"]);
    at.remove();
}

fn blog(env: &Env) {
    tutorial_images();
    let at = At::new(env, "blog");
    let images = ["image", "load", "--cluster", &at.cluster.name, "mysql:8.0", "wordpress:6.2"];
    env.minik(&images).ok();
    at.run(&["apply", "--kustomize", &path("wordpress")]);
    at.rolled_out("deployment/wordpress-mysql");
    at.rolled_out("deployment/wordpress");
    let ip = at.external_ip("wordpress");
    eventually(SECONDS(60), "the blog answers", || request(&ip, "GET", "/", ""));
    request(&ip, "POST", "/", "my first post").expect("written");
    // Another database finds the data of the first.
    at.run(&["delete", "pod", "--selector=tier=mysql"]);
    at.rolled_out("deployment/wordpress-mysql");
    eventually(SECONDS(60), "the post is still there", || {
        let page = request(&ip, "GET", "/", "")?;
        if page.contains("my first post") { Ok(()) } else { Err(page) }
    });
    at.run(&["delete", "--kustomize", &path("wordpress")]);
    at.remove();
}

fn stateful_set(env: &Env) {
    let at = At::new(env, "stateful");
    at.run(&["apply", "--filename", &path("stateful.yaml")]);
    at.rolled_out("statefulset/web");
    let page = |pod: &str| at.run(&["exec", pod, "--", "wget", "-qO-", "http://localhost/"]);
    for pod in ["web-0", "web-1"] {
        at.run(&["exec", pod, "--", "sh", "-c", "hostname > /var/www/html/index.html"]);
    }
    at.run(&["delete", "pod", "--selector=app=nginx"]);
    at.rolled_out("statefulset/web");
    assert_eq!((page("web-0"), page("web-1")), ("web-0\n".to_owned(), "web-1\n".to_owned()));
    at.run(&["scale", "statefulset", "web", "--replicas=4"]);
    at.rolled_out("statefulset/web");
    at.run(&["scale", "statefulset", "web", "--replicas=1"]);
    eventually(SECONDS(60), "the highest go first, and their claims stay", || {
        let pods = at.run(&["get", "pods", "--selector=app=nginx", "--output=name"]);
        if pods == "pod/web-0\n" { Ok(()) } else { Err(pods) }
    });
    assert_eq!(at.run(&["get", "pvc", "--output=name"]).lines().count(), 4);
    at.remove();
}

fn cron_job(env: &Env) {
    let at = At::new(env, "cron");
    let schedule = "--schedule=* * * * *";
    at.run(&["create", "cronjob", "hello", "--image=busybox:1.36", schedule, "--", "echo", "Hello"]);
    eventually(SECONDS(75), "the minute's job is done", || {
        let jobs = at.run(&["get", "jobs", "--no-headers"]);
        if jobs.contains("Complete") { Ok(()) } else { Err(jobs) }
    });
    let job = at.run(&["get", "jobs", "--output=name"]);
    assert_eq!(at.run(&["logs", job.trim()]), "Hello\n");
    at.remove();
}
