//! `minik completion`: words, and the names of what there is at the moment.
//!
//! The script that a shell reads asks this very program at every Tab (`COMPLETE=bash minik -- ...`), so it knows the
//! clusters, nodes and images of that moment, and never grows old.

use std::time::Duration;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use super::output::print;
use cluster::snapshots::list_snapshots;
use cluster::{ClusterError, ClusterName, Docker, list, list_registries};

/// The variable by which the script asks.
const VARIABLE: &str = "COMPLETE";
/// A shell does not wait longer than this for an engine that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell: `source <(minik completion bash)`.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell.to_string()).context("no completion for this shell")?;
    shell.write_registration(VARIABLE, "minik", "minik", "minik", &mut script)?;
    print(&String::from_utf8(script)?)
}

/// Answers a shell that asks, and ends the program; does nothing when none does.
pub(super) fn answer() {
    CompleteEnv::with_factory(super::Cli::command).var(VARIABLE).bin("minik").complete();
}

/// Names of clusters.
pub(super) fn clusters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| ask(async |docker| Ok(cluster_names(&docker).await?)))
}

/// Short names of the nodes of the cluster that the line names.
pub(super) fn nodes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |docker| {
            let cluster = cluster_on_line(std::env::args());
            let prefix = format!("minik-{cluster}-");
            let all = list(&docker).await?;
            let of = all.into_iter().filter(|found| found.name == cluster).flat_map(|found| found.nodes);
            Ok(of.map(|node| node.name.trim_start_matches(&prefix).to_owned()).collect())
        })
    })
}

/// Names of registries.
pub(super) fn registries() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |docker| Ok(list_registries(&docker).await?.into_iter().map(|found| found.name).collect()))
    })
}

/// Names of snapshots.
pub(super) fn snapshots() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |docker| Ok(list_snapshots(&docker).await?.into_iter().map(|found| found.name).collect()))
    })
}

/// Names of backups.
pub(super) fn backups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let found = super::backup::folder().ok().and_then(|backups| backups.list().ok()).unwrap_or_default();
        found.into_iter().map(|found| CompletionCandidate::new(found.name)).collect()
    })
}

/// Names of the images in Docker.
pub(super) fn images() -> ArgValueCandidates {
    ArgValueCandidates::new(|| ask(async |docker| Ok(docker.image_names().await?)))
}

async fn cluster_names(docker: &Docker) -> Result<Vec<String>, ClusterError> {
    Ok(list(docker).await?.into_iter().map(|cluster| cluster.name).collect())
}

/// What a question to the engine answers; nothing when it cannot be asked: a shell has no place for errors.
fn ask(question: impl AsyncFn(Docker) -> Result<Vec<String>, ClusterError>) -> Vec<CompletionCandidate> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let asked = async { question(Docker::connect().await?).await };
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    let names = answer.ok().and_then(Result::ok).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The cluster that `--cluster` or `-c` names on the line so far.
fn cluster_on_line(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    let named = words.iter().enumerate().rev().find_map(|(at, word)| match word.as_str() {
        "--cluster" | "-c" => words.get(at + 1).filter(|next| !next.is_empty()).cloned(),
        word => word.strip_prefix("--cluster=").map(ToOwned::to_owned),
    });
    named.unwrap_or_else(|| ClusterName::DEFAULT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_which_cluster() {
        let check = |line: &str, expect: &str| {
            assert_eq!(cluster_on_line(line.split(' ').map(ToOwned::to_owned)), expect, "{line}");
        };
        check("minik node stop ", "default");
        check("minik node stop --cluster dev ", "dev");
        check("minik node stop -c dev agent-0", "dev");
        check("minik node --cluster=dev stop ", "dev");
        check("minik node stop --cluster ", "default");
    }
}
