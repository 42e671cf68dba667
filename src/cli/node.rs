use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::{Exit, output};
use crate::config::NodeConfig;
use crate::{roles, sys};

#[derive(Clone, Copy, Subcommand)]
pub(super) enum Command {
    /// Process 1 of a node: starts `node run`, forwards signals, reaps orphans.
    Init,
    /// The node's role, as the environment variable MINIK_NODE describes it.
    Run,
}

/// Runs without a runtime around it: the init may have no threads.
pub(super) fn main(command: &Command) -> ExitCode {
    let result = match command {
        Command::Init => sys::init::run(&["node", "run"]).map_err(anyhow::Error::from).map(ExitCode::from),
        Command::Run => run().map(|()| Exit::Ok.into()),
    };
    result.unwrap_or_else(|error| {
        output::print_error(&error);
        Exit::Failure.into()
    })
}

fn run() -> anyhow::Result<()> {
    log();
    let text = std::env::var(NodeConfig::ENV).with_context(|| {
        format!("{} is not set: this command runs inside a node's container", NodeConfig::ENV)
    })?;
    let config: NodeConfig =
        serde_json::from_str(&text).with_context(|| format!("{} is malformed", NodeConfig::ENV))?;
    // The TLS library is compiled without a default; a second call would only find it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(roles::run(config));
    runtime.shutdown_background();
    result
}

/// A node's log is its container's: plain lines on standard error, at `info` unless `RUST_LOG` says otherwise.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}
