use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::meta::ObjectExt;
use crate::api::resources::Strategy;
use crate::api::resources::fill::Fill;
use crate::api::validate::{
    FieldError, Path, dns1123_label, dns1123_subdomain, ip_address, labels_errors, port_name, port_number,
    special_address,
};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const AFFINITY_SECONDS: i64 = 10_800;

pub struct Service;

impl Strategy for Service {
    /// Rule: `SetDefaults_Service`.
    fn default(&self, service: &mut Value) {
        let spec = service.open("spec");
        spec.fill_text("type", "ClusterIP");
        spec.fill_text("sessionAffinity", "None");
        if spec.text("sessionAffinity") == Some("ClientIP") {
            spec.open("sessionAffinityConfig").open("clientIP").fill("timeoutSeconds", AFFINITY_SECONDS);
        } else if let Some(members) = spec.as_object_mut() {
            members.remove("sessionAffinityConfig");
        }
        let kind = spec.text("type").unwrap_or_default().to_owned();
        if kind == "NodePort" || kind == "LoadBalancer" {
            spec.fill_text("externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            spec.fill_text("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            spec.fill("allocateLoadBalancerNodePorts", true);
        }
        spec.each("ports", |port| {
            port.fill_text("protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or_default();
            if port.get("targetPort").is_none_or(|target| target.is_null() || *target == 0 || target == "") {
                port.put("targetPort", number);
            }
        });
        if service.pointer("/status/loadBalancer").is_none() {
            service.open("status").put("loadBalancer", json!({}));
        }
    }

    fn prepare_create(&self, service: &mut Value) {
        service.put("status", json!({"loadBalancer": {}}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // A Service that is no load balancer any more has no address of one.
        if old.str_at("/spec/type") == Some("LoadBalancer")
            && new.str_at("/spec/type") != Some("LoadBalancer")
        {
            new.put("status", json!({"loadBalancer": {}}));
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate(&new["spec"], &Path::new("spec"));
        let address = |service: &Value| service.str_at("/spec/clusterIP").unwrap_or_default().to_owned();
        if let Some(old) = old {
            let external = |service: &Value| service.str_at("/spec/type") == Some("ExternalName");
            let (before, now) = (address(old), address(new));
            if !external(old) && !external(new) && !before.is_empty() && before != now {
                let why = "may not change once set";
                errors.push(FieldError::invalid("spec.clusterIPs[0]", json!([now]), why));
            }
        }
        errors
    }

    fn selectable_fields(&self, service: &Value) -> Vec<(&'static str, String)> {
        let text = |pointer: &str| service.str_at(pointer).unwrap_or_default().to_owned();
        vec![("spec.clusterIP", text("/spec/clusterIP")), ("spec.type", text("/spec/type"))]
    }
}

/// Rule: `ValidateService`.
fn validate(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |key: &str| spec.text(key).unwrap_or_default();
    let kind = text("type");
    let headless = text("clusterIP") == "None";
    let ports = spec.array_at("/ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(path.child("ports"), ""));
    }
    let mut one_of = |field: &str, allowed: &[&str]| {
        if !allowed.contains(&text(field)) {
            errors.push(FieldError::not_supported(path.child(field), text(field), allowed));
        }
    };
    one_of("type", TYPES);
    one_of("sessionAffinity", AFFINITIES);
    if !text("externalTrafficPolicy").is_empty() {
        one_of("externalTrafficPolicy", POLICIES);
    }
    if spec.has("internalTrafficPolicy") {
        one_of("internalTrafficPolicy", POLICIES);
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(path.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => match text("externalName").trim_end_matches('.') {
            "" => errors.push(FieldError::required(path.child("externalName"), "")),
            name => {
                let wrong = dns1123_subdomain(name).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(path.child("externalName"), name, why)));
            }
        },
        _ => {}
    }
    let external = matches!(kind, "LoadBalancer" | "NodePort") || !spec.array_at("/externalIPs").is_empty();
    if !text("externalTrafficPolicy").is_empty() && !external {
        let why = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(
            path.child("externalTrafficPolicy"),
            text("externalTrafficPolicy"),
            why,
        ));
    }
    if !matches!(text("clusterIP"), "" | "None") {
        let wrong = ip_address(text("clusterIP")).into_iter();
        errors.extend(
            wrong.map(|why| FieldError::invalid(path.child("clusterIPs").index(0), text("clusterIP"), why)),
        );
    }
    for (index, ip) in spec.array_at("/externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let at = path.child("externalIPs").index(index);
        errors.extend(ip_address(ip).into_iter().map(|why| FieldError::invalid(&at, ip, why)));
    }
    errors.extend(labels_errors(spec.get("selector"), &path.child("selector")));
    validate_ports(ports, kind, &path.child("ports"), &mut errors);
    errors
}

fn validate_ports(ports: &[Value], kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let (mut names, mut pairs, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = port.text("name").unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(at.child("name"), ""));
            }
        } else {
            let wrong = dns1123_label(name).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(at.child("name"), name, why)));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(at.child("name"), name));
            }
        }
        let number = port.int_at("/port").unwrap_or_default();
        let wrong = port_number(number).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid(at.child("port"), number, why)));
        let protocol = port.text("protocol").unwrap_or_default();
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(at.child("protocol"), protocol, PROTOCOLS));
        }
        match &port["targetPort"] {
            Value::String(name) => {
                let wrong = port_name(name).into_iter();
                errors
                    .extend(wrong.map(|why| FieldError::invalid(at.child("targetPort"), name.as_str(), why)));
            }
            Value::Number(target) => {
                let wrong = port_number(target.as_i64().unwrap_or_default()).into_iter();
                errors.extend(
                    wrong.map(|why| FieldError::invalid(at.child("targetPort"), target.clone(), why)),
                );
            }
            _ => {}
        }
        if !pairs.insert((protocol, number)) {
            let pair = json!({"port": number, "protocol": protocol});
            errors.push(FieldError::duplicate(&at, pair));
        }
        let node_port = port.int_at("/nodePort").unwrap_or_default();
        if node_port != 0 {
            if !matches!(kind, "NodePort" | "LoadBalancer") {
                let why = format!("may not be used when `type` is '{kind}'");
                errors.push(FieldError::forbidden(at.child("nodePort"), why));
            } else if !node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(at.child("nodePort"), node_port));
            }
        }
    }
}

/// An address in `text` that traffic may not be sent to; a text that is none is somebody else's to refuse.
fn check_destination(text: &str, at: &Path) -> Option<FieldError> {
    let why = special_address(text.parse().ok()?)?;
    Some(FieldError::invalid(at, text, why))
}

pub struct Endpoints;

impl Strategy for Endpoints {
    fn validate(&self, new: &Value, _: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (subset_index, subset) in new.array_at("/subsets").iter().enumerate() {
            for list in ["addresses", "notReadyAddresses"] {
                let at = Path::new("subsets").index(subset_index).child(list);
                for (index, address) in subset.array_at(&format!("/{list}")).iter().enumerate() {
                    let ip = address.str_at("/ip").unwrap_or_default();
                    errors.extend(check_destination(ip, &at.index(index).child("ip")));
                }
            }
        }
        errors
    }

    fn default(&self, endpoints: &mut Value) {
        endpoints.each("subsets", |subset| subset.each("ports", |port| port.fill_text("protocol", "TCP")));
    }
}

pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    /// Rule: `SetDefaults_EndpointPort`.
    fn default(&self, slice: &mut Value) {
        slice.each("ports", |port| {
            port.fill("name", "");
            port.fill_text("protocol", "TCP");
        });
    }

    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        ["endpoints", "ports", "addressType"].iter().any(|member| new.get(*member) != old.get(*member))
            || new.pointer("/metadata/labels") != old.pointer("/metadata/labels")
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        const FAMILIES: &[&str] = &["FQDN", "IPv4", "IPv6"];
        let mut errors = Vec::new();
        match new.text("addressType").unwrap_or_default() {
            "" => errors.push(FieldError::required("addressType", "")),
            family if !FAMILIES.contains(&family) => {
                errors.push(FieldError::not_supported("addressType", family, FAMILIES));
            }
            family => {
                if old.is_some_and(|old| old.text("addressType") != Some(family)) {
                    errors.push(FieldError::invalid("addressType", family, "field is immutable"));
                }
            }
        }
        for (index, endpoint) in new.array_at("/endpoints").iter().enumerate() {
            let at = Path::new("endpoints").index(index).child("addresses");
            let addresses = endpoint.array_at("/addresses");
            if addresses.is_empty() {
                errors.push(FieldError::required(&at, "must contain at least 1 address"));
            }
            if new.text("addressType") == Some("IPv4") {
                for (index, address) in addresses.iter().enumerate() {
                    let address = address.as_str().unwrap_or_default();
                    if address.parse::<std::net::Ipv4Addr>().is_err() {
                        let why = "must be a valid IPv4 address";
                        errors.push(FieldError::invalid(at.index(index), address, why));
                    }
                }
            }
            for (index, address) in addresses.iter().enumerate() {
                errors.extend(check_destination(address.as_str().unwrap_or_default(), &at.index(index)));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
        Service.default(&mut service);
        service
    }

    fn check(spec: Value, expect: &[&str]) {
        let errors = Service.validate(&service(spec), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn defaults_follow_the_type() {
        let spec = &service(json!({"ports": [{"port": 80}], "type": "LoadBalancer"}))["spec"];
        assert_eq!(spec["ports"][0], json!({"port": 80, "targetPort": 80, "protocol": "TCP"}));
        assert_eq!(spec["externalTrafficPolicy"], "Cluster");
        assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
        let spec = &service(json!({"ports": [{"port": 80}]}))["spec"];
        assert_eq!(spec["type"], "ClusterIP");
        assert_eq!(spec.get("externalTrafficPolicy"), None);
    }

    #[test]
    fn ports_are_checked() {
        check(json!({"ports": [{"port": 80}]}), &[]);
        check(json!({}), &["spec.ports: Required value"]);
        check(
            json!({"ports": [{"port": 80}, {"port": 81}]}),
            &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        );
        check(
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        );
        check(
            json!({"type": "Odd", "ports": [{"port": 0}]}),
            &[
                "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        );
    }

    #[test]
    fn the_address_of_a_service_stays() {
        let with = |ip: &str| service(json!({"clusterIP": ip, "ports": [{"port": 80}]}));
        assert_eq!(Service.validate(&with("10.0.0.1"), Some(&with("10.0.0.1"))), []);
        assert_eq!(Service.validate(&with("10.0.0.2"), Some(&with("10.0.0.1"))).len(), 1);
    }

    #[test]
    fn endpoints_lead_to_no_machine_of_the_followers_own() {
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}, {"addresses": ["10.0.0.1"]}]});
        let told: Vec<_> = EndpointSlice.validate(&slice, None).iter().map(ToString::to_string).collect();
        let expect = "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)";
        assert_eq!(told, [expect]);
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "169.254.169.254"}]}]});
        assert_eq!(Endpoints.validate(&endpoints, None).len(), 1);
    }
}
