//! Where on a kubelet a Pod's streams are.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use api::meta::ObjectExt;
use api::resources::{Handler, Stream};
use api::status::ApiError;

/// Where on a kubelet a Pod's stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStream {
    /// The Pod's node; `None` (for logs only): it has none yet.
    pub node: Option<String>,
    /// Path and query on the kubelet.
    pub path: String,
}

/// Parameters of a log that go on as they are.
const LOG: &[&str] =
    &["follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "stream", "tailLines", "timestamps"];

impl PodStream {
    /// Reads the request's query against the Pod. Refusals are upstream's, word for word.
    pub fn plan(stream: Stream, pod: &Value, query: &str) -> Result<Self, ApiError> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let node = pod.str_at("/spec/nodeName").filter(|node| !node.is_empty()).map(str::to_owned);
        let place = format!("{}/{}", pod.namespace(), pod.name());
        let (path, out) = match stream {
            Stream::Log => {
                let container = container(pod, asked_container(&pairs))?;
                let options =
                    pairs.iter().filter(|(name, _)| LOG.contains(&name.as_str())).cloned().collect();
                (format!("/containerLogs/{place}/{container}"), options)
            }
            Stream::PortForward => {
                let ports = pairs.iter().filter(|(name, _)| name == "ports");
                let ports = ports.map(|(_, port)| ("port".to_owned(), port.clone())).collect();
                (format!("/portForward/{place}"), ports)
            }
            Stream::Exec | Stream::Attach => {
                let container = container(pod, asked_container(&pairs))?;
                let verb = Handler::Stream(stream).name();
                (format!("/{verb}/{place}/{container}"), stream_options(stream, &pairs)?)
            }
            Stream::NodeProxy | Stream::PodProxy | Stream::ServiceProxy => {
                return Err(ApiError::unknown_path());
            }
        };
        if node.is_none() && stream != Stream::Log {
            return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name())));
        }
        Ok(Self { node, path: with_query(path, out) })
    }
}

fn with_query(path: String, pairs: Vec<(String, String)>) -> String {
    if pairs.is_empty() {
        return path;
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}?{query}")
}

fn is_true(pairs: &[(String, String)], name: &str) -> bool {
    pairs.iter().any(|(key, value)| key == name && matches!(value.as_str(), "true" | "1"))
}

/// The streams, in the kubelet's words.
fn stream_options(stream: Stream, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, ApiError> {
    let mut out = Vec::new();
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if is_true(pairs, ours) {
            out.push((theirs.to_owned(), "1".to_owned()));
        }
    }
    if !["stdin", "stdout", "stderr"].iter().any(|name| is_true(pairs, name)) {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let command: Vec<_> = pairs.iter().filter(|(name, _)| name == "command").cloned().collect();
    if stream == Stream::Exec && command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    out.extend(command);
    Ok(out)
}

fn asked_container(pairs: &[(String, String)]) -> &str {
    pairs.iter().find(|(name, _)| name == "container").map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// The container that is meant: the one named, or the only one.
fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod.array_at(&format!("/spec/{list}")).iter();
        containers.filter_map(|container| container.str_at("/name")).map(str::to_owned).collect()
    };
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = pod.name();
    if !asked.is_empty() {
        return match [&main, &init, &ephemeral].iter().any(|list| list.iter().any(|name| name == asked)) {
            true => Ok(asked.to_owned()),
            false => Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
        };
    }
    if let [only] = &main[..] {
        return Ok(only.clone());
    }
    let mut why =
        format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
    if !init.is_empty() {
        why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    if !ephemeral.is_empty() {
        why.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
    }
    Err(ApiError::bad_request(why))
}

/// Refuses addresses that no Pod and no node can be reached at from elsewhere: loopback, link-local, multicast and the
/// like. What listens there is this server's own machine (upstream's `IsProxyableIP`).
pub(super) fn check_address(address: IpAddr) -> Result<(), ApiError> {
    let special = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let address = address.to_canonical();
    if special || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(())
}

/// Every address of a node.
pub(super) fn node_addresses(node: &Value) -> impl Iterator<Item = IpAddr> {
    let addresses = node.array_at("/status/addresses").iter();
    addresses.filter_map(|address| address.str_at("/address")?.parse().ok())
}

/// The networks of a node's Pods.
pub(super) fn pod_networks(node: &Value) -> impl Iterator<Item = IpNet> {
    let all = node.array_at("/spec/podCIDRs").iter().filter_map(Value::as_str);
    all.chain(node.str_at("/spec/podCIDR")).filter_map(|network| network.parse().ok())
}

/// Where a node's kubelet listens: its internal address, else its external one.
pub(super) fn kubelet_address(node: &Value) -> Result<(IpAddr, u16), ApiError> {
    let port = node.int_at("/status/daemonEndpoints/kubeletEndpoint/Port");
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(10250);
    let addresses = node.array_at("/status/addresses");
    let of = |kind: &str| {
        let mut all = addresses.iter().filter(|address| address.str_at("/type") == Some(kind));
        all.find_map(|address| address.str_at("/address")?.parse::<IpAddr>().ok())
    };
    match of("InternalIP").or_else(|| of("ExternalIP")) {
        Some(host) => check_address(host).map(|()| (host, port)),
        None => Err(ApiError::internal("no preferred addresses found; known addresses: []")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str], node: &str) -> Value {
        let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
        json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": node, "containers": containers,
            "initContainers": [{"name": "i"}]}})
    }

    fn check(stream: Stream, pod: &Value, query: &str, expect: Result<&str, &str>) {
        let got = PodStream::plan(stream, pod, query);
        let got = got.as_ref().map(|stream| stream.path.as_str()).map_err(|error| error.message.as_str());
        assert_eq!(got, expect, "{stream:?} {query}");
    }

    #[test]
    fn streams_find_their_container() {
        let one = pod(&["a"], "n1");
        let two = pod(&["a", "b"], "n1");
        check(
            Stream::Log,
            &one,
            "follow=true&tailLines=5&pretty=1",
            Ok("/containerLogs/default/p/a?follow=true&tailLines=5"),
        );
        check(Stream::Log, &one, "container=i", Ok("/containerLogs/default/p/i"));
        check(Stream::Log, &one, "container=c", Err("container c is not valid for pod p"));
        check(
            Stream::Log,
            &two,
            "",
            Err(
                "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
            ),
        );
        check(
            Stream::Exec,
            &two,
            "container=b&command=sh&command=-c&stdin=true&stdout=true&tty=true",
            Ok("/exec/default/p/b?input=1&output=1&tty=1&command=sh&command=-c"),
        );
        check(
            Stream::Exec,
            &one,
            "stdout=true",
            Err("you must specify at least one command for the container"),
        );
        check(Stream::Exec, &one, "command=sh", Err("you must specify at least 1 of stdin, stdout, stderr"));
        check(Stream::Attach, &one, "stdout=1", Ok("/attach/default/p/a?output=1"));
        check(Stream::PortForward, &one, "ports=80&ports=81", Ok("/portForward/default/p?port=80&port=81"));
        check(Stream::Attach, &pod(&["a"], ""), "stdout=true", Err("pod p does not have a host assigned"));
        assert_eq!(PodStream::plan(Stream::Log, &pod(&["a"], ""), "").unwrap().node, None);
    }

    #[test]
    fn kubelets_listen_where_their_node_says() {
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "172.20.0.3"}]}});
        assert_eq!(kubelet_address(&node).unwrap(), ("172.20.0.3".parse().unwrap(), 10250));
        let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": "172.20.0.3"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 7}}}});
        assert_eq!(kubelet_address(&node).unwrap().1, 7);
        assert!(kubelet_address(&json!({})).is_err());
    }

    #[test]
    fn only_addresses_of_others_are_dialled() {
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "0.1.2.3",
        ] {
            let error = check_address(refused.parse().unwrap()).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (400, "address not allowed"), "{refused}");
        }
        for allowed in ["10.42.0.7", "172.20.0.3", "203.0.113.9", "fd00::7", "2001:db8::1"] {
            assert!(check_address(allowed.parse().unwrap()).is_ok(), "{allowed}");
        }
    }
}
