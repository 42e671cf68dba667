//! `minik cluster`: clusters made, listed, changed and removed.

mod change;
mod create;

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, Output};
use super::progress::reporter;
use crate::completion::clusters;
use crate::options::Form;
pub(super) use change::changed_text;
use cluster::{ClusterError, ClusterName, ClusterSummary, Docker, Phases, SpecError, delete, list};
use config::kubeconfig;
pub(super) use create::{api_port, created_data};
use rt::{Clock, Stop, SystemClock};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a cluster and wait until every node is Ready.
    Create(Box<create::CreateArgs>),
    /// Remove a cluster and everything that belongs to it.
    Delete(DeleteArgs),
    /// List clusters.
    #[command(visible_alias = "ls")]
    List(Form),
    /// Start a cluster that was stopped; does nothing to one that runs.
    Start(change::StartArgs),
    /// Stop a cluster; everything in it is kept.
    Stop(change::StopArgs),
    /// Stop a cluster and start it again.
    Restart(change::StartArgs),
    /// Put a cluster back to a snapshot of it; what was made since is gone.
    Reset(change::ResetArgs),
    /// Show a cluster's specification and what there is of it.
    Inspect(change::InspectArgs),
    /// Change a cluster while it runs: host ports and sizes of nodes.
    Edit(change::EditArgs),
    /// Make a cluster follow a configuration file, or make it.
    Apply(change::ApplyArgs),
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    /// The clusters to remove.
    #[arg(value_parser = name, conflicts_with = "all", add = clusters())]
    names: Vec<ClusterName>,
    /// Remove every cluster.
    #[arg(short, long)]
    all: bool,
    /// Wait until standard input ends: for who may not live to do it.
    #[arg(long, hide = true)]
    after_input_ends: bool,
    #[command(flatten)]
    form: Form,
}

/// How long the engine may be at work for a command that was killed.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// A cluster name in an argument.
pub(super) fn name(text: &str) -> Result<ClusterName, SpecError> {
    text.parse()
}

/// `90`, `90s`, `5m`, `1h`: seconds without a unit; never zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a number with s, m or h is expected".to_owned()),
    };
    match digits.parse::<u32>() {
        Ok(n) if n > 0 => Ok(Duration::from_secs(u64::from(n) * unit)),
        _ => Err("a positive number with s, m or h is expected".to_owned()),
    }
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create::run(*args, output, stop).await,
        Command::Delete(args) => run_delete(args, output).await,
        Command::List(form) => run_list(&form).await,
        Command::Start(args) => change::run_start(args, output, stop).await,
        Command::Stop(args) => change::run_stop(args, output).await,
        Command::Restart(args) => change::run_restart(args, output, stop).await,
        Command::Reset(args) => change::run_reset(&args, output, stop).await,
        Command::Inspect(args) => change::run_inspect(&args, output).await,
        Command::Edit(args) => change::run_edit(args, output, stop).await,
        Command::Apply(args) => change::run_apply(args, output, stop).await,
    }
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<String>,
}

async fn run_delete(args: DeleteArgs, output: &Output) -> anyhow::Result<()> {
    if args.after_input_ends {
        // What went wrong with the input ends it as well.
        let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
    }
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    if args.after_input_ends {
        // What the one before had asked for may still come into being: nothing tells when the engine is through with it.
        for name in &args.names {
            delete(&docker, name.as_str(), None).await?;
        }
        tokio::time::sleep(STRAGGLERS).await;
    }
    let names: Vec<String> = if args.all {
        list(&docker).await?.into_iter().map(|cluster| cluster.name).collect()
    } else if args.names.is_empty() {
        vec![ClusterName::DEFAULT.to_owned()]
    } else {
        args.names.iter().map(ToString::to_string).collect()
    };
    // Without a place for a kubeconfig there is none to clean.
    let files = kubeconfig::files(env).ok();
    let progress = reporter(output.quiet);
    let phases = Phases::new(progress.as_ref());
    let work = names.iter().map(|name| {
        let label = format!("deleting {name}");
        let (phases, docker, files) = (&phases, &docker, files.as_deref());
        async move { (name.clone(), phases.run(&label, delete(docker, name, files)).await) }
    });
    let mut deleted = Vec::new();
    let mut error = None;
    for (name, result) in futures::future::join_all(work).await {
        match result {
            Ok(true) => deleted.push(name),
            Ok(false) => {}
            Err(why) => error = Some(why),
        }
    }
    output.result(args.form.output, &Deleted { deleted: deleted.clone() }, || match deleted.as_slice() {
        [] => "Nothing to delete.\n".to_owned(),
        names => names.iter().map(|name| format!("Cluster {name:?} is deleted.\n")).collect(),
    })?;
    error.map_or(Ok(()), |error| Err(error.into()))
}

async fn run_list(form: &Form) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let clusters = list(&docker).await?;
    let now = SystemClock.now();
    Output::told(form.output, &clusters, || match clusters.as_slice() {
        [] => "No clusters. Make one: minik cluster create\n".to_owned(),
        clusters => {
            let rows: Vec<Vec<String>> = clusters.iter().map(|cluster| row(cluster, now)).collect();
            output::table(&["NAME", "STATUS", "NODES", "SERVER", "VERSION", "AGE"], &rows)
        }
    })
}

fn row(cluster: &ClusterSummary, now: Timestamp) -> Vec<String> {
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        cluster.name.clone(),
        cluster.status.to_owned(),
        format!("{}/{}", cluster.running(), cluster.nodes.len()),
        dash(&cluster.server),
        dash(&cluster.version),
        if cluster.nodes.is_empty() { "-".to_owned() } else { age(now.as_second() - cluster.created) },
    ]
}

/// Seconds as kubectl writes ages.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 120 => format!("{s}s"),
        s if s < 7200 => format!("{}m", s / 60),
        s if s < 172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// An environment variable.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), expect, "{text}")
        };
        check("90", Some(90));
        check("90s", Some(90));
        check("5m", Some(300));
        check("1h", Some(3600));
        for bad in ["", "0", "-1", "m", "5 m", "5x", "1.5s"] {
            check(bad, None);
        }
    }

    #[test]
    fn ages_are_short() {
        let ages: Vec<String> = [5, 119, 120, 7300, 200_000].into_iter().map(age).collect();
        assert_eq!(ages, ["5s", "119s", "2m", "2h", "2d"]);
    }
}
