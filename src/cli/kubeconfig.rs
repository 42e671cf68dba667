//! `minik kubeconfig`: the entries by which clients find clusters.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::cluster::env;
use super::options::{Form, Named};
use super::output::{Output, print};
use cluster::{ClusterError, Docker, access_of, labels};
use config::kubeconfig;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print a cluster's kubeconfig.
    Get(GetArgs),
    /// Put a cluster into the kubeconfig that kubectl uses.
    Merge(MergeArgs),
    /// Make a cluster's context the current one.
    Switch(NameArgs),
    /// Take a cluster out of the kubeconfig; the context before becomes current again.
    #[command(visible_alias = "rm")]
    Remove(NameArgs),
}

#[derive(Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    of: Named,
}

#[derive(Args)]
pub(super) struct NameArgs {
    #[command(flatten)]
    of: Named,
    /// The file to change, instead of those kubectl uses.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct MergeArgs {
    #[command(flatten)]
    of: Named,
    /// The file to change, instead of those kubectl uses.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Do not make it the current context.
    #[arg(long)]
    no_switch: bool,
    #[command(flatten)]
    form: Form,
}

/// The files that are changed. Fails where there is no place for one.
fn files(chosen: Option<PathBuf>) -> Result<Vec<PathBuf>, ClusterError> {
    match chosen {
        Some(file) => Ok(vec![file]),
        None => Ok(kubeconfig::files(env)?),
    }
}

pub(super) async fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Get(args) => {
            let docker = Docker::connect().await.map_err(ClusterError::from)?;
            let access = access_of(&docker, args.of.name.as_str()).await?;
            print(&kubeconfig::standalone(&access.entry()).map_err(ClusterError::from)?)
        }
        Command::Merge(args) => {
            let docker = Docker::connect().await.map_err(ClusterError::from)?;
            let entry = access_of(&docker, args.of.name.as_str()).await?.entry();
            let path = kubeconfig::merge(&files(args.kubeconfig)?, &entry, !args.no_switch)
                .map_err(ClusterError::from)?;
            output.result(args.form.output, &json!({"kubeconfig": path, "context": entry.name}), || {
                format!("Context {:?} is in {}.\n", entry.name, path.display())
            })
        }
        // Neither needs Docker: the entries are in the file.
        Command::Switch(args) => {
            let context = labels::context(args.of.name.as_str());
            let path = kubeconfig::switch(&files(args.kubeconfig)?, &context).map_err(ClusterError::from)?;
            let Some(path) = path else {
                return Err(ClusterError::NoContext(args.of.name.to_string()).into());
            };
            output.result(args.form.output, &json!({"kubeconfig": path, "context": context}), || {
                format!("Context {context:?} is the current one.\n")
            })
        }
        Command::Remove(args) => {
            let context = labels::context(args.of.name.as_str());
            let removed =
                kubeconfig::remove(&files(args.kubeconfig)?, &context).map_err(ClusterError::from)?;
            output.result(
                args.form.output,
                &json!({"context": context, "removed": removed}),
                || match removed {
                    true => format!("Context {context:?} is removed.\n"),
                    false => "Nothing to remove.\n".to_owned(),
                },
            )
        }
    }
}
