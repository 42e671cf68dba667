//! `minik snapshot`: what clusters were, kept, put back, and made into new clusters.

use clap::{Args, Subcommand};
use serde_json::json;

use super::cluster::{changed_text, name};
use super::completion::snapshots;
use super::options::{Destination, Form, OfCluster, told_deleted};
use super::output::{self, Format, Output};
use super::progress::reporter;
use cluster::snapshots::{delete_snapshot, fork, list_snapshots, reset, save};
use cluster::{ChangeOptions, ClusterError, ClusterName, ClusterSpec, CreateOptions, Docker};
use rt::Stop;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Keep what a cluster is at this moment: objects, volumes and images. It stands still meanwhile.
    Save(SaveArgs),
    /// List snapshots.
    #[command(visible_alias = "ls")]
    List(Form),
    /// Put a cluster back to a snapshot of it, or make a new one from a snapshot.
    Restore(RestoreArgs),
    /// Remove snapshots.
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
}

#[derive(Args)]
pub(super) struct SaveArgs {
    /// What to call the snapshot.
    #[arg(value_parser = name)]
    snapshot: ClusterName,
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct NamesArgs {
    /// The snapshots.
    #[arg(required = true, value_parser = name, value_name = "SNAPSHOT", add = snapshots())]
    names: Vec<ClusterName>,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct RestoreArgs {
    /// The snapshot.
    #[arg(value_parser = name, value_name = "SNAPSHOT", add = snapshots())]
    snapshot: ClusterName,
    #[command(flatten)]
    to: Destination,
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let progress = reporter(output.quiet);
    match command {
        Command::Save(args) => {
            let saved = save(&docker, &args.of.cluster, &args.snapshot, progress.as_ref(), stop).await?;
            output.result(args.form.output, &saved, || {
                let (name, of) = (&saved.name, &saved.cluster);
                format!("Snapshot {name:?} is kept. Go back to it: minik cluster reset {of} --to {name}\n")
            })
        }
        Command::List(form) => list(&docker, &form).await,
        Command::Delete(args) => {
            let mut deleted = Vec::new();
            for name in &args.names {
                if delete_snapshot(&docker, name).await? {
                    deleted.push(name.to_string());
                }
            }
            told_deleted((output, &args.form), "Snapshot", &deleted)
        }
        Command::Restore(args) => restore(&docker, &args, output, stop).await,
    }
}

async fn list(docker: &Docker, form: &Form) -> anyhow::Result<()> {
    let found = list_snapshots(docker).await?;
    Output::told(form.output, &found, || match found.as_slice() {
        [] => "No snapshots. Keep one: minik snapshot save NAME\n".to_owned(),
        found => {
            let row = |s: &cluster::snapshots::SnapshotInfo| {
                vec![s.name.clone(), s.cluster.clone(), s.created.clone()]
            };
            output::table(&["NAME", "CLUSTER", "CREATED"], &found.iter().map(row).collect::<Vec<_>>())
        }
    })
}

/// Back to where it was, if the snapshot is of this cluster; else a new cluster.
async fn restore(docker: &Docker, args: &RestoreArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let known = list_snapshots(docker).await?;
    let found = known.iter().find(|snapshot| snapshot.name == args.snapshot.as_str());
    let of = &found.ok_or_else(|| ClusterError::NoSuchSnapshot(args.snapshot.to_string()))?.cluster;
    let (cluster, files, timeout) = (args.to.cluster(of)?, args.to.kubeconfig(), args.to.timeout);
    let form = args.to.form.output;
    let there = cluster::find(docker, cluster.as_str()).await;
    if there.is_ok() {
        let options = ChangeOptions { timeout, kubeconfig: files, rollback: false, ..Default::default() };
        return put_back(docker, (&cluster, &args.snapshot), &options, (form, output), stop).await;
    }
    let spec = ClusterSpec::new(cluster, 1).map_err(ClusterError::from)?;
    let options = CreateOptions { timeout, kubeconfig: files, ..CreateOptions::new(spec) };
    let progress = reporter(output.quiet);
    let made = fork(docker, &args.snapshot, &options, progress.as_ref(), stop).await?;
    let nodes: Vec<&str> = made.plan.nodes().map(|node| node.name.as_str()).collect();
    let data = json!({"cluster": options.spec.name.as_str(), "server": made.plan.api_url, "nodes": nodes});
    output.result(form, &data, || {
        format!(
            "Cluster {:?} is what {:?} was: {} node(s) Ready.\n",
            options.spec.name.as_str(),
            args.snapshot.as_str(),
            nodes.len()
        )
    })
}

pub(super) async fn put_back(
    docker: &Docker,
    (cluster, snapshot): (&ClusterName, &ClusterName),
    options: &ChangeOptions,
    (format, output): (Format, &Output),
    stop: &Stop,
) -> anyhow::Result<()> {
    let progress = reporter(output.quiet);
    let changed = reset(docker, cluster, snapshot, options, progress.as_ref(), stop).await?;
    output.result(format, &changed, || {
        let lead = format!("Cluster {:?} is again what {:?} was.\n", cluster.as_str(), snapshot.as_str());
        format!("{lead}{}", changed_text(&changed, false))
    })
}
