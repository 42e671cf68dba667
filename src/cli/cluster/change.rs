//! `minik cluster start|stop|restart|inspect|edit`: what is done to a cluster that is there.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::create::even;
use super::{duration, env, name};
use crate::completion::snapshots;
use crate::config::read;
use crate::options::{Form, Named};
use crate::output::{Format, Output, print};
use crate::progress::reporter;
use crate::snapshot::put_back;
use cluster::{
    ChangeOptions, Changed, ClusterError, ClusterName, ClusterRecord, ClusterSpec, Cpus, CreateOptions,
    Docker, Memory, PortMapping, SpecError, change, create, create_registry, find, follow, images, inspect,
    labels, node_numbers, start, stop,
};
use config::kubeconfig;
use rt::Stop;

#[derive(Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    of: Named,
    /// How long the nodes may take to become Ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// Return when the containers run, without waiting until the nodes are Ready.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    of: Named,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    of: Named,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    of: Named,
    /// A host port to add: [IP:]HOST:PORT[/udp][@loadbalancer|server:0|agent:0,1|agent:*].
    #[arg(long, value_name = "MAPPING")]
    port_add: Vec<PortMapping>,
    /// A host port to take away, by the host's port: PORT[/udp].
    #[arg(long, value_name = "PORT", value_parser = host_port)]
    port_delete: Vec<(u16, &'static str)>,
    /// Another size of nodes: SIZE[@NODES]. The nodes are replaced, on their volumes.
    #[arg(long, value_name = "SIZE")]
    node_memory: Option<String>,
    /// Other processors of nodes: N[@NODES]. The nodes are replaced, on their volumes.
    #[arg(long, value_name = "N")]
    node_cpus: Option<String>,
    /// How many servers there are: nodes that run the control plane are added, or taken away. A cluster that was made for one moves
    /// its state into an etcd that the servers share.
    #[arg(long, value_name = "N")]
    servers: Option<u32>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// How long replaced nodes may take to become Ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// The configuration file; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// How long nodes may take to become Ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    of: Named,
    /// The snapshot.
    #[arg(long, value_name = "SNAPSHOT", value_parser = name, add = snapshots())]
    to: ClusterName,
    /// How long the nodes may take to become Ready, for example 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    form: Form,
}

pub(crate) async fn run_reset(args: &ResetArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = docker().await?;
    let options = ChangeOptions {
        timeout: args.timeout,
        kubeconfig: kubeconfig::files(env).ok(),
        rollback: false,
        ..ChangeOptions::default()
    };
    put_back(&docker, (&args.of.name, &args.to), &options, (args.form.output, output), stop).await
}

/// Makes the cluster if it is not there, else changes it.
pub(crate) async fn run_apply(args: ApplyArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let mut wanted = read(&args.file, ClusterName::DEFAULT)?;
    if wanted.docker_login {
        super::create::add_login(&mut wanted.carried).await?;
    }
    let name = wanted.spec.name.clone();
    let docker = docker().await?;
    let progress = reporter(output.quiet);
    let files = kubeconfig::files(env).ok();
    for (name, ip, port) in wanted.registries.iter().filter(|_| !args.dry_run) {
        let image = wanted.spec.image.as_deref();
        create_registry(&docker, name, (*ip, *port), image, progress.as_ref(), stop).await?;
    }
    let changed = match find(&docker, name.as_str()).await {
        Ok(_) => {
            let options = ChangeOptions {
                timeout: args.timeout,
                dry_run: args.dry_run,
                kubeconfig: files,
                ..ChangeOptions::default()
            };
            let edit = |record: &mut ClusterRecord| follow(record, &wanted);
            change(&docker, &name, &options, progress.as_ref(), stop, edit).await?
        }
        Err(ClusterError::NoSuchCluster(_)) => {
            let nodes =
                wanted.spec.nodes.iter().map(|node| format!("create {}", labels::node(&name, node.number)));
            let steps = nodes
                .chain(wanted.spec.ports.iter().map(|port| format!("create host port {port}")))
                .collect();
            if !args.dry_run {
                let options = CreateOptions {
                    timeout: args.timeout,
                    kubeconfig: files,
                    wait: !wanted.spec.brought.cni,
                    survived: true,
                    carried: wanted.carried.clone(),
                    manifests: wanted.manifests.clone(),
                    ..CreateOptions::new(wanted.spec.clone())
                };
                create(&docker, &options, progress.as_ref(), stop).await?;
            }
            Changed { cluster: name.to_string(), steps }
        }
        Err(other) => return Err(other.into()),
    };
    if !args.dry_run && !wanted.images.is_empty() {
        let sources: Vec<_> = wanted.images.iter().map(|text| images::source(text)).collect();
        images::load(&docker, name.as_str(), &sources, progress.as_ref(), stop).await?;
    }
    output.result(args.form.output, &changed, || changed_text(&changed, args.dry_run))
}

/// `PORT[/PROTOCOL]`.
fn host_port(text: &str) -> Result<(u16, &'static str), String> {
    let (port, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), "tcp"),
        Some((port, "udp")) => (port, "udp"),
        Some(_) => return Err("the protocol is tcp or udp".to_owned()),
    };
    port.parse()
        .map(|port| (port, protocol))
        .map_err(|_| "a port of the host is expected, for example 8080".to_owned())
}

/// Connects as every command does.
async fn docker() -> Result<Docker, ClusterError> {
    Ok(Docker::connect().await?)
}

pub(crate) async fn run_start(args: StartArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = docker().await?;
    let changed = start_cluster(&docker, &args, output, stop).await?;
    output.result(args.form.output, &changed, || match changed.steps.as_slice() {
        [] => format!("Cluster {:?} runs already.\n", changed.cluster),
        _ => format!("Cluster {:?} is started.\n", changed.cluster),
    })
}

async fn start_cluster(
    docker: &Docker,
    args: &StartArgs,
    output: &Output,
    stop: &Stop,
) -> Result<Changed, ClusterError> {
    let progress = reporter(output.quiet);
    let options = ChangeOptions {
        timeout: args.timeout,
        wait: !args.no_wait,
        replace: false,
        // What was started stays, as it was there before.
        rollback: false,
        kubeconfig: kubeconfig::files(env).ok(),
        ..ChangeOptions::default()
    };
    start(docker, &args.of.name, &options, progress.as_ref(), stop).await
}

pub(crate) async fn run_stop(args: StopArgs, output: &Output) -> anyhow::Result<()> {
    let docker = docker().await?;
    let progress = reporter(output.quiet);
    let stopped = stop(&docker, &args.of.name, progress.as_ref()).await?;
    let result = json!({"cluster": args.of.name.as_str(), "stopped": stopped});
    output.result(args.form.output, &result, || match stopped.as_slice() {
        [] => format!("Cluster {:?} is stopped already.\n", args.of.name.as_str()),
        _ => format!(
            "Cluster {:?} is stopped. Start it again: minik cluster start {}\n",
            args.of.name.as_str(),
            args.of.name
        ),
    })
}

pub(crate) async fn run_restart(args: StartArgs, output: &Output, cancel: &Stop) -> anyhow::Result<()> {
    let docker = docker().await?;
    let progress = reporter(output.quiet);
    stop(&docker, &args.of.name, progress.as_ref()).await?;
    let changed = start_cluster(&docker, &args, output, cancel).await?;
    output.result(args.form.output, &changed, || format!("Cluster {:?} is started again.\n", changed.cluster))
}

pub(crate) async fn run_inspect(args: &InspectArgs, output: &Output) -> anyhow::Result<()> {
    let docker = docker().await?;
    let found = inspect(&docker, &args.of.name).await?;
    match args.form.output {
        // People read the same data, as YAML.
        Format::Text => print(&serde_yaml::to_string(&found)?),
        format => output.result(format, &found, String::new),
    }
}

pub(crate) async fn run_edit(args: EditArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = docker().await?;
    let progress = reporter(output.quiet);
    let options = ChangeOptions {
        timeout: args.timeout,
        dry_run: args.dry_run,
        kubeconfig: kubeconfig::files(env).ok(),
        ..ChangeOptions::default()
    };
    let edit = |record: &mut ClusterRecord| {
        edit(&mut record.spec, &args)?;
        if let Some(why) = args.servers.and_then(|_| even(&record.spec)) {
            progress.warn(&why);
        }
        Ok(())
    };
    let changed = change(&docker, &args.of.name, &options, progress.as_ref(), stop, edit).await?;
    output.result(args.form.output, &changed, || changed_text(&changed, args.dry_run))
}

/// The steps, as people read them.
pub(crate) fn changed_text(changed: &Changed, dry_run: bool) -> String {
    if changed.steps.is_empty() {
        return format!("Cluster {:?} is as it should be.\n", changed.cluster);
    }
    let lead = if dry_run { "would " } else { "" };
    changed.steps.iter().map(|step| format!("{lead}{step}\n")).collect()
}

fn edit(spec: &mut ClusterSpec, args: &EditArgs) -> Result<(), SpecError> {
    for (port, protocol) in &args.port_delete {
        let before = spec.ports.len();
        spec.ports.retain(|mapping| (mapping.host_port, mapping.protocol.as_str()) != (*port, *protocol));
        if spec.ports.len() == before {
            return Err(SpecError::Port(format!(
                "host port {port}/{protocol} does not lead into this cluster"
            )));
        }
    }
    if let Some(servers) = args.servers {
        spec.set_servers(servers)?;
    }
    // What is there already is what was asked for.
    for mapping in &args.port_add {
        if !spec.ports.contains(mapping) {
            spec.ports.push(mapping.clone());
        }
    }
    resize(spec, args.node_memory.as_deref(), |node, size: Memory| node.memory = Some(size))?;
    resize(spec, args.node_cpus.as_deref(), |node, cpus: Cpus| node.cpus = Some(cpus))
}

fn resize<T: std::str::FromStr<Err = SpecError> + Copy>(
    spec: &mut ClusterSpec,
    text: Option<&str>,
    set: impl Fn(&mut cluster::NodeSpec, T),
) -> Result<(), SpecError> {
    let Some(text) = text else { return Ok(()) };
    let known: Vec<u32> = spec.nodes.iter().map(|node| node.number).collect();
    let (size, numbers) = match text.split_once('@') {
        Some((size, filter)) => (size, node_numbers(filter, &known).map_err(SpecError::Node)?),
        None => (text, known),
    };
    let size = size.parse()?;
    spec.nodes.iter_mut().filter(|node| numbers.contains(&node.number)).for_each(|node| set(node, size));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Call {
        #[command(flatten)]
        args: EditArgs,
    }

    fn edited(arguments: &[&str]) -> Result<ClusterSpec, String> {
        let mut spec = ClusterSpec::new("t".parse().expect("good name"), 3).expect("good");
        spec.ports = vec!["8080:80".parse().expect("good")];
        let call =
            Call::try_parse_from(["edit", "t"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        edit(&mut spec, &call.args).map_err(|error| error.to_string())?;
        Ok(spec)
    }

    #[test]
    fn ports_come_and_go() {
        let ports = |arguments: &[&str]| -> Vec<u16> {
            edited(arguments).expect("good").ports.iter().map(|mapping| mapping.host_port).collect()
        };
        assert_eq!(ports(&["--port-add", "9090:90"]), [8080, 9090]);
        assert_eq!(ports(&["--port-add", "8080:80"]), [8080]);
        assert_eq!(ports(&["--port-delete", "8080", "--port-add", "8080:81"]), [8080]);
        assert!(edited(&["--port-delete", "8080/udp"]).expect_err("refused").contains("does not lead"));
        assert!(edited(&["--port-delete", "x"]).is_err());
    }

    #[test]
    fn sizes_are_of_all_nodes_or_of_some() {
        let spec = edited(&["--node-memory", "1Gi@agent:1", "--node-cpus", "2"]).expect("good");
        assert_eq!(spec.nodes[0].memory, None);
        assert_eq!(spec.nodes[2].memory, "1Gi".parse().ok());
        assert!(spec.nodes.iter().all(|node| node.cpus == "2".parse().ok()));
        assert!(edited(&["--node-memory", "1Gi@agent"]).is_ok());
        assert!(edited(&["--node-memory", "much"]).is_err());
    }
}
