//! iperf3 from Pod to Pod and through a Service, against the same two ends at a plain bridge.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minik::node::proxy::BackendKind;
use serde_json::Value;

use super::namespaces::{Place, on_node, sh};
use super::stage::{Stage, service, slice};

const ROUNDS: usize = 5;
const SECONDS: &str = "2";
const PODS: [&str; 2] = ["10.42.0.11", "10.42.0.12"];
/// The ends of the bridge.
const FLAT: [&str; 2] = ["192.168.78.11", "192.168.78.12"];
/// iperf3's port is the endpoint's.
const PORT: &str = "8080";

pub fn all() -> Result<()> {
    if super::has("iperf3") {
        on_node(|| measure().expect("measured"));
    }
    Ok(())
}

/// A server of iperf3, ended when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(place: &str) -> Result<Server> {
    let arguments = ["netns", "exec", place, "iperf3", "--server", "--port", PORT];
    let child = Command::new("ip").args(arguments).stdout(Stdio::null()).spawn()?;
    Ok(Server(child))
}

/// Gigabits per second; tried again while the server is not up yet.
fn ask(place: &str, to: &str, port: &str) -> Result<f64> {
    let bound = Instant::now() + Duration::from_secs(20);
    loop {
        let arguments = ["netns", "exec", place, "iperf3", "-c", to, "-p", port, "-t", SECONDS, "--json"];
        let output = Command::new("ip").args(arguments).output()?;
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if let Some(rate) = told.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64) {
            return Ok(rate / 1e9);
        }
        ensure!(Instant::now() < bound, "iperf3: {told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn measure() -> Result<()> {
    let [server, client] = PODS.map(Place::pod);
    let mut stage = Stage::new(BackendKind::Nftables)?;
    let of = service(1);
    let to = of.cluster_ip.context("an address")?.to_string();
    let endpoint = slice(&of, std::iter::once(PODS[0].parse()?));
    stage.settle(|source| {
        let mut view = minik::node::network::View::default();
        view.put_slice(endpoint);
        view.put_service(of);
        source.replace(view);
    })?;
    sh("ip link add name flat type bridge && ip link set flat up");
    let names = ["flat-a", "flat-b"].map(|name| format!("minik-bench-{}-{name}", std::process::id()));
    let _gone = Gone(&names);
    for (at, (name, ip)) in names.iter().zip(FLAT).enumerate() {
        sh(&format!(
            "ip netns add {name} && ip link add flat{at} type veth peer name eth0 netns {name} && ip link set flat{at} \
             master flat up && ip -n {name} addr add {ip}/24 dev eth0 && ip -n {name} link set eth0 up"
        ));
    }
    let (_pods, _flat) = (serve(&server.name)?, serve(&names[0])?);
    let (mut direct, mut through, mut flat) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        flat.push(ask(&names[1], FLAT[0], PORT)?);
        direct.push(ask(&client.name, PODS[0], PORT)?);
        through.push(ask(&client.name, &to, "80")?);
    }
    for (what, ours) in [("Pod to Pod", &direct), ("Pod to Service", &through)] {
        let mut ratios: Vec<f64> = ours.iter().zip(&flat).map(|(ours, flat)| ours / flat).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ROUNDS / 2;
        println!(
            "{what}: {:.1} Gbit/s, {:.2} of a plain bridge's {:.1} (goal: at least 0.95)",
            ours[middle], ratios[middle], flat[middle]
        );
    }
    Ok(())
}

/// Namespaces that go with this.
struct Gone<'a>(&'a [String]);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        for name in self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
