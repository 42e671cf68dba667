//! `minik node`: single nodes of a cluster; and, hidden, what runs inside a node's container.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::cluster::{changed_text, duration};
use super::completion::nodes;
use super::options::{Form, OfCluster};
use super::output::{self, Output};
use super::progress::reporter;
use super::{Exit, node_faults, node_images};
use cluster::{
    ChangeOptions, ClusterError, ClusterRecord, Cpus, Docker, Memory, NodeSpec, change, find, find_node,
    node_label, node_number, start_node, stop_node, taint,
};
use config::{LbConfig, NodeConfig, RegistryConfig, Role};
use rt::Stop;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add nodes to a cluster and wait until they are Ready.
    Add(AddArgs),
    /// Remove nodes from a cluster, with everything on them.
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
    /// Start nodes that were stopped.
    Start(NamesArgs),
    /// Stop nodes; what is on them is kept.
    Stop(NamesArgs),
    /// Stand nodes still for a time: they are there, and say nothing.
    Pause(node_faults::FaultArgs),
    /// Take nodes' power away for a time: everything on them dies, and starts again afterwards.
    Kill(node_faults::FaultArgs),
    /// Cut nodes off from the network for a time.
    Partition(node_faults::PartitionArgs),
    /// Make nodes' network slow, narrow or lossy for a time.
    Slow(node_faults::SlowArgs),
    /// Mend what is broken on purpose before its time.
    Heal(NamesArgs),
    /// List the nodes of a cluster.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Process 1 of a node: starts `node run`, forwards signals, reaps orphans.
    #[command(hide = true)]
    Init,
    /// The node's role, as the environment variable MINIK_NODE describes it.
    #[command(hide = true)]
    Run,
    /// Images of the node this program runs on.
    #[command(subcommand, hide = true)]
    Images(node_images::Command),
    /// What is broken on purpose of the node this program runs on.
    #[command(subcommand, hide = true)]
    Fault(node_faults::Inside),
    /// The cluster's etcd, of which this node runs a member.
    #[command(subcommand, hide = true)]
    Etcd(Etcd),
}

#[derive(Subcommand)]
pub(super) enum Etcd {
    /// Put the member at an address out.
    Remove { ip: Ipv4Addr },
}

/// What a node that is added is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AddedRole {
    Agent,
    Server,
}

#[derive(Args)]
pub(super) struct AddArgs {
    /// How many.
    #[arg(default_value_t = 1, value_name = "N")]
    count: u32,
    #[command(flatten)]
    of: OfCluster,
    /// What they are; a further server needs a cluster that was made for several.
    #[arg(long, value_enum, default_value_t = AddedRole::Agent)]
    role: AddedRole,
    /// Memory of each, for example 2Gi.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Memory>,
    /// Processors of each, for example 1.5.
    #[arg(long, value_name = "N")]
    cpus: Option<Cpus>,
    /// A label they register with: KEY=VALUE.
    #[arg(long = "label", value_name = "LABEL", value_parser = node_label)]
    labels: Vec<(String, String)>,
    /// A taint they register with: KEY=VALUE:EFFECT.
    #[arg(long = "taint", value_name = "TAINT", value_parser = taint)]
    taints: Vec<String>,
    /// How long they may take to become Ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct NamesArgs {
    /// The nodes, for example agent-0.
    #[arg(required = true, value_name = "NODE", add = nodes())]
    pub(super) nodes: Vec<String>,
    #[command(flatten)]
    pub(super) of: OfCluster,
    #[command(flatten)]
    pub(super) form: Form,
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

/// Runs what belongs inside a container, without a runtime around it: the init may have no threads. `None`: the command
/// is one for the host.
pub(super) fn inside(command: &Command) -> Option<ExitCode> {
    let result = match command {
        Command::Init => sys::init::run(&["node", "run"]).map_err(anyhow::Error::from).map(ExitCode::from),
        Command::Run => {
            sys::memory::bound();
            run_role().map(|()| Exit::Ok.into())
        }
        Command::Images(command) => inside_runtime(node_images::run(command)).map(|()| Exit::Ok.into()),
        Command::Fault(command) => inside_runtime(node_faults::run_inside(command)).map(|()| Exit::Ok.into()),
        Command::Etcd(Etcd::Remove { ip }) => inside_runtime(leave_etcd(*ip)).map(|()| Exit::Ok.into()),
        _ => return None,
    };
    Some(result.unwrap_or_else(|error| {
        output::print_error(&error);
        Exit::Failure.into()
    }))
}

/// A short command: one thread is enough, and is there sooner.
fn inside_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    match command {
        Command::Add(args) => add(&docker, args, output, stop).await,
        Command::Delete(args) => delete(&docker, args, output, stop).await,
        Command::Start(args) => start(&docker, args, output, stop).await,
        Command::Stop(args) => halt(&docker, args, output).await,
        Command::List(args) => list(&docker, &args).await,
        Command::Pause(args) => node_faults::pause(&docker, args, output, stop).await,
        Command::Kill(args) => node_faults::kill(&docker, args, output, stop).await,
        Command::Partition(args) => node_faults::partition(&docker, args, output, stop).await,
        Command::Slow(args) => node_faults::slow(&docker, args, output, stop).await,
        Command::Heal(args) => node_faults::run_heal(&docker, args, output).await,
        Command::Init | Command::Run | Command::Images(_) | Command::Fault(_) | Command::Etcd(_) => Ok(()),
    }
}

async fn add(docker: &Docker, args: AddArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let progress = reporter(output.quiet);
    let options = ChangeOptions {
        timeout: args.timeout,
        dry_run: args.dry_run,
        replace: false,
        ..ChangeOptions::default()
    };
    let grow = |record: &mut ClusterRecord| {
        let spec = &mut record.spec;
        let role = match args.role {
            AddedRole::Agent => Role::Agent,
            AddedRole::Server => Role::Server,
        };
        for number in spec.free_numbers(role, args.count)? {
            spec.nodes.push(NodeSpec {
                memory: args.memory,
                cpus: args.cpus,
                labels: args.labels.iter().cloned().collect(),
                taints: args.taints.clone(),
                ..NodeSpec::numbered(number)
            });
        }
        spec.nodes.sort_by_key(|node| node.number);
        Ok(())
    };
    let changed = change(docker, &args.of.cluster, &options, progress.as_ref(), stop, grow).await?;
    output.result(args.form.output, &changed, || changed_text(&changed, args.dry_run))
}

async fn delete(docker: &Docker, args: NamesArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let progress = reporter(output.quiet);
    let options = ChangeOptions { replace: false, ..ChangeOptions::default() };
    let shrink = |record: &mut ClusterRecord| {
        let spec = &mut record.spec;
        for node in &args.nodes {
            let long = format!("minik-{}-{node}", args.of.cluster);
            let number = node_number(&args.of.cluster, node).or_else(|| node_number(&args.of.cluster, &long));
            let cluster = args.of.cluster.to_string();
            match number {
                None => return Err(ClusterError::NoSuchNode { cluster, node: node.clone() }),
                // One that is gone already is what was asked for.
                Some(number) => spec.nodes.retain(|there| there.number != number),
            }
            if spec.servers().next().is_none() {
                return Err(ClusterError::ServerNode(node.clone()));
            }
        }
        Ok(())
    };
    let changed = change(docker, &args.of.cluster, &options, progress.as_ref(), stop, shrink).await?;
    output.result(args.form.output, &changed, || match changed.steps.as_slice() {
        [] => "Nothing to delete.\n".to_owned(),
        _ => changed_text(&changed, false),
    })
}

async fn start(docker: &Docker, args: NamesArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let mut started = Vec::new();
    for node in &args.nodes {
        let container = find_node(docker, &args.of.cluster, node).await?;
        if !container.running {
            let progress = reporter(output.quiet);
            start_node(docker, &args.of.cluster, &container, progress.as_ref(), stop).await?;
            started.push(container.name);
        }
    }
    say(&args, output, "started", &started)
}

async fn halt(docker: &Docker, args: NamesArgs, output: &Output) -> anyhow::Result<()> {
    let mut stopped = Vec::new();
    for node in &args.nodes {
        if stop_node(docker, &args.of.cluster, node).await? {
            stopped.push(find_node(docker, &args.of.cluster, node).await?.name);
        }
    }
    say(&args, output, "stopped", &stopped)
}

fn say(args: &NamesArgs, output: &Output, what: &str, nodes: &[String]) -> anyhow::Result<()> {
    output.result(
        args.form.output,
        &json!({"cluster": args.of.cluster.as_str(), what: nodes}),
        || match nodes {
            [] => format!("Already {what}.\n"),
            nodes => nodes.iter().map(|node| format!("{node} is {what}.\n")).collect(),
        },
    )
}

async fn list(docker: &Docker, args: &ListArgs) -> anyhow::Result<()> {
    let summary = find(docker, args.of.cluster.as_str()).await?;
    Output::told(args.form.output, &summary.nodes, || {
        let rows: Vec<Vec<String>> = summary
            .nodes
            .iter()
            .map(|node| vec![node.name.clone(), node.role.clone(), node.state.clone(), node.image.clone()])
            .collect();
        output::table(&["NAME", "ROLE", "STATE", "IMAGE"], &rows)
    })
}

fn run_role() -> anyhow::Result<()> {
    log();
    // The TLS library is compiled without a default; a second call would only find it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(role());
    runtime.shutdown_background();
    result
}

/// The role that the environment describes.
async fn role() -> anyhow::Result<()> {
    if let Ok(text) = std::env::var(LbConfig::ENV) {
        let config: LbConfig =
            serde_json::from_str(&text).with_context(|| format!("{} is malformed", LbConfig::ENV))?;
        return roles::run_lb(config).await;
    }
    if let Ok(text) = std::env::var(RegistryConfig::ENV) {
        let config: RegistryConfig =
            serde_json::from_str(&text).with_context(|| format!("{} is malformed", RegistryConfig::ENV))?;
        return roles::run_registry(config).await;
    }
    let text = std::env::var(NodeConfig::ENV).with_context(|| {
        format!("{} is not set: this command runs inside a node's container", NodeConfig::ENV)
    })?;
    let config: NodeConfig =
        serde_json::from_str(&text).with_context(|| format!("{} is malformed", NodeConfig::ENV))?;
    roles::run(config, super::version::BUILD).await
}

/// Asked of a server by the command line: another one is about to go.
async fn leave_etcd(ip: Ipv4Addr) -> anyhow::Result<()> {
    let text = std::env::var(NodeConfig::ENV).with_context(|| format!("{} is not set", NodeConfig::ENV))?;
    roles::etcd::remove(&serde_json::from_str(&text)?, ip).await?;
    output::print("true\n")
}

/// A node's log is its container's: plain lines on standard error, at `info` unless `RUST_LOG` says otherwise.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}
