//! `minik run`: a cluster of its own for one command.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::cluster::duration;
use super::completion;
use super::output::Output;
use super::progress::reporter;
use cluster::{
    ClusterError, ClusterSpec, CreateOptions, Docker, create, delete, expired, images, unique_name,
};
use config::kubeconfig;
use rt::Stop;
use sys::foreground;

#[derive(Args)]
pub(super) struct RunArgs {
    /// How many nodes; the first runs the control plane.
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    nodes: u32,
    /// Make the nodes from this image instead of the one minik builds.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Images of Docker to load before the command starts.
    #[arg(long = "load", value_name = "IMAGE", add = completion::images())]
    load: Vec<String>,
    /// After this time any minik command may remove the cluster, for example 20m.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration)]
    ttl: Duration,
    /// How long the cluster may take to become ready.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// The command; KUBECONFIG leads it to the cluster.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Answers the command's exit code.
pub(super) async fn run(args: RunArgs, output: &Output, stop: &Stop) -> anyhow::Result<u8> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    remove_expired(&docker).await;
    let name = unique_name();
    let mut spec = ClusterSpec::new(name.parse().map_err(ClusterError::from)?, args.nodes)
        .map_err(ClusterError::from)?;
    spec.image = args.image;
    let ttl = SignedDuration::try_from(args.ttl).unwrap_or(SignedDuration::MAX);
    let expires = Timestamp::now().checked_add(ttl).ok();
    let options = CreateOptions { timeout: args.timeout, expires, ..CreateOptions::new(spec) };
    let progress = reporter(output.quiet);
    // Should this process be killed, its heir removes the cluster.
    let heir = foreground::heir(&["cluster", "delete", &name, "--after-input-ends"])?;
    let created = create(&docker, &options, progress.as_ref(), stop).await?;
    let work = async {
        if !args.load.is_empty() {
            let sources: Vec<_> = args.load.iter().map(|text| images::source(text)).collect();
            images::load(&docker, &name, &sources, progress.as_ref(), stop).await?;
        }
        let file = tempfile::Builder::new().prefix("minik-").suffix(".kubeconfig").tempfile()?;
        let text = kubeconfig::standalone(&created.access.entry()).map_err(ClusterError::from)?;
        std::fs::write(file.path(), text).context("writing the kubeconfig")?;
        let path = file.path().display().to_string();
        let variables = [("KUBECONFIG", path.as_str()), ("MINIK_CLUSTER", name.as_str())];
        anyhow::Ok(foreground::run(&args.command, &variables, stop).await?)
    };
    let code = work.await;
    delete(&docker, &name, None).await?;
    drop(heir);
    code
}

/// Removes clusters whose time is over; they are nobody's any more, so what fails is left to the next command.
async fn remove_expired(docker: &Docker) {
    for name in expired(docker).await.unwrap_or_default() {
        if let Err(error) = delete(docker, &name, None).await {
            tracing::debug!(%error, name, "an expired cluster stays");
        }
    }
}
