//! What a new connection to a Service costs, with one Service and with 5,000: in pairs, one measured after the other.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use minik::node::network::View;
use minik::node::proxy::BackendKind;

use super::namespaces::{Place, on_node};
use super::stage::{Stage, service, slice, view};

const MANY: u16 = 5_000;
const ROUNDS: usize = 7;
const WINDOW: Duration = Duration::from_secs(1);
/// The Service that clients ask, the last of all: iptables looks at every other one before.
const ASKED: u16 = MANY - 1;
const POD: &str = "10.42.0.11";
const CLIENT: &str = "10.42.0.12";

pub fn all() -> Result<()> {
    for (name, kind) in [("nftables", BackendKind::Nftables), ("iptables", BackendKind::Iptables)] {
        on_node(move || measure(name, kind).expect("measured"));
    }
    Ok(())
}

/// The view with the asked Service, whose only endpoint is the Pod.
fn with_asked(mut view: View) -> Result<View> {
    let asked = service(ASKED);
    view.put_slice(slice(&asked, std::iter::once(POD.parse()?)));
    view.put_service(asked);
    Ok(view)
}

fn measure(name: &str, kind: BackendKind) -> Result<()> {
    let (server, client) = (Place::pod(POD), Place::pod(CLIENT));
    let listener = server.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)))?;
    std::thread::spawn(move || {
        for client in listener.incoming() {
            drop(client);
        }
    });
    let mut stage = Stage::new(kind)?;
    let to = SocketAddr::from((service(ASKED).cluster_ip.context("an address")?, 80));
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    // Few endpoints each: the first sync is not what is measured here.
    let (one, many) = (with_asked(View::default())?, with_asked(view(MANY, 1))?);
    for _ in 0..ROUNDS {
        let mut costs = [0.0; 2];
        for (at, view) in [&one, &many].into_iter().enumerate() {
            stage.settle(|source| source.replace(view.clone()))?;
            let rate = client.inside(move || connections(to))?;
            rates[at].push(rate);
            costs[at] = 1.0 / rate;
        }
        ratios.push(costs[1] / costs[0]);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let goal = if name == "nftables" { "at most 1.10" } else { "none: every rule is looked at" };
    println!(
        "{name}: connections/s {:.0} with one Service, {:.0} with {MANY}; cost ratio {:.2} (goal: {goal})",
        median(&mut rates[0]),
        median(&mut rates[1]),
        median(&mut ratios)
    );
    Ok(())
}

/// Connections per second, one after the other, each to its end.
fn connections(to: SocketAddr) -> std::io::Result<f64> {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < WINDOW {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        // The server ends it first: no port of the client's waits.
        stream.read_to_end(&mut Vec::new())?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}
