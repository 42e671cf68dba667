//! `minik man`, hidden: the manual pages, for who packages minik.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder to write them to; made if it is not there.
    dir: PathBuf,
}

/// Writes a page for every command that people see.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let writing = || format!("writing to {}", args.dir.display());
    std::fs::create_dir_all(&args.dir).with_context(writing)?;
    clap_mangen::generate_to(super::Cli::command(), &args.dir).with_context(writing)
}
