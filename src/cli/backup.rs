//! `minik backup`: the objects of clusters in files, put back and made into new clusters.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::cluster::{changed_text, created_data, env, name};
use super::completion::backups;
use super::options::{Destination, Form, OfCluster, told_deleted};
use super::output::{self, Output};
use super::progress::reporter;
use cluster::backups::{BackupInfo, Backups, restore, restore_new, save};
use cluster::{ChangeOptions, ClusterError, ClusterName, ClusterSpec, CreateOptions, Docker};
use rt::Stop;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Keep the objects of a cluster as they are at this moment, in a file. The cluster runs on.
    Save(SaveArgs),
    /// List backups.
    #[command(visible_alias = "ls")]
    List(Form),
    /// Put the objects of a backup back, or make a new cluster with them.
    Restore(RestoreArgs),
    /// Remove backups.
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
}

#[derive(Args)]
pub(super) struct SaveArgs {
    /// What to call the backup.
    #[arg(value_parser = name)]
    backup: ClusterName,
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct NamesArgs {
    /// The backups.
    #[arg(required = true, value_parser = name, value_name = "BACKUP", add = backups())]
    names: Vec<ClusterName>,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct RestoreArgs {
    /// The backup.
    #[arg(value_parser = name, value_name = "BACKUP", add = backups())]
    backup: ClusterName,
    #[command(flatten)]
    to: Destination,
}

/// Where this user's backups are.
pub(super) fn folder() -> anyhow::Result<Backups> {
    Backups::of_user(env)
        .ok_or_else(|| anyhow!("no place for backups: neither XDG_DATA_HOME nor HOME is set"))
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let backups = folder()?;
    match command {
        Command::Save(args) => {
            let docker = Docker::connect().await.map_err(ClusterError::from)?;
            let saved = save(&docker, &args.of.cluster, &args.backup, &backups).await?;
            output.result(args.form.output, &saved, || {
                let BackupInfo { name, objects, path, .. } = &saved;
                format!("Backup {name:?} has {objects} objects: {}\n", path.display())
            })
        }
        Command::List(form) => {
            let found = backups.list().map_err(ClusterError::from)?;
            Output::told(form.output, &found, || table(&found))
        }
        Command::Delete(args) => {
            let mut deleted = Vec::new();
            for name in &args.names {
                if backups.delete(name).map_err(ClusterError::from)? {
                    deleted.push(name.to_string());
                }
            }
            told_deleted((output, &args.form), "Backup", &deleted)
        }
        Command::Restore(args) => put_back(&backups, args, output, stop).await,
    }
}

fn table(found: &[BackupInfo]) -> String {
    if found.is_empty() {
        return "No backups. Keep one: minik backup save NAME\n".to_owned();
    }
    let row = |b: &BackupInfo| {
        let path = b.path.display().to_string();
        vec![b.name.clone(), b.cluster.clone(), b.created.clone(), b.objects.to_string(), path]
    };
    output::table(
        &["NAME", "CLUSTER", "CREATED", "OBJECTS", "FILE"],
        &found.iter().map(row).collect::<Vec<_>>(),
    )
}

/// Into the cluster, if it is there; else into a new one.
async fn put_back(backups: &Backups, args: RestoreArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let name = &args.backup;
    let of = backups.info(name).map_err(ClusterError::from)?.cluster;
    let (cluster, files, timeout) = (args.to.cluster(&of)?, args.to.kubeconfig(), args.to.timeout);
    let form = args.to.form.output;
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let progress = reporter(output.quiet);
    match cluster::find(&docker, cluster.as_str()).await {
        Ok(_) => {
            let options = ChangeOptions { timeout, kubeconfig: files, rollback: false, ..Default::default() };
            let of = (backups, name);
            let changed = restore(&docker, &cluster, of, &options, progress.as_ref(), stop).await?;
            output.result(form, &changed, || {
                let lead =
                    format!("Cluster {:?} has the objects of {:?}.\n", cluster.as_str(), name.as_str());
                format!("{lead}{}", changed_text(&changed, false))
            })
        }
        Err(ClusterError::NoSuchCluster(_)) => {
            let start = std::time::Instant::now();
            let spec = ClusterSpec::new(cluster, 1).map_err(ClusterError::from)?;
            let options = CreateOptions {
                timeout,
                kubeconfig: files,
                survived: true,
                ..CreateOptions::new(spec.clone())
            };
            let made = restore_new(&docker, (backups, name), options, progress.as_ref(), stop).await?;
            let data = created_data(&spec, &made, start.elapsed());
            output.result(form, &data, || {
                let (nodes, cluster) = (made.plan.nodes().count(), spec.name.as_str());
                format!(
                    "Cluster {cluster:?} has the objects of {:?}: {nodes} node(s) Ready.\n",
                    name.as_str()
                )
            })
        }
        Err(other) => Err(other.into()),
    }
}
