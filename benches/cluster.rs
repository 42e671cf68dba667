//! What a whole cluster costs, against what Docker and containerd alone cost, in one run on one machine.
//!
//! `cargo bench --bench cluster [-- --rounds N]`. It makes its own cluster (`bench`), and removes it. `MINIK` names another
//! binary to measure.
//! Ratios are medians of pairs measured one after the other, so they hold when the machine's speed drifts.

#![allow(clippy::disallowed_types)] // measured from outside, through the commands a user types

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The binary that is measured.
static MINIK: LazyLock<String> =
    LazyLock::new(|| std::env::var("MINIK").unwrap_or_else(|_| env!("CARGO_BIN_EXE_minik").to_owned()));
const CLUSTER: &str = "bench";
const NODES: usize = 3;
const FLOOR_NETWORK: &str = "minik-bench-floor";
/// Made by `scripts/test-images`: one serves HTTP on port 8080, the other is as small as a real image gets.
const WEB_IMAGE: &str = "minik-test/web:1";
const SMALL_IMAGE: &str = "busybox:1.36";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments
        .iter()
        .position(|argument| argument == "--rounds")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(5);
    let result = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|rt| rt.block_on(all(rounds)));
    // Whatever happened, nothing stays.
    let _ = run(&MINIK, &["cluster", "delete", CLUSTER]);
    let _ = docker_remove();
    let _ = docker(&["network", "rm", FLOOR_NETWORK]);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn all(rounds: usize) -> Result<()> {
    // The first create makes the image; it is not counted.
    create()?;
    let image = docker(&["inspect", "--format", "{{.Config.Image}}", &format!("minik-{CLUSTER}-server-0")])?;
    delete()?;

    lifecycle(rounds, image.trim())?;

    create()?;
    run(&MINIK, &["image", "load", WEB_IMAGE, SMALL_IMAGE, "--cluster", CLUSTER])?;
    let kubeconfig = run(&MINIK, &["kubeconfig", "get", CLUSTER])?;
    let client = client(&kubeconfig).await?;
    pods(&client, rounds).await?;
    expose(&client, rounds).await?;
    idle()?;
    delete()
}

/// Creation and deletion of a cluster beside Docker's own start and removal of as many containers: in the network that Docker
/// has already, and in one of their own, as a cluster's are, which costs Docker rules, a resolver for each container and more.
fn lifecycle(rounds: usize, image: &str) -> Result<()> {
    let (mut creates, mut starts, mut deletes, mut removes) = (vec![], vec![], vec![], vec![]);
    let (mut network_starts, mut network_removes) = (vec![], vec![]);
    let mut spent = Spent::default();
    for _ in 0..rounds {
        starts.push(timed(|| docker_start(image, "bridge"))?);
        removes.push(timed(docker_remove)?);
        network_starts.push(timed(|| {
            docker(&["network", "create", FLOOR_NETWORK])?;
            docker_start(image, FLOOR_NETWORK)
        })?);
        network_removes.push(timed(|| {
            docker_remove()?;
            docker(&["network", "rm", FLOOR_NETWORK]).map(drop)
        })?);
        let begun = jiff::Timestamp::now();
        creates.push(timed(|| spent.phases(&create()?))?);
        spent.milestones(begun)?;
        deletes.push(timed(delete)?);
    }
    report("docker: start three containers in parallel", &starts);
    report("  the same in a network of their own", &network_starts);
    report("cluster create --nodes 3, to proven Ready", &creates);
    spent.report();
    ratio("  create / start", &creates, &starts, "at most 2.3");
    ratio("  create / start in a network of their own", &creates, &network_starts, "none");
    report("docker rm -f of three", &removes);
    report("  the same, and of their network", &network_removes);
    report("cluster delete", &deletes);
    ratio("  delete / rm", &deletes, &removes, "at most 1.6");
    ratio("  delete / rm with their network", &deletes, &network_removes, "none");
    Ok(())
}

/// What nodes write to their logs on the way to Ready, in the order in which one would expect it.
const MILESTONES: &[&str] = &[
    "the node starts",
    "service rules",
    "the runtime answers",
    "the API is served",
    "purpose=Client",
    "registered",
    "network proven",
    "purpose=Serving",
    "the node is Ready",
];

/// Where the time of creating goes: phases by the command's own account, and when each node had come how far.
#[derive(Default)]
struct Spent {
    phases: Vec<(String, Vec<Duration>)>,
    /// By role and milestone: from the beginning of the command, the last node of the role.
    reached: BTreeMap<(&'static str, usize), Vec<Duration>>,
}

impl Spent {
    /// Takes in what the command said of itself.
    fn phases(&mut self, said: &str) -> Result<()> {
        let said: Value = serde_json::from_str(said)?;
        for phase in said["phases"].as_array().into_iter().flatten() {
            let name = phase["name"].as_str().unwrap_or_default();
            let took = Duration::from_millis(phase["milliseconds"].as_u64().unwrap_or_default());
            match self.phases.iter_mut().find(|(known, _)| known == name) {
                Some((_, times)) => times.push(took),
                None => self.phases.push((name.to_owned(), vec![took])),
            }
        }
        Ok(())
    }

    /// Reads the nodes' logs.
    fn milestones(&mut self, begun: jiff::Timestamp) -> Result<()> {
        let mut last: BTreeMap<(&'static str, usize), Duration> = BTreeMap::new();
        for number in 0..NODES {
            let (role, node) = match number {
                0 => ("server", format!("minik-{CLUSTER}-server-0")),
                n => ("agent", format!("minik-{CLUSTER}-agent-{}", n - 1)),
            };
            let log = Command::new("docker").args(["logs", "--timestamps", &node]).output()?;
            let lines = [log.stdout, log.stderr].concat();
            for line in String::from_utf8_lossy(&lines).lines() {
                let Some((at, text)) = line.split_once(' ') else { continue };
                let Some(which) = MILESTONES.iter().position(|part| text.contains(part)) else { continue };
                let at: jiff::Timestamp = at.parse().context("a time in a node's log")?;
                let after = Duration::try_from(at.duration_since(begun)).unwrap_or_default();
                let reached = last.entry((role, which)).or_default();
                *reached = after.max(*reached);
            }
        }
        for (key, after) in last {
            self.reached.entry(key).or_default().push(after);
        }
        Ok(())
    }

    fn report(&self) {
        for (phase, times) in &self.phases {
            report(&format!("  phase: {phase}"), times);
        }
        for ((role, which), times) in &self.reached {
            report(&format!("  after the start, {role}: {}", MILESTONES[*which]), times);
        }
    }
}

/// One Pod from its creation to Running, beside `ctr run` of the same image on a node.
async fn pods(client: &kube::Client, rounds: usize) -> Result<()> {
    let node = format!("minik-{CLUSTER}-agent-0");
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let (mut ours, mut floor) = (vec![], vec![]);
    for round in 0..=rounds {
        let script = format!(
            "s=$(date +%s%N); ctr -n k8s.io run --rm --runtime io.containerd.runc.v2 --runc-binary /usr/bin/crun \
             docker.io/library/{SMALL_IMAGE} floor{round} true; e=$(date +%s%N); echo $((e-s))"
        );
        let nanos: u64 = docker(&["exec", &node, "sh", "-c", &script])?.trim().parse().context("ctr run")?;
        let name = format!("one-{round}");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "small", "image": SMALL_IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "600"]}]},
        }))?;
        let started = Instant::now();
        api.create(&PostParams::default(), &pod).await?;
        let mut events = std::pin::pin!(
            watcher(api.clone(), watcher::Config::default().fields(&format!("metadata.name={name}")))
                .applied_objects()
        );
        while let Some(pod) = events.try_next().await? {
            if pod.status.and_then(|status| status.phase).as_deref() == Some("Running") {
                break;
            }
        }
        let took = started.elapsed();
        api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        // The first round warms both sides.
        if round > 0 {
            ours.push(took);
            floor.push(Duration::from_nanos(nanos));
        }
    }
    report("ctr run on the node", &floor);
    report("one Pod, create to Running", &ours);
    ratio("  Pod / ctr run", &ours, &floor, "at most 2.5");
    Ok(())
}

/// From creating a LoadBalancer Service for a running Pod to the first HTTP answer at its external IP.
async fn expose(client: &kube::Client, rounds: usize) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": WEB_IMAGE, "imagePullPolicy": "Never"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let ready = kube::runtime::wait::await_condition(
        pods.clone(),
        "web",
        kube::runtime::conditions::is_pod_running(),
    );
    tokio::time::timeout(Duration::from_secs(30), ready).await.context("the web Pod does not run")??;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let mut took = vec![];
    for round in 0..rounds {
        let name = format!("web-{round}");
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))?;
        let started = Instant::now();
        services.create(&PostParams::default(), &service).await?;
        let address = external_ip(&services, &name).await?;
        let bound = started + Duration::from_secs(20);
        while !answers(address).await {
            ensure!(Instant::now() < bound, "http://{address}/ does not answer");
        }
        took.push(started.elapsed());
        services.delete(&name, &DeleteParams::default()).await?;
    }
    report("expose to first answer (goal: under 100 ms)", &took);
    Ok(())
}

async fn external_ip(services: &Api<Service>, name: &str) -> Result<Ipv4Addr> {
    let mut events = std::pin::pin!(
        watcher(services.clone(), watcher::Config::default().fields(&format!("metadata.name={name}")))
            .applied_objects()
    );
    while let Some(service) = events.try_next().await? {
        let status = serde_json::to_value(service.status)?;
        if let Some(ip) = status.pointer("/loadBalancer/ingress/0/ip").and_then(Value::as_str) {
            return Ok(ip.parse()?);
        }
    }
    bail!("the watch of service {name} ended")
}

/// One HTTP request; an attempt that hangs is given up after 5 ms, so that the figure is as exact.
async fn answers(address: Ipv4Addr) -> bool {
    let attempt = async {
        let mut stream = tokio::net::TcpStream::connect((address, 80)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.ok()?;
        start.starts_with(b"HTTP/1.1 200").then_some(())
    };
    matches!(tokio::time::timeout(Duration::from_millis(5), attempt).await, Ok(Some(())))
}

/// Memory and processor time of every process in the node containers while nothing happens.
fn idle() -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(20);
    let before = processes()?;
    #[allow(clippy::disallowed_methods)] // the length of the measurement is the measurement
    std::thread::sleep(WINDOW);
    let after = processes()?;
    let mut groups: BTreeMap<String, (usize, u64, u64, u64)> = BTreeMap::new();
    for (pid, process) in &after {
        let group = groups.entry(process.name.clone()).or_default();
        group.0 += 1;
        group.1 += process.rss_kib;
        group.2 += process.pss_kib;
        group.3 += process.ticks - before.get(pid).map_or(process.ticks, |old| old.ticks);
    }
    println!("idle, {NODES} nodes, over {WINDOW:?}:");
    println!("  {:<28} {:>5} {:>10} {:>10} {:>8}", "process", "count", "RSS MiB", "PSS MiB", "% core");
    let mut sum = (0, 0, 0, 0);
    for (name, (count, rss, pss, ticks)) in groups {
        // A tick is 10 ms on every Linux that minik runs on.
        let percent = ticks as f64 * 10.0 / WINDOW.as_millis() as f64 * 100.0;
        println!(
            "  {name:<28} {count:>5} {:>10.1} {:>10.1} {percent:>8.2}",
            rss as f64 / 1024.0,
            pss as f64 / 1024.0
        );
        sum = (sum.0 + count, sum.1 + rss, sum.2 + pss, sum.3 + ticks);
    }
    let percent = sum.3 as f64 * 10.0 / WINDOW.as_millis() as f64 * 100.0;
    let (rss, pss) = (sum.1 as f64 / 1024.0, sum.2 as f64 / 1024.0);
    println!("  {:<28} {:>5} {rss:>10.1} {pss:>10.1} {percent:>8.2}", "all (goal: 300 MB, 1 %)", sum.0);
    Ok(())
}

struct Process {
    name: String,
    rss_kib: u64,
    pss_kib: u64,
    ticks: u64,
}

/// Every process of the cluster's containers, by process id, as the host's /proc shows it.
fn processes() -> Result<BTreeMap<u32, Process>> {
    let label = format!("label=dev.minik.cluster={CLUSTER}");
    let ids = docker(&["ps", "--quiet", "--no-trunc", "--filter", &label])?;
    let mut found = BTreeMap::new();
    for id in ids.lines() {
        let role = docker(&["inspect", "--format", "{{index .Config.Labels \"dev.minik.role\"}}", id])?;
        for line in docker(&["top", id, "-eo", "pid"])?.lines().skip(1) {
            let pid: u32 = line.trim().parse()?;
            if let Some(process) = process(pid, role.trim()) {
                found.insert(pid, process);
            }
        }
    }
    Ok(found)
}

/// `None` when the process has ended meanwhile.
fn process(pid: u32, role: &str) -> Option<Process> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let command = read("cmdline")?;
    let words: Vec<&str> = command.split('\0').filter(|word| !word.is_empty()).collect();
    let base = words.first()?.rsplit('/').next()?.to_owned();
    let name = match words.get(1..3) {
        Some(rest) if base == "minik" => format!("{role}: minik {}", rest.join(" ")),
        _ => base,
    };
    let field = |text: &str, key: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let rollup = read("smaps_rollup")?;
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Process { name, rss_kib: field(&rollup, "Rss:"), pss_kib: field(&rollup, "Pss:"), ticks })
}

async fn client(kubeconfig: &str) -> Result<kube::Client> {
    let config = kube::config::Kubeconfig::from_yaml(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(kube::Client::try_from(config)?)
}

/// Answers what the command said of itself.
fn create() -> Result<String> {
    run(&MINIK, &["cluster", "create", CLUSTER, "--nodes", &NODES.to_string(), "--output", "json"])
}

fn delete() -> Result<()> {
    run(&MINIK, &["cluster", "delete", CLUSTER]).map(drop)
}

fn docker_start(image: &str, network: &str) -> Result<()> {
    let children: Vec<_> = (0..NODES)
        .map(|n| {
            Command::new("docker")
                .args([
                    "run",
                    "--detach",
                    "--name",
                    &format!("minik-bench-floor-{n}"),
                    "--network",
                    network,
                    "--entrypoint",
                    "sleep",
                    image,
                    "300",
                ])
                .stdout(std::process::Stdio::null())
                .spawn()
        })
        .collect::<std::io::Result<_>>()?;
    for mut child in children {
        ensure!(child.wait()?.success(), "docker run failed");
    }
    Ok(())
}

fn docker_remove() -> Result<()> {
    docker(&[
        "rm",
        "--force",
        "--volumes",
        "minik-bench-floor-0",
        "minik-bench-floor-1",
        "minik-bench-floor-2",
    ])
    .map(drop)
}

fn docker(arguments: &[&str]) -> Result<String> {
    run("docker", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let Output { status, stdout, stderr } =
        Command::new(program).args(arguments).output().context(program.to_owned())?;
    ensure!(status.success(), "{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8(stdout)?)
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    act()?;
    Ok(started.elapsed())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(what: &str, took: &[Duration]) {
    let millis: Vec<f64> = took.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
    let (low, high) = millis.iter().fold((f64::MAX, 0f64), |(low, high), t| (low.min(*t), high.max(*t)));
    println!("{what:<52} median {:>8.1} ms   ({low:.1} to {high:.1})", median(millis));
}

fn ratio(what: &str, ours: &[Duration], floor: &[Duration], goal: &str) {
    let pairs = ours.iter().zip(floor).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
    println!("{what:<52} ratio  {:>8.2}      (goal: {goal})", median(pairs));
}
