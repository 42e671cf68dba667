//! `minik config`: the configuration file of a cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::cluster::env;
use super::output::{Format, Output, print};
use crate::cluster::file::{ClusterFile, parse, schema};
use crate::cluster::{ClusterError, ClusterName};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print an example to begin with.
    Init(InitArgs),
    /// Read a file and show the specification it means.
    View(ViewArgs),
    /// Print the JSON Schema of the file.
    Schema,
}

#[derive(Args)]
pub(super) struct InitArgs {
    /// Which example.
    #[arg(value_enum, default_value_t)]
    example: Example,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Example {
    /// One node.
    #[default]
    Single,
    /// A server and two agents.
    ThreeNodes,
    /// For continuous integration.
    Ci,
    /// For a workshop.
    Workshop,
}

#[derive(Args)]
pub(super) struct ViewArgs {
    /// The file; - for standard input.
    file: PathBuf,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

pub(super) fn run(command: &Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => print(match args.example {
            Example::Single => include_str!("../../templates/clusters/single.yaml"),
            Example::ThreeNodes => include_str!("../../templates/clusters/three-nodes.yaml"),
            Example::Ci => include_str!("../../templates/clusters/ci.yaml"),
            Example::Workshop => include_str!("../../templates/clusters/workshop.yaml"),
        }),
        Command::View(args) => {
            let file = read(&args.file, ClusterName::DEFAULT)?;
            output.result(args.output, &file.spec, || {
                format!("{}: {} node(s)\n", file.spec.name, file.spec.nodes.len())
            })
        }
        Command::Schema => print(&format!("{}\n", serde_json::to_string_pretty(&schema())?)),
    }
}

/// Reads a configuration file. Fails with what is wrong with it.
pub(super) fn read(path: &Path, name: &str) -> Result<ClusterFile, ClusterError> {
    let unreadable = |source| ClusterError::File { path: path.to_owned(), source };
    let text = match path.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()).map_err(unreadable)?,
        _ => std::fs::read_to_string(path).map_err(unreadable)?,
    };
    parse(&text, name, env).map_err(|why| ClusterError::BadFile { path: path.to_owned(), why })
}
