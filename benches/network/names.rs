//! DNS under dnsperf: names of the cluster, half of which do not exist, and names outside, which are cached.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use minik::node::dns::{Custom, Listeners, Options, Upstream, run};
use minik::node::network::Source;
use minik::rt::Tasks;
use tokio::sync::watch;

use super::stage::view;

const SERVICES: u16 = 1_000;
const SECONDS: &str = "5";
/// Queries per second when each answer is looked at.
const PACED: &str = "10000";

pub fn all() -> Result<()> {
    if !super::has("dnsperf") {
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let (source, feed) = Source::new();
    source.replace(view(SERVICES, 1));
    let (tasks, (custom, following)) = (Tasks::new(), watch::channel(Custom::default()));
    let serve = |domain: &str, upstream: Upstream| -> Result<SocketAddr> {
        runtime.block_on(async {
            let listeners = Listeners::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
            let address = listeners.address()?;
            let options = Options {
                cluster_domain: domain.into(),
                dns_ip: Ipv4Addr::new(10, 43, 0, 10),
                networks: Vec::new(),
            };
            run(listeners, &options, feed.clone(), upstream, following.clone(), &tasks)?;
            Ok(address)
        })
    };
    // Another server of the same kind is the world outside.
    let outside = serve("example", Upstream::none())?;
    let transports = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut transport| {
        transport.port = outside.port();
        transport
    });
    let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, transports.into());
    let config = ResolverConfig::from_name_servers(vec![server]);
    let upstream = runtime.block_on(async { Upstream::servers(config) })?;
    let ours = serve("cluster.local", upstream)?;

    let (mut inside, mut beyond) = (String::new(), String::new());
    for number in 0..SERVICES {
        let space = number % 50;
        let _ = writeln!(inside, "service-{number}.space-{space}.svc.cluster.local A");
        let _ = writeln!(inside, "missing-{number}.space-{space}.svc.cluster.local A");
        let _ = writeln!(beyond, "service-{number}.space-{space}.svc.example A");
    }
    ask("names of the cluster, half of them missing", ours, &inside)?;
    ask("names outside, cached after the first question", ours, &beyond)?;
    drop(custom);
    let _ = runtime.block_on(tasks.drain(Duration::from_secs(5)));
    Ok(())
}

fn ask(what: &str, server: SocketAddr, questions: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("questions");
    std::fs::write(&file, questions)?;
    let file = file.display().to_string();
    let text = dnsperf(server, &["-l", SECONDS, "-c", "8", "-T", "2", "-q", "100", "-d", &file])?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).unwrap_or("not told").to_owned()
    };
    // Every answer is told with its time, which costs the asking side much: at a rate that it can do.
    let told = dnsperf(server, &["-l", "2", "-Q", PACED, "-q", "100", "-v", "-d", &file])?;
    println!(
        "{what}: {} queries/s (goal: 100,000), lost {} (goal: 0); p99 {} at {PACED}/s (goal: under 2 ms)",
        value("Queries per second:"),
        value("Queries lost:"),
        p99(&told)
    );
    Ok(())
}

fn dnsperf(server: SocketAddr, arguments: &[&str]) -> Result<String> {
    let port = server.port().to_string();
    let mut command = Command::new("dnsperf");
    command.args(["-s", "127.0.0.1", "-p", &port]).args(arguments);
    let output = command.output().context("dnsperf")?;
    ensure!(output.status.success(), "dnsperf: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Out of lines `> CODE NAME TYPE SECONDS`.
fn p99(told: &str) -> String {
    let times = told
        .lines()
        .filter(|line| line.starts_with("> "))
        .filter_map(|line| line.split(' ').next_back()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).map_or("not told".to_owned(), |time| format!("{:.2} ms", time * 1e3))
}
