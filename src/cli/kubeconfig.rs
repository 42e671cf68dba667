use clap::{Args, Subcommand};
use serde_json::json;

use super::cluster::{env, name};
use super::output::{Format, Output, print};
use crate::cluster::{ClusterError, ClusterName, Docker, access_of};
use crate::config::kubeconfig;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print a cluster's kubeconfig.
    Get(GetArgs),
    /// Put a cluster into the kubeconfig that kubectl uses.
    Merge(MergeArgs),
}

#[derive(Args)]
pub(super) struct GetArgs {
    /// The cluster's name.
    #[arg(default_value = ClusterName::DEFAULT, value_parser = name)]
    name: ClusterName,
}

#[derive(Args)]
pub(super) struct MergeArgs {
    /// The cluster's name.
    #[arg(default_value = ClusterName::DEFAULT, value_parser = name)]
    name: ClusterName,
    /// Do not make it the current context.
    #[arg(long)]
    no_switch: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    match command {
        Command::Get(args) => {
            let access = access_of(&docker, args.name.as_str()).await?;
            print(&kubeconfig::standalone(&access.entry()).map_err(ClusterError::from)?)
        }
        Command::Merge(args) => {
            let access = access_of(&docker, args.name.as_str()).await?;
            let files = kubeconfig::files(env).map_err(ClusterError::from)?;
            let entry = access.entry();
            let path = kubeconfig::merge(&files, &entry, !args.no_switch).map_err(ClusterError::from)?;
            output.result(args.output, &json!({"kubeconfig": path, "context": entry.name}), || {
                format!("Context {:?} is in {}.\n", entry.name, path.display())
            })
        }
    }
}
