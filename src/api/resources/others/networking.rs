//! NetworkPolicies, Ingresses and their classes, and the ranges Services' addresses come from.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, check, cidr, dns1035_label, dns1123_label, dns1123_subdomain, domain_prefixed_path,
    ip_address, label_selector, load_balancer, path_segment_name, port_name, port_number,
    wildcard_dns1123_subdomain,
};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    /// Rule: `SetDefaults_NetworkPolicy`: ingress always, egress if it is spoken of.
    fn default(&self, policy: &mut Value) {
        let spec = policy.open("spec");
        if spec.array_at("/policyTypes").is_empty() {
            let egress = !spec.array_at("/egress").is_empty();
            spec.put("policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
        for direction in ["ingress", "egress"] {
            spec.each(direction, |rule| rule.each("ports", |port| port.fill("protocol", "TCP")));
        }
    }

    /// Rule: `ValidateNetworkPolicySpec`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            label_selector(spec, "podSelector");
            for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
                spec.each(direction, |rule| {
                    rule.each("ports", policy_port);
                    rule.each(peers, peer);
                });
            }
            if spec.list("policyTypes").len() > 2 {
                spec.invalid("policyTypes", "may not specify more than two policyTypes");
                return;
            }
            spec.each("policyTypes", |kind| {
                let name = kind.value.as_str().unwrap_or_default();
                if !["Ingress", "Egress"].contains(&name) {
                    kind.push(FieldError::not_supported(&kind.path, name, &["Ingress", "Egress"]));
                }
            });
        })
    }
}

fn policy_port(port: &mut Check<'_, '_>) {
    port.one_of("protocol", &["SCTP", "TCP", "UDP"]);
    match port.get("port") {
        Value::String(name) => {
            port.follow("port", port_name(name));
            if port.has("endPort") {
                port.invalid("endPort", "may not be specified when `port` is non-numeric");
            }
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(0);
            port.follow("port", port_number(number));
            if let Some(end) = port.int("endPort") {
                if end < number {
                    port.invalid("endPort", "must be greater than or equal to `port`");
                }
                port.follow("endPort", port_number(end));
            }
        }
        _ if port.has("endPort") => {
            port.invalid("endPort", "may not be specified when `port` is not specified")
        }
        _ => {}
    }
}

fn peer(peer: &mut Check<'_, '_>) {
    label_selector(peer, "podSelector");
    label_selector(peer, "namespaceSelector");
    peer.within("ipBlock", ip_block);
    let said = ["podSelector", "namespaceSelector", "ipBlock"].iter().filter(|key| peer.has(key)).count();
    if said == 0 {
        peer.push(FieldError::required(&peer.path, "must specify a peer"));
    } else if said > 1 && peer.has("ipBlock") {
        peer.push(FieldError::forbidden(&peer.path, "may not specify both ipBlock and another peer"));
    }
}

fn ip_block(block: &mut Check<'_, '_>) {
    let range = block.need("cidr", "");
    if range.is_empty() {
        return;
    }
    block.follow("cidr", cidr(range));
    let Ok(outer) = range.parse::<IpNet>() else { return };
    block.each("except", |except| {
        let text = except.value.as_str().unwrap_or_default();
        except.follow_here(cidr(text));
        if let Ok(inner) = text.parse::<IpNet>()
            && (!outer.contains(&inner.addr()) || outer.prefix_len() >= inner.prefix_len())
        {
            except.wrong("must be a strict subset of `cidr`");
        }
    });
}

pub struct Ingress;

impl Strategy for Ingress {
    fn prepare_create(&self, ingress: &mut Value) {
        ingress.put("status", json!({"loadBalancer": {}}));
    }

    /// Rule: `ValidateIngressStatusUpdate`.
    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        load_balancer(new)
    }

    /// Rule: `ValidateIngressSpec`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        const CLASS: &str = "kubernetes.io/ingress.class";
        let mut errors = check(new, "spec", |spec| {
            spec.each("tls", |tls| {
                tls.each("hosts", |host| {
                    let name = host.value.as_str().unwrap_or_default();
                    host.follow_here(host_name(name));
                });
                tls.named("secretName", dns1123_subdomain);
            });
            if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
                spec.wrong("either `defaultBackend` or `rules` must be specified");
            }
            spec.within("defaultBackend", backend);
            spec.each("rules", ingress_rule);
            if spec.has("ingressClassName") {
                spec.follow("ingressClassName", dns1123_subdomain(spec.text("ingressClassName")));
            }
        });
        if old.is_none()
            && let Some(class) = new.annotation(CLASS).filter(|_| new["spec"].has("ingressClassName"))
        {
            let why = "can not be set when the class field is also set";
            errors.push(FieldError::invalid(format!("annotations.{CLASS}"), class, why));
        }
        errors
    }
}

fn host_name(name: &str) -> Vec<String> {
    if name.contains('*') { wildcard_dns1123_subdomain(name) } else { dns1123_subdomain(name) }
}

fn ingress_rule(rule: &mut Check<'_, '_>) {
    let host = rule.text("host");
    if !host.is_empty() {
        if ip_address(host).is_empty() {
            rule.invalid("host", "must be a DNS name, not an IP address");
        }
        rule.follow("host", host_name(host));
    }
    rule.within("http", |http| {
        if http.list("paths").is_empty() {
            http.required("paths", "");
        }
        http.each("paths", ingress_path);
    });
}

fn ingress_path(item: &mut Check<'_, '_>) {
    let path = item.text("path");
    match item.text("pathType") {
        // Upstream says no more of such a path.
        _ if !item.has("pathType") => return item.required("pathType", "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                item.push(FieldError::invalid(item.at("path"), path, "must be an absolute path"));
            }
            if !path.is_empty() {
                for part in ["//", "/./", "/../", "%2f", "%2F"] {
                    if path.contains(part) {
                        item.invalid("path", format!("must not contain '{part}'"));
                    }
                }
                for end in ["/..", "/."] {
                    if path.ends_with(end) {
                        item.invalid("path", format!("cannot end with '{end}'"));
                    }
                }
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                item.invalid("path", "must be an absolute path");
            }
        }
        _ => item.one_of("pathType", PATH_TYPES),
    }
    backend(&mut item.child("backend"));
}

fn backend(backend: &mut Check<'_, '_>) {
    match (backend.has("resource"), backend.has("service")) {
        (true, true) => {
            let why = "cannot set both resource and service backends";
            backend.push(FieldError::invalid(&backend.path, "", why));
        }
        (false, false) => {
            backend.push(FieldError::invalid(&backend.path, "", "resource or service backend is required"));
        }
        (true, false) => backend.within("resource", |resource| {
            resource.need("kind", "");
            resource.need("name", "");
        }),
        (false, true) => {
            let whole = backend.path.clone();
            backend.within("service", |service| {
                service.need_named("name", dns1035_label);
                let mut port = service.child("port");
                match (port.text("name").is_empty(), port.int("number").unwrap_or(0)) {
                    (false, number) if number != 0 => {
                        let why = "cannot set both port name & port number";
                        port.push(FieldError::invalid(whole, "", why));
                    }
                    (false, _) => port.named("name", port_name),
                    (true, 0) => {
                        port.push(FieldError::required(whole, "port name or number is required"));
                    }
                    (true, number) => port.follow("number", port_number(number)),
                }
            });
        }
    }
}

pub struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, class: &mut Value) {
        class.within("spec", |spec| {
            spec.within("parameters", |parameters| parameters.fill("scope", "Cluster"));
        });
    }

    /// Rule: `ValidateIngressClass`, and that the controller stays.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            let controller = spec.text("controller");
            if let Some(old) = old {
                spec.immutable("controller", &old["spec"]);
            }
            if controller.len() > 250 {
                spec.push(FieldError::too_long(spec.at("controller"), 250));
            }
            if !spec.need("controller", "").is_empty() {
                spec.follow("controller", domain_prefixed_path(controller));
            }
            spec.within("parameters", |parameters| {
                parameters.named("apiGroup", dns1123_subdomain);
                if !parameters.need("kind", "kind is required").is_empty() {
                    parameters.named("kind", path_segment_name);
                }
                if !parameters.need("name", "name is required").is_empty() {
                    parameters.named("name", path_segment_name);
                }
                parameters.need_one_of("scope", &["Cluster", "Namespace"], "");
                let namespaced = parameters.has("namespace");
                match parameters.text("scope") {
                    "Namespace" if !namespaced => {
                        parameters.required("namespace", "`parameters.scope` is set to 'Namespace'");
                    }
                    "Namespace" => parameters.named("namespace", dns1123_label),
                    "Cluster" if namespaced => {
                        parameters.forbidden("namespace", "`parameters.scope` is set to 'Cluster'");
                    }
                    _ => {}
                }
            });
        })
    }
}

pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            let count = spec.list("cidrs").len();
            if count == 0 {
                spec.required("cidrs", "at least one CIDR required");
            } else if count > 2 {
                spec.invalid("cidrs", "may only hold up to 2 values");
            }
            spec.each("cidrs", |range| range.follow_here(cidr(range.value.as_str().unwrap_or_default())));
            if let Some(old) = old {
                spec.immutable("cidrs", &old["spec"]);
            }
        })
    }
}

pub struct IpAddress;

impl Strategy for IpAddress {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = ip_address(new.name())
            .into_iter()
            .map(|why| FieldError::invalid("metadata.name", new.name(), why))
            .collect();
        errors.extend(check(new, "spec", |spec| {
            if let Some(old) = old {
                spec.immutable("parentRef", &old["spec"]);
            }
            if !spec.has("parentRef") {
                spec.required("parentRef", "");
            }
            spec.within("parentRef", |parent| {
                parent.named("group", dns1123_subdomain);
                parent.need_named("resource", path_segment_name);
                parent.need_named("name", path_segment_name);
                parent.named("namespace", path_segment_name);
            });
        }));
        errors
    }

    fn selectable_fields(&self, address: &Value) -> Vec<(&'static str, String)> {
        let text = |key: &str| address["spec"]["parentRef"].text(key).unwrap_or_default().to_owned();
        vec![("spec.parentRef.name", text("name")), ("spec.parentRef.resource", text("resource"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::strategy::testing;

    fn check(strategy: &dyn Strategy, spec: Value, expect: &[&str]) {
        testing::check(strategy, json!({"metadata": {"name": "n"}, "spec": spec}), expect);
    }

    #[test]
    fn policies() {
        let rule = |rule: Value| json!({"podSelector": {}, "ingress": [rule]});
        check(&NetworkPolicy, rule(json!({"from": [{"podSelector": {}}], "ports": [{"port": 80}]})), &[]);
        check(
            &NetworkPolicy,
            rule(json!({"from": [{}]})),
            &["spec.ingress[0].from[0]: Required value: must specify a peer"],
        );
        check(
            &NetworkPolicy,
            rule(json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]})),
            &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
        );
        check(
            &NetworkPolicy,
            rule(json!({"from": [{"ipBlock": {"cidr": "x"}}]})),
            &[
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
        check(
            &NetworkPolicy,
            rule(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/24"]}}]})),
            &[
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/24\": must be a strict subset of `cidr`",
            ],
        );
        check(
            &NetworkPolicy,
            rule(json!({"ports": [{"port": 0}]})),
            &["spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        );
        check(
            &NetworkPolicy,
            rule(json!({"ports": [{"port": 80, "endPort": 79}]})),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`"],
        );
        check(
            &NetworkPolicy,
            json!({"podSelector": {}, "policyTypes": ["Odd"]}),
            &["spec.policyTypes[0]: Unsupported value: \"Odd\": supported values: \"Ingress\", \"Egress\""],
        );
    }

    #[test]
    fn ingresses() {
        let path = |path: Value| json!({"rules": [{"http": {"paths": [path]}}]});
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        check(&Ingress, path(json!({"path": "/", "pathType": "Prefix", "backend": service})), &[]);
        check(
            &Ingress,
            json!({}),
            &["spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified"],
        );
        let at = "spec.rules[0].http.paths[0]";
        check(
            &Ingress,
            path(json!({"path": "/", "backend": service})),
            &[&format!("{at}.pathType: Required value: pathType must be specified")],
        );
        check(
            &Ingress,
            path(json!({"path": "a", "pathType": "Exact", "backend": service})),
            &[&format!("{at}.path: Invalid value: \"a\": must be an absolute path")],
        );
        check(
            &Ingress,
            path(json!({"path": "/a//b", "pathType": "Exact", "backend": service})),
            &[&format!("{at}.path: Invalid value: \"/a//b\": must not contain '//'")],
        );
        check(
            &Ingress,
            path(json!({"path": "/", "pathType": "Odd", "backend": service})),
            &[&format!(
                "{at}.pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
            )],
        );
        check(
            &Ingress,
            path(json!({"path": "/", "pathType": "Prefix"})),
            &[&format!("{at}.backend: Invalid value: \"\": resource or service backend is required")],
        );
        check(
            &Ingress,
            path(json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web"}}})),
            &[&format!("{at}.backend: Required value: port name or number is required")],
        );
        check(
            &Ingress,
            json!({"rules": [{"host": "1.2.3.4"}]}),
            &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
        );
        check(
            &Ingress,
            json!({"rules": [{"http": {"paths": []}}]}),
            &["spec.rules[0].http.paths: Required value"],
        );
        check(
            &IngressClass,
            json!({"controller": "nginx"}),
            &[
                "spec.controller: Invalid value: \"nginx\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ],
        );
        check(
            &IngressClass,
            json!({"controller": "a.io/b", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}),
            &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        );
    }
}
