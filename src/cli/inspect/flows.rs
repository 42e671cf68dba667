//! `minik inspect flows`: what a Pod talks to, as the kernel of its node tells.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::drops::Drops;
use crate::options::OfCluster;
use crate::output::{Format, Output};
use cluster::{ClusterError, Docker, access_of, client};
use rt::Stop;

/// Tells of tracked connections, and of what becomes of first packets from and to the address `$0`, until its standard
/// input ends. `nft` writes lines in pieces; what comes out is whole. Where the kernel has no nftables, nothing is told of
/// packets that are dropped.
const FOLLOW: &str = r#"table=minik-flows-$$
mark="ct state new meta nftrace set 1"
nft -f - 2>/dev/null <<END
table ip $table {
 chain prerouting { type filter hook prerouting priority -150; ip saddr $0 $mark; ip daddr $0 $mark; }
 chain output { type filter hook output priority -150; ip daddr $0 $mark; }
}
END
lines=/run/$table
mkfifo $lines
conntrack -E -o timestamp 2>/dev/null & tracker=$!
stdbuf -oL nft monitor trace >$lines 2>/dev/null & tracer=$!
grep --line-buffered . <$lines &
cat >/dev/null
kill $tracker $tracer
rm $lines
nft delete table ip $table 2>/dev/null"#;

#[derive(Args)]
pub(crate) struct FlowsArgs {
    /// The Pod's name.
    #[arg(long)]
    pod: String,
    /// The Pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    of: OfCluster,
    /// Form of each line.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One event of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flow {
    /// Seconds since 1970.
    pub time: String,
    /// `NEW`, `UPDATE` or `DESTROY` of a connection; `DROP` of what will be none.
    pub event: String,
    pub protocol: String,
    /// The state that TCP and SCTP have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    pub from: End,
    pub to: End,
    /// Who answers, where that is somebody else: an endpoint of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<End>,
    /// Why nobody gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The Pod or Service that has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name.as_ref().unwrap_or(&self.address))?;
        self.port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, event, protocol, from, to, .. } = self;
        write!(f, "{time} {event:<7} {protocol:<4} {from} -> {to}")?;
        if let Some(by) = &self.by {
            write!(f, " => {by}")?;
        }
        if let Some(why) = &self.why {
            write!(f, " ({why})")?;
        }
        self.state.as_ref().map_or(Ok(()), |state| write!(f, " {state}"))
    }
}

/// Reads a line of the tracker; None where it is of another form.
fn parse(line: &str, names: &BTreeMap<String, String>) -> Option<Flow> {
    let mut words = line.split_whitespace();
    let time = words.next()?.strip_prefix('[')?.trim_end_matches(']').to_owned();
    let event = words.next()?.trim_matches(['[', ']']).to_owned();
    let protocol = words.next()?.to_owned();
    let rest: Vec<&str> = words.collect();
    let state = rest.iter().find(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let all = |key: &str| {
        let values = rest.iter().filter_map(|word| word.split_once('=')).filter(|(name, _)| *name == key);
        values.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    let (sources, targets) = (all("src"), all("dst"));
    let (source_ports, target_ports) = (all("sport"), all("dport"));
    let end = |address: &String, port: Option<&String>| End {
        address: address.clone(),
        port: port.cloned(),
        name: names.get(address).cloned(),
    };
    let to = end(targets.first()?, target_ports.first());
    let by = sources.get(1).map(|answering| end(answering, source_ports.get(1)));
    Some(Flow {
        time,
        event,
        protocol,
        state: state.map(|state| (*state).to_owned()),
        from: end(sources.first()?, source_ports.first()),
        by: by.filter(|by| (&by.address, &by.port) != (&to.address, &to.port)),
        to,
        why: None,
    })
}

fn concerns(flow: &Flow, ip: &str) -> bool {
    [Some(&flow.from), Some(&flow.to), flow.by.as_ref()].into_iter().flatten().any(|end| end.address == ip)
}

/// Who has which address now.
async fn names(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let all = ListParams::default();
    let mut names = BTreeMap::new();
    let full = |namespace: Option<String>, name: String| format!("{}/{name}", namespace.unwrap_or_default());
    for service in Api::<Service>::all(client.clone()).list(&all).await? {
        let ips = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten()).cloned();
        let named = full(service.namespace(), service.name_any());
        names.extend(ips.map(|ip| (ip, format!("service/{named}"))));
    }
    for pod in Api::<Pod>::all(client.clone()).list(&all).await? {
        // Pods on the node's own network share its address.
        let own = pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true));
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).filter(|_| own);
        names.extend(ip.map(|ip| (ip, format!("pod/{}", full(pod.namespace(), pod.name_any())))));
    }
    Ok(names)
}

/// The time as the tracker tells it.
fn now() -> String {
    let now = Timestamp::now();
    format!("{}.{:06}", now.as_second(), now.subsec_microsecond())
}

/// Tells until it is interrupted.
pub(super) async fn run(args: FlowsArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let access = access_of(&docker, args.of.cluster.as_str()).await?;
    let client = client(&access)?;
    let FlowsArgs { pod, namespace, .. } = &args;
    let found =
        Api::<Pod>::namespaced(client.clone(), namespace).get_opt(pod).await.context("asking for the Pod")?;
    let Some(found) = found else {
        bail!("there is no Pod {pod} in namespace {namespace}; `kubectl get pods -A` lists all");
    };
    let ip = found.status.as_ref().and_then(|status| status.pod_ip.clone());
    let node = found.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let (Some(ip), Some(node)) = (ip, node) else { bail!("Pod {namespace}/{pod} has no address yet") };
    let names = names(&client).await?;
    let lines = docker.exec_lines(&node, &["sh", "-c", FOLLOW, &ip]).await.map_err(ClusterError::from)?;
    let mut lines = pin!(lines);
    let mut drops = Drops::default();
    while let Some(Some(line)) = stop.run_until_cancelled(lines.next()).await {
        let line = line.map_err(ClusterError::from)?;
        let now = now();
        let told = drops.read(&line, &names, &now).or_else(|| parse(&line, &names));
        if let Some(flow) = told.filter(|flow| concerns(flow, &ip)) {
            output.result(args.output, &flow, || format!("{flow}\n"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tracker_are_read() {
        let names = BTreeMap::from([("10.43.0.9".to_owned(), "service/shop/web".to_owned())]);
        let check = |line: &str, expect: &str| {
            let flow = parse(line, &names);
            assert_eq!(flow.map(|flow| flow.to_string()).as_deref(), Some(expect), "{line}");
        };
        check(
            "[1700000000.123456]\t    [NEW] tcp      6 120 SYN_SENT src=10.42.0.7 dst=10.43.0.9 sport=50000 dport=80 [UNREPLIED] src=10.42.1.2 dst=10.42.0.7 sport=8080 dport=50000",
            "1700000000.123456 NEW     tcp  10.42.0.7:50000 -> service/shop/web:80 => 10.42.1.2:8080 SYN_SENT",
        );
        check(
            "[1700000000.2]\t[DESTROY] udp      17 src=10.42.0.7 dst=10.42.0.9 sport=5 dport=53 src=10.42.0.9 dst=10.42.0.7 sport=53 dport=5",
            "1700000000.2 DESTROY udp  10.42.0.7:5 -> 10.42.0.9:53",
        );
        let icmp = parse(
            "[1.0] [NEW] icmp 1 30 src=10.42.0.7 dst=10.0.0.1 type=8 code=0 id=1 src=10.0.0.1 dst=10.42.0.7 type=0",
            &names,
        );
        assert!(icmp.is_some_and(|flow| concerns(&flow, "10.0.0.1") && !concerns(&flow, "10.0.0.2")));
        assert_eq!(parse("nonsense", &names), None);
    }
}
