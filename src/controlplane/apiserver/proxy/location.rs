//! What a proxy path names, and where that is.

use std::net::IpAddr;

use http::Uri;
use rand::RngExt;
use serde_json::Value;

use super::{Dial, Location, Streams, outside, proxied_path, target};
use crate::key::collections::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use crate::request::RequestInfo;
use api::meta::ObjectExt;
use api::status::ApiError;
use storage::ListQuery;

/// `[scheme:]name[:port]`, as the proxy subresources name things.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named<'a> {
    secure: bool,
    name: &'a str,
    port: &'a str,
}

fn split(name: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = name.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    matches!(scheme, "" | "http" | "https").then_some(Named { secure: scheme == "https", name, port })
}

fn named<'a>(info: &'a RequestInfo, what: &str) -> Result<Named<'a>, ApiError> {
    split(&info.name).ok_or_else(|| ApiError::bad_request(format!("invalid {what} request {:?}", info.name)))
}

impl Streams {
    /// The kubelet's own HTTP, or a port on the node.
    pub(super) async fn node_proxy(&self, info: &RequestInfo, uri: &Uri) -> Result<Location, ApiError> {
        let named = named(info, "node")?;
        let node = self.object(NODES, "", named.name).await?;
        let (host, kubelet_port) = target::kubelet_address(&node)?;
        let port = match named.port {
            "" => kubelet_port,
            port => number(port).ok_or_else(|| ApiError::bad_request(format!("invalid port {port:?}")))?,
        };
        let dial = if port == kubelet_port { Dial::Kubelet } else { Dial::tls(named.secure) };
        Ok(Location { host, port, dial, path: proxied_path(uri, false), outside: Some(outside(uri, false)) })
    }

    /// A port of a Pod; unnamed: its first container's first one, else 80.
    pub(super) async fn pod_proxy(&self, info: &RequestInfo, uri: &Uri) -> Result<Location, ApiError> {
        let named = named(info, "pod")?;
        let pod = self.object(PODS, &info.namespace, named.name).await?;
        let host = self.pod_address(&pod).await?;
        let port = match named.port {
            "" => pod.array_at("/spec/containers").iter().find_map(first_port).unwrap_or(80),
            port => number(port).ok_or_else(|| ApiError::bad_request(format!("invalid port {port:?}")))?,
        };
        Ok(Location {
            host,
            port,
            dial: Dial::tls(named.secure),
            path: proxied_path(uri, true),
            outside: Some(outside(uri, true)),
        })
    }

    /// The Pod's address, if it can be the Pod's: one of its node's Pod addresses, or, in the node's network, the node's own.
    async fn pod_address(&self, pod: &Value) -> Result<IpAddr, ApiError> {
        let refused = || ApiError::bad_request("address not allowed");
        let address: IpAddr =
            pod.str_at("/status/podIP").and_then(|ip| ip.parse().ok()).ok_or_else(refused)?;
        target::check_address(address)?;
        let node = pod.str_at("/spec/nodeName").filter(|node| !node.is_empty()).ok_or_else(refused)?;
        let node = self.object(NODES, "", node).await?;
        let own = match pod.bool_at("/spec/hostNetwork") {
            Some(true) => target::node_addresses(&node).any(|own| own == address),
            _ => target::pod_networks(&node).any(|network| network.contains(&address)),
        };
        own.then_some(address).ok_or_else(refused)
    }

    /// A ready endpoint of a Service.
    pub(super) async fn service_proxy(&self, info: &RequestInfo, uri: &Uri) -> Result<Location, ApiError> {
        let named = named(info, "service")?;
        let service = self.object(SERVICES, &info.namespace, named.name).await?;
        let prefix = ENDPOINT_SLICES.prefix(&info.namespace);
        let listing = self.store.list(ListQuery { prefix, ..ListQuery::default() }).await;
        let entries = listing.map_err(ApiError::internal)?.entries;
        let slices: Vec<Value> =
            entries.iter().filter_map(|entry| serde_json::from_slice(&entry.data).ok()).collect();
        let candidates = endpoints(&service, &slices, named.port);
        if candidates.is_empty() {
            let why = format!("no endpoints available for service {:?}", info.name);
            return Err(ApiError::service_unavailable(why));
        }
        let (host, port) = candidates[rand::rng().random_range(0..candidates.len())];
        target::check_address(host)?;
        Ok(Location {
            host,
            port,
            dial: Dial::tls(named.secure),
            path: proxied_path(uri, true),
            outside: Some(outside(uri, true)),
        })
    }
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

fn first_port(container: &Value) -> Option<u16> {
    u16::try_from(container.array_at("/ports").first()?.int_at("/containerPort")?).ok()
}

/// Ready addresses of a Service with the port that is meant: by name or number, or the only one.
fn endpoints(service: &Value, slices: &[Value], port: &str) -> Vec<(IpAddr, u16)> {
    let ports = service.array_at("/spec/ports");
    let name_of = |port: &Value| port.str_at("/name").unwrap_or_default().to_owned();
    let wanted = match (port, ports) {
        ("", [only]) => name_of(only),
        ("", _) => String::new(),
        (port, _) => {
            match ports.iter().find(|p| p.int_at("/port").map(|n| n.to_string()).as_deref() == Some(port)) {
                Some(by_number) => name_of(by_number),
                None => port.to_owned(),
            }
        }
    };
    let mut found = Vec::new();
    for slice in slices.iter().filter(|s| s.label("kubernetes.io/service-name") == Some(service.name())) {
        let mut slice_ports = slice.array_at("/ports").iter();
        let Some(number) = slice_ports.find(|p| name_of(p) == wanted).and_then(|p| p.int_at("/port")) else {
            continue;
        };
        let ready = |endpoint: &&Value| endpoint.bool_at("/conditions/ready").unwrap_or(true);
        for endpoint in slice.array_at("/endpoints").iter().filter(ready) {
            let addresses = endpoint.array_at("/addresses").iter().filter_map(Value::as_str);
            let addresses = addresses.filter_map(|address| address.parse().ok());
            found.extend(addresses.filter_map(|address| Some((address, u16::try_from(number).ok()?))));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(split("web"), Some(Named { secure: false, name: "web", port: "" }));
        assert_eq!(split("web:http"), Some(Named { secure: false, name: "web", port: "http" }));
        assert_eq!(split("https:web:443"), Some(Named { secure: true, name: "web", port: "443" }));
        assert_eq!(split("https:web:"), Some(Named { secure: true, name: "web", port: "" }));
        assert_eq!(split("ftp:web:21"), None);
    }

    #[test]
    fn services_are_reached_through_ready_endpoints() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2"], "conditions": {"ready": false}}]});
        let expect = vec![("10.1.0.1".parse::<IpAddr>().unwrap(), 8080)];
        for port in ["", "80", "http"] {
            assert_eq!(endpoints(&service, std::slice::from_ref(&slice), port), expect, "{port:?}");
        }
        assert!(endpoints(&service, &[slice], "81").is_empty());
    }

    #[test]
    fn paths_are_passed_on_as_they_were_sent() {
        let check = |uri: &str, namespaced: bool, expect: &str| {
            assert_eq!(proxied_path(&uri.parse().unwrap(), namespaced), expect);
        };
        check("/api/v1/namespaces/a/pods/b/proxy", true, "/");
        check("/api/v1/namespaces/a/pods/b/proxy/x%2Fy/?z=1", true, "/x%2Fy/?z=1");
        check("/api/v1/nodes/n/proxy/pods", false, "/pods");
    }
}
