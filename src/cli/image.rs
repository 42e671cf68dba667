use std::path::Path;

use clap::{Args, Subcommand};

use super::cluster::name;
use super::output::{Format, Output};
use super::progress::reporter;
use crate::cluster::{ClusterError, ClusterName, Docker, ImageSource, load};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Copy images from Docker, or from archives made by `docker save`, to every node.
    Load(LoadArgs),
}

#[derive(Args)]
pub(super) struct LoadArgs {
    /// Images by name, or archives by path (what ends in .tar, or holds a / and is a file).
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The cluster's name.
    #[arg(short, long, default_value = ClusterName::DEFAULT, value_parser = name)]
    cluster: ClusterName,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What an argument means: an archive by its ending or because it is a file, else an image by name.
fn source(text: &str) -> ImageSource {
    let path = Path::new(text);
    let archive = text.ends_with(".tar") || (text.contains('/') && path.is_file());
    if archive { ImageSource::Archive(path.to_owned()) } else { ImageSource::Docker(text.to_owned()) }
}

pub(super) async fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    let Command::Load(args) = command;
    let sources: Vec<ImageSource> = args.images.iter().map(|text| source(text)).collect();
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let progress = reporter(output.quiet);
    let loaded = load(&docker, args.cluster.as_str(), &sources, progress.as_ref()).await?;
    output.result(args.output, &loaded, || {
        let nodes = loaded.nodes.len();
        loaded.images.iter().map(|image| format!("{image} is on {nodes} node(s).\n")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_names() {
        assert_eq!(source("redis:6.0"), ImageSource::Docker("redis:6.0".to_owned()));
        assert_eq!(source("me/app"), ImageSource::Docker("me/app".to_owned()));
        assert_eq!(source("app.tar"), ImageSource::Archive("app.tar".into()));
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(source(here), ImageSource::Archive(here.into()));
    }
}
