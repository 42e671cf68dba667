//! What the node's network costs, against what the kernel and Debian's own programs do in the same run. Needs root.
//!
//! `cargo bench --bench network [-- PART…]`, where the parts are `services`, `connections`, `names`, `pods` and `ingress`.
//! Clients and peers are Debian's: nft, iptables, dnsperf, iperf3, wrk, nginx; a part whose program is missing says so.
//! Each part is a process of its own, so that its memory is its own.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // measured from outside, with plain threads and processes

mod connections;
mod ingress;
mod names;
#[allow(dead_code)] // the tests' stage: not all of it is used here
#[path = "../../tests/it/network/namespaces.rs"]
mod namespaces;
mod pods;
mod services;
mod stage;

use std::process::Command;

use anyhow::{Result, ensure};

type Part = (&'static str, fn() -> Result<()>);

const PARTS: &[Part] = &[
    ("services", services::all),
    ("connections", connections::all),
    ("names", names::all),
    ("pods", pods::all),
    ("ingress", ingress::all),
];

/// Says that this process is one part.
const PART: &str = "--part";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    if let [flag, name, rest @ ..] = arguments.as_slice()
        && flag == PART
    {
        return match (PARTS.iter().find(|(part, _)| part == name), rest) {
            (Some((_, run)), []) => run(),
            (Some((part, _)), [with]) if *part == "services" => services::one(with),
            _ => anyhow::bail!("no such part: {name} {rest:?}"),
        };
    }
    for (name, _) in
        PARTS.iter().filter(|(name, _)| arguments.is_empty() || arguments.iter().any(|a| a == name))
    {
        println!("# {name}");
        again(&[name])?;
    }
    Ok(())
}

/// Runs this program again, as one part.
fn again(arguments: &[&str]) -> Result<()> {
    let status = Command::new(std::env::current_exe()?).arg(PART).args(arguments).status()?;
    ensure!(status.success(), "{arguments:?} failed: {status}");
    Ok(())
}

/// Whether a program is there; says so when it is not.
fn has(program: &str) -> bool {
    let paths = std::env::var("PATH").unwrap_or_default();
    let found = paths.split(':').any(|folder| std::path::Path::new(folder).join(program).exists());
    if !found {
        println!("{program} is not on PATH: not measured");
    }
    found
}
