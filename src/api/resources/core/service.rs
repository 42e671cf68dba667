//! What is particular to Services.

use serde_json::{Value, json};

use super::service_rules;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, check, load_balancer};

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
            spec.fill("internalTrafficPolicy", "Cluster");
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

    fn checks_prefix(&self) -> bool {
        true
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
        let mut errors = check(new, "spec", |spec| service_rules::validate(spec, old));
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

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        load_balancer(new)
    }

    fn selectable_fields(&self, service: &Value) -> Vec<(&'static str, String)> {
        let text = |pointer: &str| service.str_at(pointer).unwrap_or_default().to_owned();
        vec![("spec.clusterIP", text("/spec/clusterIP")), ("spec.type", text("/spec/type"))]
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
}
