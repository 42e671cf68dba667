//! Options that several commands have.

use clap::Args;

use super::cluster::name;
use super::completion::clusters;
use super::output::Format;
use cluster::ClusterName;

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
