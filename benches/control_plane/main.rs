//! What the control plane can do, against etcd on the same disk in the same run.
//!
//! `cargo bench --bench control_plane [-- --operations N --rounds N]`, `-- --scale` for what one costs of many alone,
//! `-- --memory` for what stays after many came and went,
//! or `-- --costs` for what policies, webhooks, definitions and watchers cost. etcd is taken from `PATH`; without one the
//! ratios are left out. Rates drift with the machine: only the ratios mean something elsewhere.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // measured from outside, with plain tasks and processes

mod api;
mod costs;
mod etcd;
mod figures;
mod memory;
mod scale;
mod store;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (operations, rounds) = (number("--operations", 8_000), number("--rounds", 5));
    minik::sys::memory::bound();
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(at) = arguments.iter().position(|argument| argument == "--start-over") {
        let file = arguments.get(at + 1).context("a file")?;
        return runtime.block_on(costs::start_over(std::path::Path::new(file)));
    }
    if arguments.iter().any(|argument| argument == "--costs") {
        return runtime.block_on(costs::all());
    }
    if arguments.iter().any(|argument| argument == "--memory") {
        return runtime.block_on(memory::all());
    }
    if arguments.iter().any(|argument| argument == "--definitions") {
        return runtime.block_on(costs::definitions());
    }
    if arguments.iter().any(|argument| argument == "--scale") {
        return runtime.block_on(scale::all());
    }
    runtime.block_on(all(operations, rounds))
}

async fn all(operations: usize, rounds: usize) -> Result<()> {
    // Beside the build, because the system's folder for temporary files is often no disk at all.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let etcd = etcd::Etcd::start(&folder.path().join("etcd")).await?;
    if etcd.is_none() {
        println!("etcd is not on PATH: no ratios");
    }
    store::all(folder.path(), etcd.as_ref(), operations, rounds).await?;
    api::all(folder.path(), etcd.as_ref(), operations, rounds).await?;
    scale::all().await?;
    costs::all().await
}
