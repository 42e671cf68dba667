//! `minik inspect`: what would happen in a cluster, and why.

mod drops;
mod flows;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use super::output::{Output, table};
use crate::options::{Form, OfCluster};
use client::typed::SERVICE_NAME;
use cluster::{ClusterError, Docker, access_of, client};
use node::network::{Kind, Node, Service, ServiceKey, Slice, View};
use node::policy::{self, Member, Observed};
use node::proxy::{Finding, inspect};
use rt::Stop;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Where packets for a Service go, on each node, and why.
    Service(ServiceArgs),
    /// What a Pod talks to, connection by connection, until interrupted.
    Flows(flows::FlowsArgs),
}

#[derive(Args)]
pub(super) struct ServiceArgs {
    /// The Service's name.
    service: String,
    /// The Service's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

/// What is known of an endpoint.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointReport {
    address: String,
    node: String,
    state: &'static str,
    /// Network policies that say who may reach it.
    isolated_by: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    service: String,
    notes: Vec<String>,
    endpoints: BTreeSet<EndpointReport>,
    packets: Vec<Finding>,
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    match command {
        Command::Service(args) => service(args, output).await,
        Command::Flows(args) => flows::run(args, output, stop).await,
    }
}

async fn service(args: ServiceArgs, output: &Output) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    let access = access_of(&docker, args.of.cluster.as_str()).await?;
    let report = of_service(&client(&access)?, &args.namespace, &args.service).await?;
    output.result(args.form.output, &report, || text(&report))
}

async fn of_service(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Report> {
    let namespaced = || Api::<core::Service>::namespaced(client.clone(), namespace);
    let Some(object) = namespaced().get_opt(name).await.context("asking for the Service")? else {
        bail!("there is no Service {name} in namespace {namespace}; `kubectl get services -A` lists all");
    };
    let service = Service::from_api(&object);
    let (all, of_service) =
        (ListParams::default(), ListParams::default().labels(&format!("{SERVICE_NAME}={name}")));
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&of_service).await?;
    let nodes = Api::<core::Node>::all(client.clone()).list(&all).await?;
    let mut view = View::default();
    view.replace_nodes(nodes.iter().map(Node::from_api).collect());
    view.replace_slices(slices.iter().filter_map(Slice::from_api).collect());
    let mut observed = Observed {
        policies: Api::<NetworkPolicy>::namespaced(client.clone(), namespace)
            .list(&all)
            .await?
            .into_iter()
            .map(Into::into)
            .collect(),
        ..Observed::default()
    };
    let pods = Api::<core::Pod>::namespaced(client.clone(), namespace).list(&all).await?;
    observed.pods.extend(pods.iter().filter_map(|pod| {
        let mut member = Member::of(pod, "", None)?;
        // Which node judges does not matter to who is isolated.
        member.local = true;
        Some(member)
    }));
    view.put_service(service.clone());
    let isolated = policy::plan(&observed).ingress;
    let endpoints =
        endpoints(&view, &service.key, |ip| isolated.get(&ip).into_iter().flatten().cloned().collect());
    let packets = inspect(&view, &service.key, pod_network(&view));
    let notes = notes(&service, &view, &endpoints);
    Ok(Report { service: service.key.to_string(), notes, endpoints, packets })
}

/// The smallest network that holds every node's Pods.
fn pod_network(view: &View) -> Ipv4Net {
    let mut nodes = view.nodes().filter_map(|node| node.pod_cidr);
    let first = nodes.next().unwrap_or_default();
    nodes.fold(first, |mut all, cidr| {
        while !all.contains(&cidr) {
            match all.supernet() {
                Some(wider) => all = wider,
                None => break,
            }
        }
        all
    })
}

fn endpoints(
    view: &View,
    key: &ServiceKey,
    isolated_by: impl Fn(Ipv4Addr) -> Vec<String>,
) -> BTreeSet<EndpointReport> {
    let all = view.slices(key).flat_map(|slice| {
        slice.endpoints.iter().map(move |endpoint| (endpoint, slice.ports.iter().map(|p| p.port.to_string())))
    });
    all.map(|(endpoint, ports)| EndpointReport {
        address: format!("{}:{}", endpoint.address, ports.collect::<Vec<_>>().join(",")),
        node: endpoint.node.clone().unwrap_or_else(|| "-".into()),
        state: match (endpoint.ready, endpoint.serving, endpoint.terminating) {
            (true, ..) => "ready",
            (_, true, true) => "ending, still serving",
            (_, false, true) => "ending",
            _ => "not ready",
        },
        isolated_by: isolated_by(endpoint.address),
    })
    .collect()
}

fn notes(service: &Service, view: &View, endpoints: &BTreeSet<EndpointReport>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Kind::ExternalName(target) = &service.kind {
        notes.push(format!("ExternalName: only a name, an alias of {target:?}"));
    } else if service.headless {
        notes.push("headless: its name leads to the endpoints themselves, no rule is involved".into());
    } else if endpoints.is_empty() {
        notes.push("no endpoints: no Pod matches the selector, or none has an address yet".into());
    } else if endpoints
        .iter()
        .all(|endpoint| !endpoint.state.contains("ready") || endpoint.state == "not ready")
    {
        notes.push("no endpoint is ready: look at the Pods' readiness probes".into());
    }
    for port in &service.ports {
        let mut slices = view.slices(&service.key).filter(|slice| !slice.endpoints.is_empty()).peekable();
        let has = |p: &node::network::SlicePort| p.name == port.name && p.protocol == port.protocol;
        if slices.peek().is_some() && !slices.any(|slice| slice.ports.iter().any(has)) {
            let name = if port.name.is_empty() { port.port.to_string() } else { port.name.clone() };
            notes.push(format!("port {name}: no Pod has its targetPort"));
        }
    }
    if service.kind == Kind::LoadBalancer && service.ingress_ips.is_empty() {
        notes.push("no load balancer address yet: the Service's Events say why".into());
    }
    if let Some(node) = &service.announced_by {
        notes.push(format!("load balancer address answered by node {node}"));
    }
    notes
}

fn text(report: &Report) -> String {
    let mut text = format!("Service {}\n", report.service);
    report.notes.iter().for_each(|note| text.push_str(&format!("  {note}\n")));
    let rows: Vec<Vec<String>> = report
        .endpoints
        .iter()
        .map(|e| {
            let policies = if e.isolated_by.is_empty() { "-".to_owned() } else { e.isolated_by.join(",") };
            vec![e.address.clone(), e.node.clone(), e.state.to_owned(), policies]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["ENDPOINT", "NODE", "STATE", "NETWORK POLICIES"], &rows));
    let rows: Vec<Vec<String>> = report
        .packets
        .iter()
        .map(|p| vec![p.node.clone(), p.from.to_owned(), p.to.clone(), p.fates.join(" | "), p.why.clone()])
        .collect();
    text.push('\n');
    text.push_str(&table(&["ON NODE", "FROM", "TO", "GOES TO", "WHY"], &rows));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view() -> (View, Service) {
        let object = json!({ "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "clusterIP": "10.43.0.9", "type": "NodePort", "externalTrafficPolicy": "Local",
                "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }, { "name": "admin", "port": 81, "nodePort": 30081 }] } });
        let service = Service::from_api(&serde_json::from_value(object).expect("a Service"));
        let slice = json!({ "metadata": { "name": "web-1", "namespace": "shop", "labels": { SERVICE_NAME: "web" } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": [{ "addresses": ["10.42.0.5"], "nodeName": "n1" }] });
        let mut view = View::default();
        view.put_slice(
            Slice::from_api(&serde_json::from_value(slice).expect("a slice")).expect("of a Service"),
        );
        for (name, ip, cidr) in [("n1", "172.18.0.2", "10.42.0.0/24"), ("n2", "172.18.0.3", "10.42.1.0/24")] {
            let node = json!({ "metadata": { "name": name }, "spec": { "podCIDR": cidr },
                "status": { "addresses": [{ "type": "InternalIP", "address": ip }] } });
            view.put_node(Node::from_api(&serde_json::from_value(node).expect("a Node")));
        }
        view.put_service(service.clone());
        (view, service)
    }

    #[test]
    fn a_report_says_where_packets_go_and_why() {
        let (view, service) = view();
        assert_eq!(pod_network(&view).to_string(), "10.42.0.0/23");
        let packets = inspect(&view, &service.key, pod_network(&view));
        let find = |node: &str, from: &str, to: &str| {
            let found = packets.iter().find(|p| p.node == node && p.from == from && p.to == to);
            let found = found.unwrap_or_else(|| panic!("{node} {from} {to}: {packets:#?}"));
            format!("{}: {}", found.fates.join("|"), found.why)
        };
        assert_eq!(
            find("n2", "Pod", "10.43.0.9:80/tcp"),
            "10.42.0.5:8080: shop/web:http has an endpoint for it"
        );
        assert_eq!(
            find("n2", "outside", "172.18.0.3:30080/tcp"),
            "dropped: shop/web:http has endpoints, but none on this node (policy Local)"
        );
        assert_eq!(find("n1", "Pod", "10.43.0.9:81/tcp"), "refused: shop/web:admin has no ready endpoints");
        let endpoints = endpoints(&view, &service.key, |_| vec!["shop/deny".into()]);
        let notes = notes(&service, &view, &endpoints);
        assert_eq!(notes, ["port admin: no Pod has its targetPort"]);
        let text = text(&Report { service: "shop/web".into(), notes, endpoints, packets });
        assert!(text.contains("10.42.0.5:8080  n1    ready  shop/deny"), "{text}");
    }
}
