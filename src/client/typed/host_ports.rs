//! Ports of the node that Pods take for themselves.

use k8s_openapi::api::core::v1::PodSpec;

/// A port on the node that a Pod takes for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

const ANY: &str = "0.0.0.0";

impl HostPort {
    /// Whether both cannot be on one node: the same port and protocol at an address that both have.
    pub fn conflicts(&self, other: &Self) -> bool {
        let overlap = self.ip == other.ip || self.ip == ANY || other.ip == ANY;
        overlap && self.protocol == other.protocol && self.port == other.port
    }
}

/// The host ports of what runs as long as the Pod does: its containers and its sidecars.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY.to_owned());
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(HostPort { ip, protocol, port: port.host_port.filter(|port| *port > 0)? })
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn ports_conflict_at_an_address_that_both_have() {
        let taken = |port: Value| {
            let spec: PodSpec = from_value(json!({"containers": [{"name": "c", "ports": [port]}]})).unwrap();
            host_ports(&spec)
        };
        let check = |one: Value, other: Value, expect: bool| {
            let (one, other) = (taken(one), taken(other));
            assert_eq!(one[0].conflicts(&other[0]), expect, "{one:?} {other:?}");
            assert_eq!(other[0].conflicts(&one[0]), expect, "{other:?} {one:?}");
        };
        let port = |ip: &str, protocol: &str, port: i32| json!({"containerPort": 80, "hostIP": ip, "protocol": protocol, "hostPort": port});
        check(port("", "TCP", 80), json!({"containerPort": 1, "hostPort": 80}), true);
        check(port("", "TCP", 80), port("127.0.0.1", "TCP", 80), true);
        check(port("0.0.0.0", "TCP", 80), port("10.0.0.1", "TCP", 80), true);
        check(port("127.0.0.1", "TCP", 80), port("10.0.0.1", "TCP", 80), false);
        check(port("127.0.0.1", "TCP", 80), port("127.0.0.1", "UDP", 80), false);
        check(port("127.0.0.1", "TCP", 80), port("127.0.0.1", "TCP", 81), false);
        assert_eq!(taken(json!({"containerPort": 80})), []);
    }
}
