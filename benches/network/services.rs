//! 5,000 Services with 10 endpoints each: the first sync, one change, and what it all weighs.

use anyhow::{Result, bail};
use minik::node::network::ServiceKey;
use minik::node::proxy::BackendKind;

use super::namespaces::on_node;
use super::stage::{Stage, memory, pods, report, service, slice, view};

const SERVICES: u16 = 5_000;
const ENDPOINTS: u32 = 10;
const ROUNDS: u16 = 21;
/// Another Service than those that are there.
const NEW: u16 = SERVICES + 1;

pub fn all() -> Result<()> {
    super::again(&["services", "nftables"])?;
    super::again(&["services", "iptables"])
}

pub fn one(backend: &str) -> Result<()> {
    let (kind, goals) = match backend {
        "nftables" => (BackendKind::Nftables, ["under 1500 ms", "under 10 ms"]),
        "iptables" => (BackendKind::Iptables, ["none: what the tool takes", "under 30 ms"]),
        other => bail!("no such backend: {other}"),
    };
    let backend = backend.to_owned();
    on_node(move || measure(&backend, kind, goals).expect("measured"));
    Ok(())
}

fn measure(backend: &str, kind: BackendKind, goals: [&str; 2]) -> Result<()> {
    let empty = memory("VmRSS")?;
    let mut stage = Stage::new(kind)?;
    let all = view(SERVICES, ENDPOINTS);
    let with_view = memory("VmRSS")?;
    let first = stage.settle(|source| source.replace(all))?;
    report(
        &format!("{backend}: first sync of {SERVICES} Services with {ENDPOINTS} endpoints"),
        &[first],
        goals[0],
    );
    let (mut endpoint, mut come, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // One endpoint leaves a Service, as in a roll.
        let of = service(round * 7);
        let fewer = slice(&of, pods(round * 7, ENDPOINTS).skip(1));
        endpoint.push(stage.settle(|source| source.edit(|view| view.put_slice(fewer)))?);
        let new = service(NEW);
        come.push(stage.settle(|source| {
            source.edit(|view| {
                view.put_slice(slice(&new, pods(NEW, ENDPOINTS)));
                view.put_service(new)
            });
        })?);
        let key = ServiceKey::new(service(NEW).key.namespace, service(NEW).key.name);
        gone.push(stage.settle(|source| source.edit(|view| view.remove_service(&key)))?);
    }
    report(&format!("{backend}: an endpoint goes"), &endpoint, goals[1]);
    report(&format!("{backend}: a Service comes"), &come, goals[1]);
    report(&format!("{backend}: a Service goes"), &gone, goals[1]);
    println!(
        "{backend}: resident {:.1} MiB (goal: under 60), at most {:.1}; {empty:.1} empty, {with_view:.1} with the view alone",
        memory("VmRSS")?,
        memory("VmHWM")?
    );
    Ok(())
}
