//! `minik config`: the configuration file of a cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::cluster::env;
use super::output::{Format, Output, print, warn};
use cluster::file::{ClusterFile, FileError, Surroundings, migrate, parse, schema};
use cluster::{ClusterError, ClusterName};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print an example to begin with.
    Init(InitArgs),
    /// Read a file and show the specification it means.
    View(ViewArgs),
    /// Say a file for k3d or kind in minik's own form, and what of it means nothing here.
    Migrate(MigrateArgs),
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
pub(super) struct MigrateArgs {
    /// The file; - for standard input.
    file: PathBuf,
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
        Command::Migrate(args) => {
            let (text, notes) = with_text(&args.file, ClusterName::DEFAULT, migrate)?;
            notes.iter().for_each(|note| warn(note));
            print(&text)
        }
        Command::Schema => print(&format!("{}\n", serde_json::to_string_pretty(&schema())?)),
    }
}

/// Reads a configuration file, and says what of it means nothing here. Fails with what is wrong with it.
pub(super) fn read(path: &Path, name: &str) -> Result<ClusterFile, ClusterError> {
    let file = with_text(path, name, parse)?;
    file.notes.iter().for_each(|note| warn(note));
    Ok(file)
}

fn with_text<T>(
    path: &Path,
    name: &str,
    work: impl Fn(&str, &Surroundings<'_>) -> Result<T, FileError>,
) -> Result<T, ClusterError> {
    let unreadable = |source| ClusterError::File { path: path.to_owned(), source };
    let (text, dir) = match path.to_str() {
        Some("-") => {
            (std::io::read_to_string(std::io::stdin()).map_err(unreadable)?, std::env::current_dir())
        }
        _ => {
            // What the file names is beside it, wherever this program was called.
            let whole = std::path::absolute(path).map_err(unreadable)?;
            let dir = whole.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
            (std::fs::read_to_string(path).map_err(unreadable)?, Ok(dir))
        }
    };
    let around = Surroundings { dir: &dir.map_err(unreadable)?, name, get: &env };
    work(&text, &around).map_err(|why| ClusterError::BadFile { path: path.to_owned(), why })
}
