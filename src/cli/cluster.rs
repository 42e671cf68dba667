use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::output::{self, Format, Output};
use super::progress::{human, reporter};
use crate::cluster::{
    ClusterName, ClusterSpec, ClusterSummary, CreateOptions, Created, Docker, Phases, SpecError, create,
    delete, labels, list,
};
use crate::config::kubeconfig;
use crate::rt::{Clock, Stop, SystemClock};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a cluster and wait until every node is Ready.
    Create(CreateArgs),
    /// Remove a cluster and everything that belongs to it.
    Delete(DeleteArgs),
    /// List clusters.
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

#[derive(Args)]
pub(super) struct CreateArgs {
    /// The cluster's name.
    #[arg(default_value = ClusterName::DEFAULT, value_parser = name)]
    name: ClusterName,
    /// How many nodes; the first runs the control plane.
    #[arg(short, long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    nodes: i64,
    /// Make the nodes from this image instead of the one minik builds.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How long the cluster may take to become ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// Leave the remains when something fails, to look into them.
    #[arg(long)]
    no_rollback: bool,
    /// Return when the containers run, without waiting until the nodes are Ready.
    #[arg(long)]
    no_wait: bool,
    /// Leave the kubeconfig alone.
    #[arg(long)]
    no_kubeconfig: bool,
    /// Add the context to the kubeconfig, but do not make it the current one.
    #[arg(long)]
    no_switch: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    /// The clusters to remove.
    #[arg(value_parser = name, conflicts_with = "all")]
    names: Vec<ClusterName>,
    /// Remove every cluster.
    #[arg(short, long)]
    all: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A cluster name in an argument.
pub(super) fn name(text: &str) -> Result<ClusterName, SpecError> {
    text.parse()
}

/// `90`, `90s`, `5m`, `1h`: seconds without a unit; never zero.
fn duration(text: &str) -> Result<Duration, String> {
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
        Command::Create(args) => run_create(args, output, stop).await,
        Command::Delete(args) => run_delete(args, output).await,
        Command::List(args) => run_list(&args, output).await,
    }
}

async fn run_create(args: CreateArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let start = Instant::now();
    let nodes = u32::try_from(args.nodes.max(0)).unwrap_or(u32::MAX);
    let mut spec = ClusterSpec::new(args.name, nodes).map_err(crate::cluster::ClusterError::from)?;
    spec.image = args.image;
    spec.timeout = args.timeout;
    spec.rollback = !args.no_rollback;
    let files = match args.no_kubeconfig {
        true => None,
        false => Some(kubeconfig::files(env).map_err(crate::cluster::ClusterError::from)?),
    };
    let options = CreateOptions { spec, kubeconfig: files, switch: !args.no_switch, wait: !args.no_wait };
    let docker = Docker::connect().await.map_err(crate::cluster::ClusterError::from)?;
    let progress = reporter(output.quiet);
    let created = create(&docker, &options, progress.as_ref(), stop).await?;
    output.result(args.output, &created_data(&options.spec, &created, start.elapsed()), || {
        created_text(&options, &created, start.elapsed())
    })
}

fn created_data(spec: &ClusterSpec, created: &Created, took: Duration) -> serde_json::Value {
    let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let nodes: Vec<_> = created
        .plan
        .nodes
        .iter()
        .map(|node| json!({"name": node.name, "role": crate::cluster::plan::role_name(node.role), "ip": node.ip}))
        .collect();
    let phases: Vec<_> = created
        .phases
        .iter()
        .map(|(name, time)| json!({"name": name, "milliseconds": milliseconds(time)}))
        .collect();
    json!({
        "name": spec.name.as_str(),
        "server": created.plan.api_url,
        "context": labels::context(spec.name.as_str()),
        "kubeconfig": created.kubeconfig,
        "network": {"name": created.plan.network.name, "subnet": created.plan.network.subnet.net()},
        "nodes": nodes,
        "phases": phases,
        "milliseconds": milliseconds(&took),
    })
}

fn created_text(options: &CreateOptions, created: &Created, took: Duration) -> String {
    let name = &options.spec.name;
    let state = if options.wait { "is ready" } else { "is starting" };
    let count = options.spec.nodes;
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    let mut text = format!("Cluster {name:?} {state}: {nodes}, {}.\n", human(took), name = name.as_str());
    text.push_str(&match (&created.kubeconfig, options.switch) {
        (Some(_), true) => "Try: kubectl get nodes\n".to_owned(),
        (Some(_), false) => format!("Try: kubectl --context {} get nodes\n", labels::context(name.as_str())),
        (None, _) => format!("Its kubeconfig: minik kubeconfig get {name}\n"),
    });
    text
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<String>,
}

async fn run_delete(args: DeleteArgs, output: &Output) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(crate::cluster::ClusterError::from)?;
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
    output.result(args.output, &Deleted { deleted: deleted.clone() }, || match deleted.as_slice() {
        [] => "Nothing to delete.\n".to_owned(),
        names => names.iter().map(|name| format!("Cluster {name:?} is deleted.\n")).collect(),
    })?;
    error.map_or(Ok(()), |error| Err(error.into()))
}

async fn run_list(args: &ListArgs, output: &Output) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(crate::cluster::ClusterError::from)?;
    let clusters = list(&docker).await?;
    let now = SystemClock.now();
    // A list is the result itself: asking for quiet does not take it away.
    let output = Output { quiet: output.quiet && args.output != Format::Text };
    output.result(args.output, &clusters, || match clusters.as_slice() {
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
