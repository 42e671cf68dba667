//! Options that several commands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::cluster::{duration, env, name};
use super::completion::clusters;
use super::output::{Format, Output};
use cluster::{ClusterError, ClusterName};
use config::kubeconfig;

/// The cluster that a command is about, as an option.
#[derive(Args)]
pub(super) struct OfCluster {
    /// The cluster's name.
    #[arg(short, long, default_value = ClusterName::DEFAULT, value_parser = name, add = clusters())]
    pub(super) cluster: ClusterName,
}

/// The cluster that a command is about, as its argument.
#[derive(Args)]
pub(super) struct Named {
    /// The cluster's name.
    #[arg(default_value = ClusterName::DEFAULT, value_parser = name, add = clusters())]
    pub(super) name: ClusterName,
}

/// How a command tells its result.
#[derive(Args)]
pub(super) struct Form {
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Where what was kept of a cluster goes.
#[derive(Args)]
pub(super) struct Destination {
    /// The cluster: the one it is of, which is what it is without this, or the name of a new one.
    #[arg(short, long, value_parser = name, add = clusters())]
    cluster: Option<ClusterName>,
    /// How long the nodes may take to become Ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    pub(super) timeout: Duration,
    /// Leave the kubeconfig alone.
    #[arg(long)]
    no_kubeconfig: bool,
    #[command(flatten)]
    pub(super) form: Form,
}

impl Destination {
    /// The cluster, where what was kept is of the cluster `of`.
    pub(super) fn cluster(&self, of: &str) -> Result<ClusterName, ClusterError> {
        Ok(self.cluster.clone().map_or_else(|| of.parse(), Ok)?)
    }

    /// The kubeconfig files that tell of it.
    pub(super) fn kubeconfig(&self) -> Option<Vec<PathBuf>> {
        if self.no_kubeconfig { None } else { kubeconfig::files(env).ok() }
    }
}

/// Says what was removed, each a `what`.
pub(super) fn told_deleted(
    (output, form): (&Output, &Form),
    what: &str,
    names: &[String],
) -> anyhow::Result<()> {
    output.result(form.output, &json!({"deleted": names}), || match names {
        [] => "Nothing to delete.\n".to_owned(),
        names => names.iter().map(|name| format!("{what} {name:?} is deleted.\n")).collect(),
    })
}
