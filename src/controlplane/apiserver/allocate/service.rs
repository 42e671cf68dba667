//! Which addresses and ports a Service needs.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use super::Holdings;
use api::meta::ObjectExt;
use api::validate::FieldError;

/// What a Service needs to be given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub cluster_ip: bool,
    pub node_ports: bool,
    pub health_check_port: bool,
}

const NONE: &str = "None";

fn kind_of(service: &Value) -> &str {
    service.str_at("/spec/type").unwrap_or("ClusterIP")
}

fn has_cluster_ip(service: &Value) -> bool {
    kind_of(service) != "ExternalName"
}

fn has_node_ports(service: &Value) -> bool {
    match kind_of(service) {
        "NodePort" => true,
        "LoadBalancer" => service.bool_at("/spec/allocateLoadBalancerNodePorts").unwrap_or(true),
        _ => false,
    }
}

fn may_have_node_ports(service: &Value) -> bool {
    matches!(kind_of(service), "NodePort" | "LoadBalancer")
}

fn has_health_check_port(service: &Value) -> bool {
    kind_of(service) == "LoadBalancer" && service.str_at("/spec/externalTrafficPolicy") == Some("Local")
}

fn spec_mut(service: &mut Value) -> Option<&mut Map<String, Value>> {
    service.get_mut("spec")?.as_object_mut()
}

/// Everything a stored Service has.
pub(super) fn holdings(service: &Value) -> Holdings {
    let mut holdings = Holdings::default();
    let listed = service.array_at("/spec/clusterIPs").iter().filter_map(Value::as_str);
    let addresses = listed.chain(service.str_at("/spec/clusterIP"));
    holdings.addresses.extend(addresses.filter_map(|address| address.parse::<Ipv4Addr>().ok()));
    let ports = service.array_at("/spec/ports").iter().filter_map(|port| port.int_at("/nodePort"));
    let ports = ports.chain(service.int_at("/spec/healthCheckNodePort"));
    holdings.ports.extend(ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0));
    holdings
}

/// Brings the fields that depend on type and on the stored state into order; says what is to be given out.
pub(super) fn prepare(service: &mut Value, old: Option<&Value>) -> Result<Demand, FieldError> {
    if let Some(old) = old {
        follow_address(service, old);
        carry_over(service, old);
        drop_what_the_type_lost(service, old);
    }
    normalize_addresses(service);
    if !has_cluster_ip(service) {
        return Ok(Demand::default());
    }
    check_addresses(service)?;
    families(service)?;
    Ok(Demand {
        cluster_ip: service.str_at("/spec/clusterIP") != Some(NONE),
        node_ports: has_node_ports(service) || has_given_node_ports(service),
        health_check_port: has_health_check_port(service),
    })
}

fn has_given_node_ports(service: &Value) -> bool {
    may_have_node_ports(service)
        && service.array_at("/spec/ports").iter().any(|port| port.int_at("/nodePort").unwrap_or(0) > 0)
}

fn is_empty(service: &Value, field: &str) -> bool {
    match service.pointer(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    }
}

/// A client that knows `clusterIP` alone changes it, and leaves `clusterIPs` as they are: they follow (upstream:
/// `normalizeClusterIPs`).
fn follow_address(service: &mut Value, old: &Value) {
    let single = |service: &Value| service.str_at("/spec/clusterIP").unwrap_or_default().to_owned();
    let all = |service: &Value| service.array_at("/spec/clusterIPs").to_vec();
    let (now, before) = (single(service), single(old));
    if now == before || all(service) != all(old) || !has_cluster_ip(service) {
        return;
    }
    let Some(spec) = spec_mut(service) else { return };
    if now.is_empty() {
        spec.remove("clusterIPs");
    } else {
        spec.insert("clusterIPs".to_owned(), json!([now]));
    }
}

/// What an update leaves out keeps its allocated value (upstream: `patchAllocatedValues`).
fn carry_over(service: &mut Value, old: &Value) {
    if has_cluster_ip(service) && has_cluster_ip(old) {
        let families = is_empty(service, "/spec/ipFamilies");
        let addresses = is_empty(service, "/spec/clusterIP") && is_empty(service, "/spec/clusterIPs");
        let mut fields: Vec<&str> = Vec::new();
        if addresses {
            fields.extend(["clusterIP", "clusterIPs"]);
        }
        if families {
            fields.extend(["ipFamilies", "ipFamilyPolicy"]);
        }
        copy(service, old, &fields);
    }
    if has_node_ports(service) && has_node_ports(old) {
        let known: Vec<(String, i64, i64)> = old.array_at("/spec/ports").iter().map(port_identity).collect();
        for port in ports_mut(service) {
            let (protocol, number, node_port) = port_identity(port);
            let before = known.iter().find(|(p, n, _)| *p == protocol && *n == number);
            if let (0, Some((_, _, before))) = (node_port, before)
                && *before > 0
            {
                port["nodePort"] = (*before).into();
            }
        }
    }
    if has_health_check_port(service)
        && has_health_check_port(old)
        && is_empty(service, "/spec/healthCheckNodePort")
    {
        copy(service, old, &["healthCheckNodePort"]);
    }
}

fn copy(service: &mut Value, old: &Value, fields: &[&str]) {
    let Some(spec) = spec_mut(service) else { return };
    for field in fields {
        if let Some(value) = old.pointer(&format!("/spec/{field}")) {
            spec.insert((*field).to_owned(), value.clone());
        }
    }
}

fn port_identity(port: &Value) -> (String, i64, i64) {
    let protocol = port.str_at("/protocol").unwrap_or("TCP").to_owned();
    (protocol, port.int_at("/port").unwrap_or(0), port.int_at("/nodePort").unwrap_or(0))
}

fn ports_mut(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten()
}

/// A changed type takes its own fields along when they were not changed by hand (upstream: `dropTypeDependentFields`).
fn drop_what_the_type_lost(service: &mut Value, old: &Value) {
    let same = |service: &Value, field: &str| service.pointer(field) == old.pointer(field);
    if has_cluster_ip(old)
        && !has_cluster_ip(service)
        && same(service, "/spec/clusterIP")
        && let Some(spec) = spec_mut(service)
    {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec.remove(field);
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(service) {
        let had: Vec<i64> = old.array_at("/spec/ports").iter().map(|port| port_identity(port).2).collect();
        for port in ports_mut(service) {
            let node_port = port_identity(port).2;
            if had.contains(&node_port)
                && let Some(port) = port.as_object_mut()
            {
                port.remove("nodePort");
            }
        }
        if let Some(spec) = spec_mut(service) {
            spec.remove("externalTrafficPolicy");
        }
    }
    if has_health_check_port(old)
        && !has_health_check_port(service)
        && same(service, "/spec/healthCheckNodePort")
        && let Some(spec) = spec_mut(service)
    {
        spec.remove("healthCheckNodePort");
    }
    if kind_of(old) == "LoadBalancer"
        && kind_of(service) != "LoadBalancer"
        && let Some(spec) = spec_mut(service)
    {
        spec.remove("allocateLoadBalancerNodePorts");
        spec.remove("loadBalancerClass");
    }
}

/// `clusterIP` and the first of `clusterIPs` are one thing.
fn normalize_addresses(service: &mut Value) {
    let single = service.str_at("/spec/clusterIP").unwrap_or_default().to_owned();
    let first = service.str_at("/spec/clusterIPs/0").map(str::to_owned);
    let Some(spec) = spec_mut(service) else { return };
    match (single.is_empty(), first) {
        (false, None) => drop(spec.insert("clusterIPs".to_owned(), json!([single]))),
        (true, Some(first)) => drop(spec.insert("clusterIP".to_owned(), first.into())),
        _ => {}
    }
}

/// What is given out is one address. More or another one than is asked for must not get lost.
fn check_addresses(service: &Value) -> Result<(), FieldError> {
    let all = service.array_at("/spec/clusterIPs");
    let single = service.str_at("/spec/clusterIP").unwrap_or_default();
    let why = if all.first().is_some_and(|first| first != single) {
        "first value must match `clusterIP`"
    } else if all.len() > 1 {
        "this cluster is not configured for dual-stack services"
    } else {
        return Ok(());
    };
    Err(FieldError::invalid("spec.clusterIPs", all.to_vec(), why))
}

/// Defaults and checks `ipFamilies` and `ipFamilyPolicy` on a cluster that has IPv4 only.
fn families(service: &mut Value) -> Result<(), FieldError> {
    let headless = service.str_at("/spec/clusterIP") == Some(NONE);
    let selectorless = service.map_at("/spec/selector").is_none_or(Map::is_empty);
    let policy = service.str_at("/spec/ipFamilyPolicy").map(str::to_owned);
    let given = service.array_at("/spec/ipFamilies").to_vec();
    let (families, policy) = if headless && selectorless {
        // Nobody here chooses the endpoints, so any family may come.
        let policy = policy.unwrap_or_else(|| "RequireDualStack".to_owned());
        let families = match (&given[..], policy.as_str()) {
            ([], "SingleStack") => json!(["IPv4"]),
            ([], _) => json!(["IPv4", "IPv6"]),
            ([one], "RequireDualStack" | "PreferDualStack") => {
                json!([one, if one == "IPv4" { "IPv6" } else { "IPv4" }])
            }
            _ => given.into(),
        };
        (families, policy)
    } else {
        let policy = policy.unwrap_or_else(|| "SingleStack".to_owned());
        if policy == "RequireDualStack" || (given.len() > 1 && policy != "PreferDualStack") {
            let why = "this cluster is not configured for dual-stack services";
            return Err(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
        }
        if let Some(at) = given.iter().position(|family| family != "IPv4") {
            let field = format!("spec.ipFamilies[{at}]");
            return Err(FieldError::invalid(field, given[at].clone(), "not configured on this cluster"));
        }
        (json!(["IPv4"]), policy)
    };
    if let Some(spec) = spec_mut(service) {
        spec.insert("ipFamilies".to_owned(), families);
        spec.insert("ipFamilyPolicy".to_owned(), policy.into());
    }
    Ok(())
}

/// Gives the Service the cluster IP it asks for, or any. `take` answers `None` when it cannot be had.
pub(super) fn assign_cluster_ip(
    service: &mut Value,
    network: Ipv4Net,
    mut take: impl FnMut(Option<Ipv4Addr>) -> Option<Ipv4Addr>,
) -> Result<(), FieldError> {
    let wanted = service.str_at("/spec/clusterIP").unwrap_or_default().to_owned();
    let refuse = |why: String| {
        let why = format!("failed to allocate IP {wanted}: {why}");
        FieldError::invalid("spec.clusterIPs", json!([wanted]), why)
    };
    let address = if wanted.is_empty() {
        let why = "failed to allocate a serviceIP: range is full";
        take(None).ok_or_else(|| FieldError::internal("spec.clusterIPs", why))?
    } else {
        // What is no address at all is for validation to tell.
        let Ok(address) = wanted.parse::<IpAddr>() else { return Ok(()) };
        let inside = |address: &Ipv4Addr| {
            network.contains(address) && *address != network.network() && *address != network.broadcast()
        };
        let address = match address {
            IpAddr::V4(address) if inside(&address) => address,
            _ => {
                let why = format!(
                    "the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {network}"
                );
                return Err(refuse(why));
            }
        };
        take(Some(address)).ok_or_else(|| refuse("provided IP is already allocated".to_owned()))?
    };
    if let Some(spec) = spec_mut(service) {
        spec.insert("clusterIP".to_owned(), address.to_string().into());
        spec.insert("clusterIPs".to_owned(), json!([address.to_string()]));
    }
    Ok(())
}

/// Gives every port of the Service the node port it asks for, or (where the type has them) any.
pub(super) fn assign_node_ports(
    service: &mut Value,
    range: &RangeInclusive<u16>,
    mut take: impl FnMut(Option<u16>) -> Option<u16>,
) -> Result<(), FieldError> {
    let fill = has_node_ports(service);
    let mut given: Vec<(i64, i64, String)> = Vec::new();
    // Those asked for by value first, so that none of them is given away to a neighbour.
    for (at, port) in ports_mut(service).enumerate() {
        let wanted = port_identity(port).2;
        if wanted > 0 {
            claim_port(&format!("spec.ports[{at}].nodePort"), wanted, range, &mut take)?;
            let (protocol, number, _) = port_identity(port);
            given.push((number, wanted, protocol));
        }
    }
    for port in ports_mut(service).filter(|_| fill) {
        let (protocol, number, node_port) = port_identity(port);
        if node_port > 0 {
            continue;
        }
        // The same port in another protocol shares its node port, as DNS does.
        let shared = given.iter().find(|(n, _, p)| *n == number && *p != protocol).map(|(_, node, _)| *node);
        let chosen = match shared {
            Some(shared) => shared,
            None => i64::from(take(None).ok_or_else(|| {
                let why = "failed to allocate a nodePort: range is full";
                FieldError::internal("spec.ports", why)
            })?),
        };
        port["nodePort"] = chosen.into();
        given.push((number, chosen, protocol));
    }
    Ok(())
}

fn claim_port(
    field: &str,
    wanted: i64,
    range: &RangeInclusive<u16>,
    take: &mut impl FnMut(Option<u16>) -> Option<u16>,
) -> Result<u16, FieldError> {
    let port = u16::try_from(wanted).ok().filter(|port| range.contains(port)).ok_or_else(|| {
        let range = format!("{}-{}", range.start(), range.end());
        let why = format!("provided port is not in the valid range. The range of valid ports is {range}");
        FieldError::invalid(field, wanted, why)
    })?;
    take(Some(port)).ok_or_else(|| FieldError::invalid(field, wanted, "provided port is already allocated"))
}

/// Gives the Service the health check port it asks for, or any.
pub(super) fn assign_health_check_port(
    service: &mut Value,
    range: &RangeInclusive<u16>,
    mut take: impl FnMut(Option<u16>) -> Option<u16>,
) -> Result<(), FieldError> {
    let field = "spec.healthCheckNodePort";
    let wanted = service.int_at("/spec/healthCheckNodePort").unwrap_or(0);
    let port = match wanted {
        0 => take(None)
            .ok_or_else(|| FieldError::internal(field, "failed to allocate a nodePort: range is full"))?,
        wanted => claim_port(field, wanted, range, &mut take)?,
    };
    if let Some(spec) = spec_mut(service) {
        spec.insert("healthCheckNodePort".to_owned(), port.into());
    }
    Ok(())
}
