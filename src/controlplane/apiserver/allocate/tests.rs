//! Tests of the allocator.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn allocator() -> Arc<Allocator> {
    Allocator::new("10.43.0.0/24".parse().unwrap(), &["10.43.0.10".parse().unwrap()], super::NODE_PORTS)
}

fn service(uid: &str, spec: Value) -> Value {
    json!({"metadata": {"name": uid, "namespace": "default", "uid": uid}, "spec": spec})
}

fn write(
    allocator: &Arc<Allocator>,
    mut object: Value,
    old: Option<&Value>,
) -> Result<(Value, Box<Hold>), ApiError> {
    let hold = allocator.allocate(&mut object, old)?;
    Ok((object, Box::new(hold)))
}

fn create(allocator: &Arc<Allocator>, uid: &str, spec: Value) -> Result<Value, ApiError> {
    let (made, hold) = write(allocator, service(uid, spec), None)?;
    hold.commit();
    allocator.changed(&key(uid), Some(&made), None);
    Ok(made)
}

fn key(name: &str) -> String {
    SERVICES.key("default", name)
}

fn counts(allocator: &Allocator) -> (usize, usize) {
    let pools = allocator.lock();
    (pools.addresses.len(), pools.ports.len())
}

#[test]
fn a_plain_service_gets_an_address_and_families() {
    let allocator = allocator();
    let made = create(
        &allocator,
        "a",
        json!({"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"port": 80}]}),
    )
    .unwrap();
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.43.0."));
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(made["spec"]["ipFamilyPolicy"], "SingleStack");
    assert_eq!(counts(&allocator), (1, 0));
    allocator.changed(&key("a"), None, Some(&made));
    assert_eq!(counts(&allocator), (0, 0));
}

#[test]
fn what_is_not_committed_is_given_back() {
    let allocator = allocator();
    let (_, hold) =
        write(&allocator, service("a", json!({"type": "NodePort", "ports": [{"port": 80}]})), None).unwrap();
    assert_eq!(counts(&allocator), (1, 1));
    drop(hold);
    assert_eq!(counts(&allocator), (0, 0));
}

#[test]
fn the_whole_range_is_given_out_once_and_then_no_more() {
    let allocator = allocator();
    let mut seen = std::collections::HashSet::new();
    for n in 0..253 {
        let made = create(&allocator, &format!("s{n}"), json!({"ports": [{"port": 80}]})).unwrap();
        let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert_ne!(address, "10.43.0.10", "reserved");
        assert!(seen.insert(address));
    }
    let error = create(&allocator, "late", json!({"ports": [{"port": 80}]})).unwrap_err();
    assert!(error.message.contains("range is full"), "{}", error.message);
    create(&allocator, "dns", json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53}]})).unwrap();
}

#[test]
fn refusals_are_upstreams() {
    let allocator = allocator();
    create(
        &allocator,
        "a",
        json!({"type": "NodePort", "clusterIP": "10.43.0.7", "ports": [{"port": 80, "nodePort": 30080}]}),
    )
    .unwrap();
    let refused = |spec: Value, expect: &str| {
        let error = create(&allocator, "b", spec).unwrap_err();
        assert_eq!(error.message, format!("Service \"b\" is invalid: {expect}"));
        assert_eq!(error.code, 422);
    };
    refused(
        json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}),
        r#"spec.clusterIPs: Invalid value: ["10.43.0.7"]: failed to allocate IP 10.43.0.7: provided IP is already allocated"#,
    );
    refused(
        json!({"clusterIP": "1.2.3.4", "ports": [{"port": 80}]}),
        r#"spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs is 10.43.0.0/24"#,
    );
    refused(
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
    );
    refused(
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
    );
    assert_eq!(counts(&allocator), (1, 1), "a refusal leaves nothing behind");
}

#[test]
fn updates_keep_what_they_leave_out_and_release_what_the_type_lost() {
    let allocator = allocator();
    let old =
        create(&allocator, "a", json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}))
            .unwrap();
    let (kept, hold) = write(
        &allocator,
        service("a", json!({"type": "LoadBalancer", "selector": {"a": "b"}, "ports": [{"port": 80}]})),
        Some(&old),
    )
    .unwrap();
    hold.commit();
    assert_eq!(kept["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(kept["spec"]["ports"], old["spec"]["ports"]);
    let mut plain = kept.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    let (plain, hold) = write(&allocator, plain, Some(&kept)).unwrap();
    hold.commit();
    allocator.changed(&key("a"), Some(&plain), Some(&kept));
    assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(counts(&allocator), (1, 0));
    let mut external = plain.clone();
    external["spec"]["type"] = "ExternalName".into();
    let (external, hold) = write(&allocator, external, Some(&plain)).unwrap();
    hold.commit();
    allocator.changed(&key("a"), Some(&external), Some(&plain));
    assert_eq!(external["spec"].get("clusterIP"), None);
    assert_eq!(counts(&allocator), (0, 0));
}

#[test]
fn headless_services_get_nothing() {
    let allocator = allocator();
    let made = create(
        &allocator,
        "a",
        json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}),
    )
    .unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    let made = create(&allocator, "b", json!({"clusterIP": "None"})).unwrap();
    assert_eq!(made["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(counts(&allocator), (0, 0));
}

#[test]
fn one_number_serves_both_protocols_of_a_port() {
    let allocator = allocator();
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    let made = create(&allocator, "a", json!({"type": "NodePort", "ports": ports})).unwrap();
    assert_eq!(made["spec"]["ports"][0]["nodePort"], made["spec"]["ports"][1]["nodePort"]);
    assert_eq!(counts(&allocator), (1, 1));
}

#[test]
fn the_plural_follows_the_singular_of_an_older_client() {
    let allocator = allocator();
    let ports = json!([{"port": 80}]);
    let old = create(&allocator, "a", json!({"clusterIP": "10.43.0.7", "ports": ports})).unwrap();
    let update = |address: Value| {
        let mut new = old.clone();
        new["spec"]["clusterIP"] = address;
        write(&allocator, new, Some(&old)).unwrap().0["spec"]["clusterIPs"].clone()
    };
    assert_eq!(update(json!("None")), json!(["None"]));
    assert_eq!(update(json!("")), json!(["10.43.0.7"]));
    assert_eq!(update(Value::Null), json!(["10.43.0.7"]));
    for addresses in [json!(["10.43.0.8"]), json!(["10.43.0.7", "fd00::7"])] {
        let mut new = old.clone();
        new["spec"]["clusterIPs"] = addresses.clone();
        assert!(write(&allocator, new, Some(&old)).is_err(), "{addresses}");
    }
}

#[test]
fn a_successor_of_the_same_name_keeps_its_own() {
    let allocator = allocator();
    let old = create(&allocator, "a", json!({"ports": [{"port": 80}]})).unwrap();
    let mut new = service("a", json!({"clusterIP": "10.43.0.99", "ports": [{"port": 80}]}));
    new["metadata"]["uid"] = "a2".into();
    let (new, hold) = write(&allocator, new, None).unwrap();
    hold.commit();
    allocator.changed(&key("a"), None, Some(&old));
    allocator.changed(&key("a"), Some(&new), None);
    assert_eq!(counts(&allocator), (1, 0));
}
