//! `minik logs export`: everything that is needed to understand a failure, secrets left out.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::options::{Form, OfCluster};
use super::output::Output;
use cluster::{ClusterError, Docker, find, inspect};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Write logs and state of a cluster into a folder.
    Export(ExportArgs),
}

#[derive(Args)]
pub(super) struct ExportArgs {
    /// The folder; made if it is not there.
    dir: PathBuf,
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

/// Enough for hours of a node's life.
const LINES: usize = 100_000;

/// What is asked of a running node, and the file it goes to. None of it shows keys or tokens.
const QUESTIONS: &[(&str, &str)] = &[
    ("containerd.log", "cat /var/log/containerd.log"),
    ("processes.txt", "cat /proc/loadavg /proc/meminfo; ls -l /proc/[0-9]*/exe 2>/dev/null"),
    ("addresses.txt", "ip address; ip route"),
    ("iptables.txt", "iptables-save"),
    ("nftables.txt", "nft list ruleset"),
    ("mounts.txt", "cat /proc/self/mountinfo; df -k"),
    ("conntrack.txt", "conntrack -S; conntrack -C"),
    ("images.json", "/usr/bin/minik node images list"),
];

pub(super) async fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    let Command::Export(args) = command;
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let summary = find(&docker, args.of.cluster.as_str()).await?;
    let mut files = vec![write(&args.dir, "cluster.json", &serde_json::to_string_pretty(&summary)?)?];
    // A cluster that cannot be read whole is the one whose logs are wanted.
    if let Ok(inspected) = inspect(&docker, &args.of.cluster).await {
        files.push(write(&args.dir, "inspect.json", &serde_json::to_string_pretty(&inspected)?)?);
    }
    let engine = docker.info().await.map_err(ClusterError::from)?;
    files.push(write(&args.dir, "engine.txt", &format!("{engine:#?}\n"))?);
    for node in &summary.nodes {
        let dir = args.dir.join(&node.name);
        let lines = docker.last_lines(&node.name, LINES).await.map_err(ClusterError::from)?;
        files.push(write(&dir, "node.log", &(lines.join("\n") + "\n"))?);
        for (file, script) in QUESTIONS.iter().filter(|_| node.running) {
            let text = match docker.exec(&node.name, &["sh", "-c", script]).await {
                Ok(answer) => format!("{}{}", answer.stdout, answer.stderr),
                Err(error) => format!("{error}\n"),
            };
            files.push(write(&dir, file, &text)?);
        }
    }
    output.result(args.form.output, &json!({"dir": args.dir, "files": files}), || {
        format!("{} files are in {}.\n", files.len(), args.dir.display())
    })
}

fn write(dir: &Path, file: &str, text: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let path = dir.join(file);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
