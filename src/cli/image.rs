//! `minik image`: images on the nodes of a cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::completion;
use super::options::{Form, OfCluster};
use super::output::{self, Format, Output};
use super::progress::reporter;
use cluster::images::{self, NodeImage};
use cluster::{ClusterError, Docker, node_image};
use rt::Stop;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Bring images from Docker, or from archives, to every node.
    Load(NamesArgs),
    /// List the images on the nodes.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Have every node fetch images from their registries.
    Pull(NamesArgs),
    /// Remove images from every node, and from the store all clusters share.
    #[command(visible_alias = "rm")]
    Remove(NamesArgs),
    /// Remove the images that no container uses.
    Prune(PruneArgs),
    /// The image that nodes are made from.
    #[command(subcommand)]
    Node(NodeCommand),
}

#[derive(Subcommand)]
pub(super) enum NodeCommand {
    /// Make it, if it is not there.
    Build,
    /// Write it to a file, for another machine or a cache.
    Save {
        /// The file.
        file: PathBuf,
    },
    /// Take it from a file.
    Load {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct NamesArgs {
    /// Images by name; for `load` also archives by path (what ends in .tar, or holds a / and is a file), or - for
    /// standard input.
    #[arg(required = true, value_name = "IMAGE", add = completion::images())]
    images: Vec<String>,
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    of: OfCluster,
    /// When there is no cluster any more: remove the store that all clusters share as well.
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    match command {
        Command::Load(args) => load(&docker, &args, output, stop).await,
        Command::List(args) => list(&docker, &args).await,
        Command::Pull(args) => {
            let pulled = images::pull(&docker, &args.of.cluster, &args.images, stop).await?;
            output.result(args.form.output, &pulled, || lines(&pulled, "is on every node"))
        }
        Command::Remove(args) => {
            let removed = images::remove(&docker, &args.of.cluster, &args.images).await?;
            output.result(args.form.output, &removed, || match removed.as_slice() {
                [] => "Nothing to remove.\n".to_owned(),
                removed => lines(removed, "is removed"),
            })
        }
        Command::Node(command) => {
            let progress = reporter(output.quiet);
            let said = match command {
                NodeCommand::Build => node_image::build(&docker, progress.as_ref(), stop).await?,
                NodeCommand::Save { file } => {
                    node_image::save(&docker, &file, progress.as_ref(), stop).await?
                }
                NodeCommand::Load { file } => {
                    let loaded = stop.run_until_cancelled(node_image::load(&docker, &file)).await;
                    loaded.ok_or(ClusterError::Interrupted)??
                }
            };
            output.result(Format::Text, &said, || format!("{said}\n"))
        }
        Command::Prune(args) => {
            let pruned = images::prune(&docker, &args.of.cluster, args.all).await?;
            output.result(args.form.output, &pruned, || {
                let count: usize = pruned.images.values().map(Vec::len).sum();
                format!(
                    "{count} image(s) are removed from nodes; {} are freed in the store.\n",
                    size(pruned.freed)
                )
            })
        }
    }
}

fn lines(names: &[String], what: &str) -> String {
    names.iter().map(|name| format!("{name} {what}.\n")).collect()
}

async fn load(docker: &Docker, args: &NamesArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let sources: Vec<images::ImageSource> = args.images.iter().map(|text| images::source(text)).collect();
    let progress = reporter(output.quiet);
    let loaded = images::load(docker, args.of.cluster.as_str(), &sources, progress.as_ref(), stop).await?;
    output.result(args.form.output, &loaded, || {
        let nodes = loaded.nodes.len();
        loaded.images.iter().map(|image| format!("{image} is on {nodes} node(s).\n")).collect()
    })
}

async fn list(docker: &Docker, args: &ListArgs) -> anyhow::Result<()> {
    let found = images::list_images(docker, &args.of.cluster).await?;
    Output::told(args.form.output, &found, || {
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        output::table(&["IMAGE", "ID", "SIZE", "NODES"], &rows)
    })
}

fn row(image: &NodeImage) -> Vec<String> {
    let id = image.id.trim_start_matches("sha256:").chars().take(12).collect();
    vec![image.name.clone(), id, size(image.size), image.nodes.len().to_string()]
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [5, 1_500, 378_000_000, 1_250_000_000].map(size);
        assert_eq!(sizes, ["5 B", "1 kB", "378 MB", "1.2 GB"]);
    }
}
