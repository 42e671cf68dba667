//! Services by the thousand, a proxy that follows them, and figures.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use minik::node::network::{
    Endpoint, Feed, Kind, Port, Protocol, Service, ServiceKey, Slice, SlicePort, Source, View,
};
use minik::node::proxy::{self, BackendKind, Proxy, Settings};
use minik::rt::Tasks;
use minik::sys::exec::System;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const BOUND: Duration = Duration::from_secs(300);

/// A proxy in the caller's network namespace.
pub struct Stage {
    pub source: Source,
    feed: Feed,
    applied: watch::Receiver<u64>,
    tasks: Tasks,
    pub runtime: Runtime,
}

impl Stage {
    pub fn new(kind: BackendKind) -> Result<Self> {
        minik::node::routes::apply_settings();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (source, feed) = Source::new();
        let tasks = Tasks::new();
        let settings = Settings {
            node: "here".into(),
            node_ip: NODE,
            pod_cidr: "10.42.0.0/15".parse()?,
            service_cidr: Some("10.43.0.0/16".parse().expect("network")),
            answered_here: BTreeSet::new(),
        };
        let guard = runtime.enter();
        let backend = proxy::open(kind, Arc::new(System));
        let applied = proxy::run(Proxy { feed: feed.clone(), settings, backend }, &tasks);
        drop(guard);
        Ok(Self { source, feed, applied, tasks, runtime })
    }

    /// How long it takes until what was told is in the kernel.
    pub fn settle(&mut self, tell: impl FnOnce(&Source)) -> Result<Duration> {
        let begun = Instant::now();
        tell(&self.source);
        let wanted = *self.feed.services().borrow();
        let applied = self.applied.wait_for(|generation| *generation >= wanted);
        let waited = async { tokio::time::timeout(BOUND, applied).await };
        self.runtime.block_on(waited).context("the rules are not applied")??;
        Ok(begun.elapsed())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.tasks.drain(Duration::from_secs(5)));
    }
}

/// The Service of a number: one TCP port.
pub fn service(number: u16) -> Service {
    let [high, low] = number.to_be_bytes();
    Service {
        key: ServiceKey::new(format!("space-{}", number % 50), format!("service-{number}")),
        kind: Kind::ClusterIp,
        cluster_ip: Some(Ipv4Addr::new(10, 96, high, low)),
        headless: false,
        ports: vec![Port {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            app_protocol: None,
        }],
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: None,
        external_ips: Vec::new(),
        ingress_ips: Vec::new(),
        source_ranges: Vec::new(),
        publish_not_ready: false,
        announced_by: None,
        other_proxy: false,
        unproxied: false,
        gateway: None,
    }
}

/// Its slice, with these endpoints, each at port 8080.
pub fn slice(of: &Service, addresses: impl Iterator<Item = Ipv4Addr>) -> Slice {
    let endpoint = |address| Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        node: Some("there".into()),
        hostname: None,
        for_nodes: Vec::new(),
        for_zones: Vec::new(),
    };
    Slice {
        name: format!("{}-x", of.key.name),
        service: of.key.clone(),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: addresses.map(endpoint).collect(),
    }
}

/// The addresses of a Service's endpoints: of Pods that nobody else has.
pub fn pods(number: u16, count: u32) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, 42, 1, 0)) + u32::from(number) * count;
    (first..first + count).map(Ipv4Addr::from)
}

/// So many Services with so many endpoints each.
pub fn view(services: u16, endpoints: u32) -> View {
    let mut view = View::default();
    let all: Vec<Service> = (0..services).map(service).collect();
    view.replace_slices(all.iter().zip(0..).map(|(service, n)| slice(service, pods(n, endpoints))).collect());
    view.replace_services(all);
    view
}

/// Median and extremes.
pub fn report(what: &str, took: &[Duration], goal: &str) {
    let mut millis: Vec<f64> = took.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    millis.sort_by(f64::total_cmp);
    let (low, high) = (millis[0], millis[millis.len() - 1]);
    println!(
        "{what:<58} median {:>8.1} ms   ({low:.1} to {high:.1}; goal: {goal})",
        millis[millis.len() / 2]
    );
}

/// A field of /proc/self/status, in MiB.
pub fn memory(field: &str) -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: f64 = line.context("no such field")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
