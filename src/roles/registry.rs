//! A registry's container: serves images from its volume until it is told to stop.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use config::RegistryConfig;
use edge::registry;
use rt::Tasks;

/// What is being pushed or pulled gets this long to end after the stop signal.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs until the process is told to stop.
pub async fn run(config: RegistryConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tasks = Tasks::new();
    let address = (Ipv4Addr::UNSPECIFIED, config.port);
    let listener = TcpListener::bind(address).await.context("binding the registry's port")?;
    registry::serve(listener, Path::new(RegistryConfig::DIR), &tasks)
        .context("opening the registry's files")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Pushes that outlast the bound are cut: clients try again.
    let _ = tasks.drain(DRAIN).await;
    Ok(())
}
