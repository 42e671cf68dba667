//! What clients of three servers see while these are killed, paused, cut off, filled up and slowed down, one after the other and two
//! at once, is what one store could have shown them.
//!
//! Clocks are not shifted: containers have no clock of their own, and the machine's is everybody's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::Test;
use crate::faults::signal;
use crate::history::load::{Record, client, close, watcher};
use crate::history::{Did, Outcome, Watched, flaws};
use crate::servers::serve;
use crate::support::{Cluster, Env, docker::docker, eventually, run};

pub const SLOW: &[Test] = &[("servers_faults::histories_hold", histories_hold)];

/// For how many minutes; two without it.
const MINUTES: &str = "MINIK_TEST_MINUTES";
const SERVERS: usize = 3;
/// How long something stays broken, in seconds.
const BROKEN: u32 = 8;
/// A server's disk: etcd makes room for its log beforehand, 64 MiB twice.
const DISK: &str = "o=size=256m";

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Breaks {
    Kill,
    Pause,
    CutOff,
    /// From the other servers only: clients still reach it.
    CutFromServers,
    /// It is heard, and hears nothing.
    Deaf,
    Lossy,
    EtcdKilled,
    EtcdStopped,
    RoleKilled,
    DiskFull,
}

impl Breaks {
    const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::CutFromServers,
        Self::EtcdKilled,
        Self::CutOff,
        Self::EtcdStopped,
        Self::Deaf,
        Self::RoleKilled,
        Self::DiskFull,
        Self::Lossy,
    ];
}

/// The cluster that is broken, and what keeps its disks.
struct Stage<'a> {
    env: &'a Env,
    cluster: Cluster,
    addresses: Vec<String>,
}

fn node(name: &str, server: usize) -> String {
    format!("minik-{name}-server-{server}")
}

fn keeper(name: &str, server: usize) -> String {
    format!("minik-{name}-keeper-{server}")
}

fn address(container: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    docker(&["inspect", "--format", format, container]).trim().to_owned()
}

impl<'a> Stage<'a> {
    /// Three servers with small disks, which outlive their containers' ends.
    fn set(env: &'a Env, name: &str) -> Self {
        crate::support::test_images();
        let label = format!("dev.minik.cluster={name}");
        for server in 0..SERVERS {
            let (volume, keeper) = (format!("{}-state", node(name, server)), keeper(name, server));
            let small = ["--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt", DISK];
            docker(&[&["volume", "create", "--label", &label], &small[..], &[&volume]].concat());
            let mount = format!("{volume}:/state");
            let run = ["run", "--detach", "--rm", "--name", &keeper, "--volume", &mount, "--network", "none"];
            // Should this be killed, it goes by itself.
            docker(&[&run[..], &["busybox:1.36", "sleep", "7200"]].concat());
        }
        let three = SERVERS.to_string();
        env.minik(&["cluster", "create", name, "--servers", &three, "--nodes", &three, "--timeout", "5m"])
            .ok();
        let cluster = env.attach(name);
        serve(&cluster, SERVERS);
        Self { env, addresses: (0..SERVERS).map(|server| address(&node(name, server))).collect(), cluster }
    }

    fn name(&self) -> &str {
        &self.cluster.name
    }

    fn others(&self, server: usize) -> Vec<usize> {
        (0..SERVERS).filter(|other| *other != server).collect()
    }

    fn minik_node(&self, verb: &str, server: usize, more: &[&str]) {
        let (server, lasting) = (format!("server-{server}"), format!("{BROKEN}s"));
        let words = ["node", verb, &server, "--cluster", self.name(), "--for", &lasting];
        self.env.minik(&[&words[..], more].concat()).ok();
    }

    /// Breaks a server; what does not mend itself is mended by [`Stage::mend`].
    fn break_it(&self, server: usize, how: Breaks) {
        let node = node(self.name(), server);
        match how {
            Breaks::Kill => self.minik_node("kill", server, &[]),
            Breaks::Pause => self.minik_node("pause", server, &[]),
            Breaks::CutOff => self.minik_node("partition", server, &[]),
            Breaks::CutFromServers => {
                let others = self.others(server).into_iter().map(|other| format!("server-{other}"));
                let from: Vec<String> = others.flat_map(|other| ["--from".to_owned(), other]).collect();
                self.minik_node("partition", server, &from.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Breaks::Deaf => self.deafen(server, "--insert"),
            Breaks::Lossy => self.minik_node("slow", server, &["--rate", "2Mbit", "--loss", "15%"]),
            Breaks::EtcdKilled => signal(&node, "etcd", "KILL"),
            Breaks::EtcdStopped => signal(&node, "etcd", "STOP"),
            Breaks::RoleKilled => signal(&node, "exe", "KILL"),
            Breaks::DiskFull => {
                let fill = "dd if=/dev/zero of=/state/fill bs=64k 2>/dev/null; true";
                docker(&["exec", &keeper(self.name(), server), "sh", "-c", fill]);
            }
        }
    }

    fn mend(&self, server: usize, how: Breaks) {
        let node = node(self.name(), server);
        match how {
            Breaks::Deaf => self.deafen(server, "--delete"),
            Breaks::EtcdStopped => signal(&node, "etcd", "CONT"),
            Breaks::DiskFull => {
                docker(&["exec", &keeper(self.name(), server), "rm", "/state/fill"]);
            }
            // They end by themselves, unless what was to end them was killed as well.
            Breaks::Kill | Breaks::Pause | Breaks::CutOff | Breaks::CutFromServers | Breaks::Lossy => {
                let server = format!("server-{server}");
                self.env.minik(&["node", "heal", &server, "--cluster", self.name()]).ok();
            }
            Breaks::EtcdKilled | Breaks::RoleKilled => {}
        }
    }

    fn deafen(&self, server: usize, verb: &str) {
        for other in self.others(server) {
            let from = &self.addresses[other];
            let rule = ["iptables", "-w", verb, "INPUT", "--source", from, "-j", "DROP"];
            docker(&[&["exec", &node(self.name(), server)], &rule[..]].concat());
        }
    }

    /// Breaks servers at once, mends them, and waits until all is well again; returns how long that took after the mending.
    fn round(&self, broken: &[(usize, Breaks)]) -> Duration {
        broken.iter().for_each(|(server, how)| self.break_it(*server, *how));
        last(Duration::from_secs(BROKEN.into()));
        broken.iter().for_each(|(server, how)| self.mend(*server, *how));
        let mended = Instant::now();
        eventually(Duration::from_secs(120), &format!("all is well after {broken:?}"), || {
            let inspected = self.env.minik(&["cluster", "inspect", self.name(), "-o", "json"]).try_ok()?;
            let inspected: Value = serde_json::from_str(&inspected).map_err(|error| error.to_string())?;
            if inspected["broken"].as_array().is_some_and(|broken| !broken.is_empty()) {
                return Err(inspected["broken"].to_string());
            }
            (0..SERVERS).try_for_each(|server| self.ready(server))
        });
        mended.elapsed()
    }

    /// Whether a server itself says that it is ready, and reads what most members know.
    fn ready(&self, server: usize) -> Result<(), String> {
        let url = format!("https://{}:6443", self.addresses[server]);
        let words = ["get", "configmaps", "--output=name", "--request-timeout=3s", "--server", &url];
        self.cluster.kubectl(&words).try_ok().map(drop)
    }

    /// A client of the API at an address, or of the one that the host has. It never sends a request twice.
    async fn client(&self, server: Option<&str>) -> Client {
        let text = self.env.minik(&["kubeconfig", "get", self.name()]).ok();
        let known = Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(known, &KubeConfigOptions::default()).await;
        let mut config = config.expect("a usable kubeconfig");
        if let Some(ip) = server {
            config.cluster_url = format!("https://{ip}:6443").parse().expect("a URL");
        }
        config.default_retry = false;
        config.proxy_url = None;
        Client::try_from(config).expect("a client")
    }
}

impl Drop for Stage<'_> {
    /// Lets go of the disks, so that they can be removed.
    fn drop(&mut self) {
        for server in 0..SERVERS {
            run("docker", &["rm", "--force", &keeper(self.name(), server)], &[]);
        }
    }
}

/// Lets what was broken last: there is nothing to wait for but time.
#[allow(clippy::disallowed_methods)]
fn last(time: Duration) {
    std::thread::sleep(time);
}

/// Clients of each server and of the host's address.
struct Load {
    record: Record,
    clients: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<Vec<Watched>>>,
}

impl Load {
    fn begin(stage: &Stage<'_>, runtime: &Runtime) -> Self {
        let record = Record::begin();
        let servers = stage.addresses.iter().map(|ip| Some(ip.as_str()));
        let places: Vec<Option<&str>> = servers.chain([None]).collect();
        let (mut clients, mut watchers) = (Vec::new(), Vec::new());
        for place in &places {
            let to = runtime.block_on(stage.client(*place));
            watchers.push(runtime.spawn(watcher(to, record.clone())));
        }
        runtime.block_on(record.watched_by(watchers.len()));
        for (at, place) in places.iter().cycle().take(2 * places.len()).enumerate() {
            let to = runtime.block_on(stage.client(*place));
            clients.push(runtime.spawn(client(format!("c{at}"), to, record.clone(), at as u64)));
        }
        Self { record, clients, watchers }
    }

    /// Ends the clients, and says what all of them saw, and what of it cannot have been.
    async fn end(self, last: &Client) -> (String, Vec<String>) {
        self.record.stop();
        for client in self.clients {
            client.await.expect("a client ends");
        }
        close(last, &self.record).await;
        let mut watches = Vec::new();
        for watcher in self.watchers {
            let told = tokio::time::timeout(Duration::from_secs(120), watcher).await;
            watches.extend(told.expect("it is told the last write").expect("a watcher ends"));
        }
        let ops = self.record.ops();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for op in &ops {
            let what = match &op.did {
                Did::Read(_) => "reads",
                Did::Listed { .. } => "lists",
                Did::Wrote { outcome: Outcome::Done(_), .. } => "writes made",
                Did::Wrote { outcome: Outcome::Refused, .. } => "writes refused",
                Did::Wrote { outcome: Outcome::Unknown, .. } => "writes without an answer",
            };
            *counts.entry(what).or_default() += 1;
        }
        let told: usize = watches.iter().map(|watch| watch.told.len()).sum();
        (format!("{counts:?}, {told} events told in {} watches", watches.len()), flaws(&ops, &watches))
    }
}

fn histories_hold(env: &Env) {
    let minutes = std::env::var(MINUTES).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(2.0);
    let name = env.name("history");
    let stage = Stage::set(env, &name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let load = Load::begin(&stage, &runtime);
    let begun = Instant::now();
    let mut took: BTreeMap<Vec<Breaks>, Vec<Duration>> = BTreeMap::new();
    for round in 0.. {
        if begun.elapsed().as_secs_f64() >= minutes * 60.0 {
            break;
        }
        // Each alone, then each with each other one, and each time on other servers.
        let all = Breaks::ALL.len();
        let (server, first) = (round % SERVERS, Breaks::ALL[round % all]);
        let mut broken = vec![(server, first)];
        if round >= all || round % 4 == 3 {
            broken.push(((server + 1 + round / all) % SERVERS, Breaks::ALL[(round + 1 + round / all) % all]));
        }
        let well = stage.round(&broken);
        eprintln!("{:?}: {broken:?}, all well {well:?} later", begun.elapsed());
        took.entry(broken.into_iter().map(|(_, how)| how).collect()).or_default().push(well);
    }
    let rounds: usize = took.values().map(Vec::len).sum();
    let (seen, flaws) = runtime.block_on(async { load.end(&stage.client(None).await).await });
    eprintln!("{rounds} rounds: {seen}");
    drop(stage);
    assert!(flaws.is_empty(), "{} flaws: {:#?}", flaws.len(), &flaws[..flaws.len().min(20)]);
    env.minik(&["cluster", "delete", &name]).ok();
    env.assert_gone(&name);
}
