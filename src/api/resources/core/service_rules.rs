//! What must hold of a Service. Rule: `ValidateService`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::validate::{
    Check, FieldError, cidr, destination, dns1123_label, dns1123_subdomain, ip_address, labels_errors,
    port_name, port_number, qualified_name,
};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const LONGEST_AFFINITY: i64 = 86_400;
const KUBELET_PORT: i64 = 10_250;

/// Everything wrong with a Service's spec.
pub fn validate(spec: &mut Check<'_, '_>, old: Option<&Value>) {
    let kind = spec.text("type");
    let headless = spec.text("clusterIP") == "None";
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        spec.required("ports", "");
    }
    spec.need_one_of("type", TYPES, "");
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let why = format!("may not be set to 'None' for {kind} services");
        spec.push(FieldError::invalid(spec.at("clusterIPs").index(0), "None", why));
    }
    if kind == "ExternalName" {
        external_name(spec);
    }
    ports(spec, kind);
    let errors = labels_errors(Some(spec.get("selector")), &spec.at("selector"));
    spec.extend(errors);
    affinity(spec);
    addresses(spec);
    load_balancer(spec, kind);
    policies(spec, kind);
    if let Some(old) = old.filter(|old| old.str_at("/spec/type") == Some("LoadBalancer")) {
        let before = &old["spec"]["loadBalancerClass"];
        if kind == "LoadBalancer" && spec.get("loadBalancerClass") != before {
            spec.invalid("loadBalancerClass", "may not change once set");
        }
    }
}

fn external_name(spec: &mut Check<'_, '_>) {
    for field in ["clusterIPs", "ipFamilies"] {
        if !spec.list(field).is_empty() {
            spec.forbidden(field, "may not be set for ExternalName services");
        }
    }
    if spec.has("ipFamilyPolicy") {
        spec.forbidden("ipFamilyPolicy", "may not be set for ExternalName services");
    }
    match spec.text("externalName").trim_end_matches('.') {
        "" => spec.required("externalName", ""),
        name => {
            for why in dns1123_subdomain(name) {
                spec.push(FieldError::invalid(spec.at("externalName"), name, why));
            }
        }
    }
}

fn ports(spec: &mut Check<'_, '_>, kind: &str) {
    let several = spec.list("ports").len() > 1;
    let (mut names, mut pairs, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    spec.each("ports", |port| {
        let name = port.text("name");
        if name.is_empty() {
            if several {
                port.required("name", "");
            }
        } else {
            port.named("name", dns1123_label);
            if !names.insert(name) {
                port.duplicate("name");
            }
        }
        let number = port.int("port").unwrap_or_default();
        for why in port_number(number) {
            port.push(FieldError::invalid(port.at("port"), number, why));
        }
        port.need_one_of("protocol", PROTOCOLS, "");
        let protocol = port.text("protocol");
        match port.get("targetPort") {
            Value::String(name) => port.follow("targetPort", port_name(name)),
            Value::Number(target) => port.follow("targetPort", port_number(target.as_i64().unwrap_or(0))),
            _ => {}
        }
        port.named("appProtocol", qualified_name);
        if kind == "LoadBalancer" && number == KUBELET_PORT {
            let why = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            port.push(FieldError::invalid(&port.path, number, why));
        }
        if !pairs.insert((protocol, number)) {
            let pair = json!({"port": number, "protocol": protocol});
            port.push(FieldError::duplicate(&port.path, pair));
        }
        let node_port = port.int("nodePort").unwrap_or_default();
        if node_port == 0 {
            return;
        }
        if !matches!(kind, "NodePort" | "LoadBalancer") {
            port.forbidden("nodePort", format!("may not be used when `type` is '{kind}'"));
        } else if !node_ports.insert((protocol, node_port)) {
            port.duplicate("nodePort");
        }
    });
}

fn affinity(spec: &mut Check<'_, '_>) {
    spec.need_one_of("sessionAffinity", AFFINITIES, "");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            if !spec.has("sessionAffinityConfig") {
                spec.required("sessionAffinityConfig", "when session affinity type is ClientIP");
            }
            spec.within("sessionAffinityConfig", |config| {
                let mut client = config.child("clientIP");
                match client.int("timeoutSeconds") {
                    None => client.required("timeoutSeconds", "when session affinity type is ClientIP"),
                    Some(seconds) if !(1..=LONGEST_AFFINITY).contains(&seconds) => {
                        let why = format!("must be greater than 0 and less than {LONGEST_AFFINITY}");
                        client.invalid("timeoutSeconds", why);
                    }
                    Some(_) => {}
                }
            });
        }
        "None" if spec.has("sessionAffinityConfig") => {
            spec.forbidden("sessionAffinityConfig", "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn addresses(spec: &mut Check<'_, '_>) {
    cluster_ips(spec);
    spec.each("ipFamilies", |family| {
        let name = family.value.as_str().unwrap_or_default();
        if !FAMILIES.contains(&name) {
            family.push(FieldError::not_supported(&family.path, name, FAMILIES));
        }
    });
    let families = spec.list("ipFamilies");
    if families.len() == 2 && families[0] == families[1] {
        spec.push(FieldError::duplicate(spec.at("ipFamilies").index(1), families[1].clone()));
    }
    spec.maybe_one_of("ipFamilyPolicy", FAMILY_POLICIES);
    spec.each("externalIPs", |ip| {
        let text = ip.value.as_str().unwrap_or_default();
        let wrong = ip_address(text);
        ip.follow_here(if wrong.is_empty() { destination(text) } else { wrong });
    });
}

/// The addresses of the Service inside of the cluster: of each family one at most, or none. Rule:
/// `ValidateServiceClusterIPsRelatedFields`.
fn cluster_ips(spec: &mut Check<'_, '_>) {
    let (single, at) = (spec.text("clusterIP"), spec.at("clusterIPs"));
    let mut all: Vec<&str> = spec.texts("clusterIPs").collect();
    if all.is_empty() && !single.is_empty() {
        all.push(single);
    }
    if spec.text("type") == "ExternalName" || all.is_empty() {
        return;
    }
    if all[0] != single {
        let why = if single.is_empty() {
            "must be empty when `clusterIP` is not specified"
        } else {
            "first value must match `clusterIP`"
        };
        spec.push(FieldError::invalid(&at, json!(all), why));
    }
    let mut families = Vec::new();
    for (index, ip) in all.iter().enumerate() {
        if *ip == "None" {
            if all.len() > 1 {
                let why = "may not be set to 'None' when `clusterIPs` has more than one value";
                spec.push(FieldError::invalid(at.index(index), *ip, why));
            }
            continue;
        }
        spec.extend(ip_address(ip).into_iter().map(|why| FieldError::invalid(at.index(index), *ip, why)));
        families.extend(ip.parse().map(|ip: IpAddr| ip.is_ipv6()));
    }
    if all.len() > 2 {
        spec.push(FieldError::invalid(&at, json!(all), "may only hold up to 2 values"));
    }
    if families.len() == 2 && families[0] == families[1] {
        let why = "may specify no more than one IP for each IP family";
        spec.push(FieldError::invalid(&at, json!(all), why));
    }
}

fn load_balancer(spec: &mut Check<'_, '_>, kind: &str) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = kind == "LoadBalancer";
    if !spec.list("loadBalancerSourceRanges").is_empty() {
        let at = spec.at("LoadBalancerSourceRanges");
        if !balanced {
            spec.push(FieldError::forbidden(&at, ONLY));
        }
        for (index, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
            for why in cidr(range.trim()) {
                spec.push(FieldError::invalid(at.index(index), range.trim(), why));
            }
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.has(field) && !balanced {
            spec.forbidden(field, ONLY);
        }
    }
    spec.named("loadBalancerClass", qualified_name);
}

fn policies(spec: &mut Check<'_, '_>, kind: &str) {
    spec.maybe_one_of("externalTrafficPolicy", POLICIES);
    let external = matches!(kind, "LoadBalancer" | "NodePort") || !spec.list("externalIPs").is_empty();
    if !spec.text("externalTrafficPolicy").is_empty() && !external {
        spec.invalid("externalTrafficPolicy", "may only be set for externally-accessible services");
    }
    let checked = kind == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    let health = spec.int("healthCheckNodePort").unwrap_or(0);
    if health != 0 && !checked {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        spec.invalid("healthCheckNodePort", why);
    }
    if spec.has("internalTrafficPolicy") {
        spec.one_of("internalTrafficPolicy", POLICIES);
    }
    if spec.has("trafficDistribution") {
        spec.one_of("trafficDistribution", DISTRIBUTIONS);
    }
}
