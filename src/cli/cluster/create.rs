//! `minik cluster create`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use ipnet::Ipv4Net;
use serde_json::json;

use super::{duration, env, name};
use crate::config::read;
use crate::options::Form;
use crate::output::Output;
use crate::progress::{human, reporter};
use cluster::file::{ClusterFile, certificates};
use cluster::{
    Carried, ClusterError, ClusterName, ClusterSpec, Cpus, CreateOptions, Created, Docker, HostAlias, Memory,
    NodeSpec, PortMapping, SpecError, create, create_registry, host_credentials, images, labels, node_label,
    node_numbers, taint,
};
use config::{Datastore, Feature, kubeconfig};
use rt::Stop;

#[derive(Args)]
pub(crate) struct CreateArgs {
    /// The cluster's name.
    #[arg(value_parser = name)]
    name: Option<ClusterName>,
    /// How many nodes, servers included.
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    nodes: Option<i64>,
    /// How many of the nodes run the control plane. Several keep the state in an etcd that they run; three go on when one is lost,
    /// five when two are. Without --nodes there are no others.
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    servers: Option<i64>,
    /// Begin with a configuration file (- for standard input); what is said here goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make the nodes from this image instead of the one minik builds.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Memory of each node, for example 2Gi.
    #[arg(long, value_name = "SIZE")]
    node_memory: Option<Memory>,
    /// Processors of each node, for example 1.5.
    #[arg(long, value_name = "N")]
    node_cpus: Option<Cpus>,
    /// A host port that leads into the cluster: [IP:]HOST:PORT[/udp][@loadbalancer|server:*|agent:0,1|agent:*].
    #[arg(short, long = "port", value_name = "MAPPING")]
    ports: Vec<PortMapping>,
    /// A folder of the host in the nodes: SOURCE:TARGET[:ro][@NODES].
    #[arg(short, long = "volume", value_name = "MOUNT")]
    volumes: Vec<String>,
    /// An environment variable of the nodes' containers: KEY=VALUE[@NODES].
    #[arg(short, long = "env", value_name = "VARIABLE")]
    env: Vec<String>,
    /// A label the nodes register with: KEY=VALUE[@NODES].
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// A taint the nodes register with: KEY=VALUE:EFFECT[@NODES].
    #[arg(long = "taint", value_name = "TAINT")]
    taints: Vec<String>,
    /// The API's port on the host, with the address to listen on if it is another than 127.0.0.1: [IP:]PORT.
    #[arg(long, value_name = "PORT", value_parser = api_port)]
    api_port: Option<(Option<Ipv4Addr>, u16)>,
    /// Bring your own network plugin: nodes are Ready once it has put its configuration into /etc/cni/net.d.
    #[arg(long)]
    no_cni: bool,
    /// Bring your own service proxy, such as kube-proxy.
    #[arg(long)]
    no_proxy: bool,
    /// A further name or address that the API server's certificate vouches for.
    #[arg(long = "tls-san", value_name = "NAME")]
    tls_sans: Vec<String>,
    /// Use this Docker network instead of one of the cluster's own.
    #[arg(long, value_name = "NAME", conflicts_with = "subnet")]
    network: Option<String>,
    /// The range of the cluster's own network, for example 172.30.0.0/23.
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Ipv4Net>,
    /// The range of Pods' addresses.
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Option<Ipv4Net>,
    /// The range of Services' addresses.
    #[arg(long, value_name = "CIDR")]
    service_cidr: Option<Ipv4Net>,
    /// A name for a host outside, in Pods and on nodes: NAME=ADDRESS.
    #[arg(long = "host-alias", value_name = "ALIAS")]
    host_aliases: Vec<HostAlias>,
    /// Leave something out of the cluster: ingress, load-balancer or network-policy.
    #[arg(long, value_name = "FEATURE")]
    disable: Vec<Feature>,
    /// Keep the cluster's state in this etcd, which must be its alone and empty: http://HOST:PORT or https://HOST:PORT, once
    /// for each member. The state stays when the cluster is deleted.
    #[arg(long = "datastore-endpoint", value_name = "URL")]
    datastore_endpoints: Vec<String>,
    /// The certificate of the authority that signed the etcd's.
    #[arg(long, value_name = "FILE", requires = "datastore_endpoints")]
    datastore_authority: Option<PathBuf>,
    /// The certificate that the server shows to the etcd.
    #[arg(long, value_name = "FILE", requires = "datastore_key")]
    datastore_certificate: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, value_name = "FILE", requires = "datastore_certificate")]
    datastore_key: Option<PathBuf>,
    /// Objects to apply when the cluster is ready, as YAML.
    #[arg(long = "manifest", value_name = "FILE")]
    manifests: Vec<PathBuf>,
    /// A certificate of an authority that nodes trust, or the word host for those added to this machine's.
    #[arg(long = "certificate", value_name = "FILE")]
    certificates: Vec<String>,
    /// Let nodes pull with what `docker login` left on this machine.
    #[arg(long)]
    docker_login: bool,
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
    #[command(flatten)]
    form: Form,
}

pub(crate) async fn run(args: CreateArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let start = Instant::now();
    let file = match &args.config {
        Some(path) => Some(read(path, args.name.as_ref().map_or(ClusterName::DEFAULT, ClusterName::as_str))?),
        None => None,
    };
    let spec =
        specification(&args, file.as_ref().map(|file| file.spec.clone())).map_err(ClusterError::from)?;
    let (extras, to_load) = extras(&args, file, &spec).await?;
    let files = match args.no_kubeconfig {
        true => None,
        false => Some(kubeconfig::files(env).map_err(ClusterError::from)?),
    };
    let options = CreateOptions {
        timeout: args.timeout,
        rollback: !args.no_rollback,
        kubeconfig: files,
        switch: !args.no_switch,
        // Nodes without a network plugin are not Ready, and somebody has to reach the cluster to install one.
        wait: !args.no_wait && !spec.brought.cni,
        survived: true,
        carried: extras.carried,
        manifests: extras.manifests,
        ..CreateOptions::new(spec)
    };
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let progress = reporter(output.quiet);
    if let Some(why) = even(&options.spec) {
        progress.warn(&why);
    }
    for (name, ip, port) in &extras.registries {
        create_registry(&docker, name, (*ip, *port), args.image.as_deref(), progress.as_ref(), stop).await?;
    }
    let created = create(&docker, &options, progress.as_ref(), stop).await?;
    if !to_load.is_empty() {
        let sources: Vec<_> = to_load.iter().map(|text| images::source(text)).collect();
        images::load(&docker, options.spec.name.as_str(), &sources, progress.as_ref(), stop).await?;
    }
    output.result(args.form.output, &created_data(&options.spec, &created, start.elapsed()), || {
        created_text(&options, &created, start.elapsed())
    })
}

/// What is wrong with an even number of servers.
pub(super) fn even(spec: &ClusterSpec) -> Option<String> {
    let servers = spec.servers().count();
    servers.is_multiple_of(2).then(|| {
        format!(
            "{servers} servers can lose no more of them than {} can, as most of them must agree: {} are better",
            servers - 1,
            servers + 1
        )
    })
}

pub(crate) fn created_data(spec: &ClusterSpec, created: &Created, took: Duration) -> serde_json::Value {
    let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let nodes: Vec<_> = created
        .plan
        .nodes()
        .map(|node| json!({"name": node.name, "role": node.role, "ip": node.ip}))
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
        "network": {
            "name": created.plan.containers.first().map(|container| container.network.as_str()),
            "subnet": created.plan.network.as_ref().map(|network| network.subnet.net()),
        },
        "nodes": nodes,
        "ports": spec.ports,
        "phases": phases,
        "milliseconds": milliseconds(&took),
    })
}

fn created_text(options: &CreateOptions, created: &Created, took: Duration) -> String {
    let name = &options.spec.name;
    let state = if options.wait { "is ready" } else { "is starting" };
    let count = options.spec.nodes.len();
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    let mut text = format!("Cluster {name:?} {state}: {nodes}, {}.\n", human(took), name = name.as_str());
    text.push_str(&match (&created.kubeconfig, options.switch) {
        (Some(_), true) => "Try: kubectl get nodes\n".to_owned(),
        (Some(_), false) => format!("Try: kubectl --context {} get nodes\n", labels::context(name.as_str())),
        (None, _) => format!("Its kubeconfig: minik kubeconfig get {name}\n"),
    });
    text
}

/// What comes with a cluster and is no part of its specification: from the file, with what the arguments add to it.
async fn extras(
    args: &CreateArgs,
    file: Option<ClusterFile>,
    spec: &ClusterSpec,
) -> Result<(ClusterFile, Vec<String>), ClusterError> {
    let mut extras = file.unwrap_or_else(|| ClusterFile::of(spec.clone()));
    for path in &args.manifests {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ClusterError::File { path: path.clone(), source })?;
        extras.manifests.push((path.display().to_string(), text));
    }
    for path in &args.certificates {
        let bad = |why| ClusterError::BadFile { path: path.into(), why };
        extras.carried.authorities.extend(certificates(path, Path::new(".")).map_err(bad)?);
    }
    if extras.docker_login || args.docker_login {
        add_login(&mut extras.carried).await?;
    }
    let images = std::mem::take(&mut extras.images);
    Ok((extras, images))
}

/// Lets nodes pull with what `docker login` left here; what the file says of a registry goes before it.
pub(crate) async fn add_login(carried: &mut Carried) -> Result<(), ClusterError> {
    for (registry, auth) in host_credentials(env).await? {
        carried.credentials.entry(registry).or_insert(auth);
    }
    Ok(())
}

/// The specification that the file and the arguments say. Fails with the first that is wrong.
fn specification(args: &CreateArgs, file: Option<ClusterSpec>) -> Result<ClusterSpec, SpecError> {
    let given = args.name.clone();
    let number = |given: Option<i64>| given.map(|n| u32::try_from(n.max(0)).unwrap_or(u32::MAX));
    let (nodes, servers) = (number(args.nodes), number(args.servers));
    let mut spec = match file {
        None => {
            let name = given.clone().map_or_else(|| ClusterName::DEFAULT.parse(), Ok)?;
            let servers = servers.unwrap_or(1);
            ClusterSpec::with_servers(name, nodes.unwrap_or(servers), servers)?
        }
        Some(spec) if nodes.is_none() && servers.is_none() => spec,
        Some(mut spec) => {
            let there = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let (all, of_file) = (there(spec.nodes.len()), there(spec.servers().count()));
            let servers = servers.unwrap_or(of_file);
            // The file's agents stay, whatever is said of servers alone.
            let nodes = nodes.unwrap_or_else(|| servers.saturating_add(all - of_file));
            let fresh = ClusterSpec::with_servers(spec.name.clone(), nodes, servers)?;
            // The file's nodes first, then more like the last one of their role.
            let old = std::mem::take(&mut spec.nodes);
            let like = |node: &NodeSpec| old.iter().rfind(|old| old.role() == node.role());
            let settings = |node: &NodeSpec| {
                let own = old.iter().find(|old| old.number == node.number);
                own.or_else(|| like(node)).cloned().unwrap_or_default()
            };
            spec.nodes = fresh.nodes.iter().map(|n| NodeSpec { number: n.number, ..settings(n) }).collect();
            spec.several = fresh.several;
            spec
        }
    };
    if let Some(name) = given {
        spec.name = name;
    }
    if args.image.is_some() {
        spec.image = args.image.clone();
    }
    spec.ports.extend(args.ports.iter().cloned());
    spec.brought.cni |= args.no_cni;
    spec.brought.proxy |= args.no_proxy;
    if let Some((address, port)) = args.api_port {
        (spec.api_address, spec.api_port) = (address, Some(port));
    }
    surroundings(args, &mut spec);
    if !args.datastore_endpoints.is_empty() {
        let datastore = Datastore::read(
            args.datastore_endpoints.clone(),
            args.datastore_authority.as_deref(),
            args.datastore_certificate.as_deref(),
            args.datastore_key.as_deref(),
        );
        spec.datastore = Some(datastore.map_err(SpecError::Address)?);
    }
    for node in &mut spec.nodes {
        node.memory = args.node_memory.or(node.memory);
        node.cpus = args.node_cpus.or(node.cpus);
    }
    filtered(&args.volumes, &mut spec, |node, text| {
        node.mounts.push(text.parse()?);
        Ok(())
    })?;
    filtered(&args.env, &mut spec, |node, text| match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => {
            node.env.push(text.to_owned());
            Ok(())
        }
        _ => Err(SpecError::Node(format!("invalid variable {text:?}: KEY=VALUE is expected"))),
    })?;
    filtered(&args.labels, &mut spec, |node, text| {
        let (key, value) = node_label(text)?;
        node.labels.insert(key, value);
        Ok(())
    })?;
    filtered(&args.taints, &mut spec, |node, text| {
        node.taints.push(taint(text)?);
        Ok(())
    })?;
    spec.validate()?;
    Ok(spec)
}

/// Addresses and names, where the arguments say them.
fn surroundings(args: &CreateArgs, spec: &mut ClusterSpec) {
    let addresses = &mut spec.addresses;
    addresses.network = args.network.clone().or(addresses.network.take());
    addresses.subnet = args.subnet.or(addresses.subnet);
    addresses.pods = args.pod_cidr.or(addresses.pods);
    addresses.services = args.service_cidr.or(addresses.services);
    spec.host_aliases.extend(args.host_aliases.iter().map(|alias| (alias.name.clone(), alias.address)));
    spec.disabled.extend(args.disable.iter().copied());
    spec.tls_sans.extend(args.tls_sans.iter().cloned());
}

/// Applies each `VALUE[@NODES]` to the nodes its filter names, or to all.
fn filtered(
    values: &[String],
    spec: &mut ClusterSpec,
    set: impl Fn(&mut NodeSpec, &str) -> Result<(), SpecError>,
) -> Result<(), SpecError> {
    let known: Vec<u32> = spec.nodes.iter().map(|node| node.number).collect();
    for value in values {
        let (text, numbers) = match value.rsplit_once('@') {
            Some((text, filter)) if node_numbers(filter, &known).is_ok() || !filter.contains(['=', '/']) => {
                let numbers = node_numbers(filter, &known)
                    .map_err(|why| SpecError::Node(format!("invalid value {value:?}: {why}")))?;
                (text, numbers)
            }
            _ => (value.as_str(), known.clone()),
        };
        if let Some(missing) = numbers.iter().find(|number| !known.contains(number)) {
            let why = format!("{value:?} is for node number {missing}, which is not there");
            return Err(SpecError::Node(why));
        }
        for node in spec.nodes.iter_mut().filter(|node| numbers.contains(&node.number)) {
            set(node, text)?;
        }
    }
    Ok(())
}

/// `[IP:]PORT`.
pub(crate) fn api_port(text: &str) -> Result<(Option<Ipv4Addr>, u16), String> {
    let wrong = || format!("invalid port {text:?}: [IP:]PORT is expected, for example 6443 or 0.0.0.0:6443");
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) => (Some(address.parse().map_err(|_| wrong())?), port),
        None => (None, text),
    };
    match port.parse() {
        Ok(port) if port > 0 => Ok((address, port)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Call {
        #[command(flatten)]
        args: CreateArgs,
    }

    fn spec(arguments: &[&str]) -> Result<ClusterSpec, String> {
        let words = ["create", "t", "--nodes", "3"].iter().chain(arguments);
        let call = Call::try_parse_from(words).map_err(|error| error.to_string())?;
        specification(&call.args, None).map_err(|error| error.to_string())
    }

    #[test]
    fn filters_choose_nodes() {
        let spec = spec(&[
            "--env",
            "A=1@agent:0",
            "--label",
            "zone=a@server:0;agent:1",
            "--volume",
            "/a:/b:ro@agent:*",
            "--taint",
            "only=me:NoSchedule@agent:1",
            "--env",
            "MAIL=me@example.com/x",
        ])
        .expect("good");
        let [server, first, second] = spec.nodes.as_slice() else { panic!("{spec:?}") };
        assert_eq!(server.env, ["MAIL=me@example.com/x"]);
        assert_eq!(first.env, ["A=1", "MAIL=me@example.com/x"]);
        assert!(server.labels.contains_key("zone") && !first.labels.contains_key("zone"));
        assert_eq!((server.mounts.len(), first.mounts.len(), second.mounts.len()), (0, 1, 1));
        assert_eq!(second.taints, ["only=me:NoSchedule"]);
    }

    #[test]
    fn arguments_go_before_the_file() {
        let mut file = ClusterSpec::new("file".parse().expect("good name"), 2).expect("good");
        file.nodes[1].memory = "1Gi".parse().ok();
        file.ports = vec!["80:80".parse().expect("good")];
        let read = |words: &[&str]| {
            let call = Call::try_parse_from(["create"].iter().chain(words)).expect("a call");
            specification(&call.args, Some(file.clone())).expect("good")
        };
        assert_eq!(read(&[]), file);
        let more = read(&["mine", "--nodes", "3", "--node-cpus", "2", "--port", "81:81"]);
        assert_eq!((more.name.as_str(), more.nodes.len(), more.ports.len()), ("mine", 3, 2));
        assert!(more.nodes[0].memory.is_none() && more.nodes[2].memory == "1Gi".parse().ok());
        assert!(more.nodes.iter().all(|node| node.cpus == "2".parse().ok()));
    }

    #[test]
    fn wrong_values_are_said() {
        let check = |arguments: &[&str], part: &str| {
            let said = spec(arguments).expect_err("refused");
            assert!(said.contains(part), "{arguments:?}: {said}");
        };
        check(&["--env", "A=1@agent:7"], "not there");
        check(&["--env", "A@agent:0"], "KEY=VALUE");
        check(&["--label", "a b=c"], "label");
        check(&["--taint", "a=b:Never"], "NoSchedule");
        check(&["--volume", "a:/b"], "absolute path");
        check(&["--port", "80:80", "--port", "80:81"], "asked for twice");
        check(&["--port", "80:80@agent:5"], "not there");
        check(&["--api-port", "0"], "[IP:]PORT");
        check(&["--node-memory", "1"], "at least 128Mi");
        check(&["--node-cpus", "x"], "at least 0.1");
        check(&["--servers", "0"], "0 servers among 3 nodes");
        check(&["--servers", "4"], "4 servers among 3 nodes");
    }

    #[test]
    fn servers_are_some_of_the_nodes() {
        let read = |words: &[&str], file: Option<ClusterSpec>| {
            let call = Call::try_parse_from(["create"].iter().chain(words)).expect("a call");
            specification(&call.args, file).expect("good")
        };
        let count = |spec: &ClusterSpec| (spec.nodes.len(), spec.servers().count(), spec.several);
        assert_eq!(count(&read(&["--servers", "3", "--nodes", "5"], None)), (5, 3, true));
        assert_eq!(count(&read(&["--servers", "3"], None)), (3, 3, true));
        assert_eq!(count(&read(&["--nodes", "2"], None)), (2, 1, false));
        let mut file = ClusterSpec::with_servers("f".parse().expect("good name"), 4, 3).expect("good");
        file.nodes[3].memory = "1Gi".parse().ok();
        assert_eq!(count(&read(&[], Some(file.clone()))), (4, 3, true));
        let more = read(&["--servers", "5"], Some(file.clone()));
        assert_eq!(count(&more), (6, 5, true));
        assert_eq!(more.nodes[5].memory, file.nodes[3].memory);
        assert_eq!(count(&read(&["--servers", "1", "--nodes", "2"], Some(file))), (2, 1, false));
        assert!(even(&read(&["--servers", "2"], None)).is_some_and(|why| why.contains("3 are better")));
        assert_eq!(even(&more), None);
    }

    #[test]
    fn the_api_s_port_may_have_an_address() {
        assert_eq!(api_port("6443"), Ok((None, 6443)));
        assert_eq!(api_port("0.0.0.0:6443"), Ok((Some(Ipv4Addr::UNSPECIFIED), 6443)));
    }
}
