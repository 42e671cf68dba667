//! Which EndpointSlices a Service has: a pure function of what is observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::super::managed_slices::{MANAGED_BY, Op};
use super::super::service_pods::{
    HEADLESS, Port, address, hostname, is_headless, ports, publishes_not_ready, target_ref,
};
use client::typed::{Labels, SERVICE_NAME, is_ready, owner_ref};

pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Upstream's `--max-endpoints-per-slice`.
const MAX: usize = 100;

/// Nodes and the zones that they are in.
pub(super) type Zones = BTreeMap<String, String>;

/// For whom an endpoint is meant, by trafficDistribution: for its own zone, and before that its own node where that is
/// preferred. Where nothing is known of it, it is meant for everybody.
fn hints(service: &Service, node: Option<&String>, zone: Option<&String>) -> Option<EndpointHints> {
    let preferred = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let by_node = preferred == "PreferSameNode";
    if !by_node && !["PreferClose", "PreferSameZone"].contains(&preferred) {
        return None;
    }
    let for_nodes = node.filter(|_| by_node).map(|name| vec![ForNode { name: name.clone() }]);
    let for_zones = zone.map(|name| vec![ForZone { name: name.clone() }]);
    (for_nodes.is_some() || for_zones.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

fn endpoint(service: &Service, pod: &Pod, zones: &Zones) -> Option<Endpoint> {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publishes_not_ready(service) || serving && !terminating;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    let zone = node.and_then(|node| zones.get(node));
    Some(Endpoint {
        addresses: vec![address(pod)?.to_owned()],
        hints: hints(service, node, zone),
        zone: zone.cloned(),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node.cloned(),
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    })
}

fn slice_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let one = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(one).collect()
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn fresh(service: &Service, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![owner_ref(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        ports: Some(ports.to_vec()),
        endpoints: Some(endpoints),
    }
}

fn uid(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default()
}

/// What makes the slices right with the fewest writes: endpoints stay in the slice they are in, and new
/// ones fill the room there is.
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    zones: &Zones,
) -> Vec<Op> {
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        if let Some(endpoint) = endpoint(service, pod, zones) {
            groups.entry(ports(service, pod)).or_default().push(endpoint);
        }
    }
    let none = groups.is_empty();
    if none {
        // One empty slice says that the Service is known and leads nowhere.
        groups.insert(Vec::new(), Vec::new());
    }
    let mut left: Vec<&Arc<EndpointSlice>> =
        existing.iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
    let mut ops = Vec::new();
    for (ports, wanted) in groups {
        let ports = slice_ports(&ports);
        let usable = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == "IPv4" && (none || *slice.ports.as_deref().unwrap_or_default() == ports)
        };
        let (mut mine, others): (Vec<_>, Vec<_>) = left.into_iter().partition(usable);
        left = others;
        if none && mine.len() > 1 {
            left.extend(mine.split_off(1));
        }
        group(service, &ports, wanted, &mine, &mut ops);
    }
    ops.extend(left.into_iter().map(|slice| Op::Delete(slice.name_any())));
    ops
}

fn group(
    service: &Service,
    ports: &[EndpointPort],
    wanted: Vec<Endpoint>,
    mine: &[&Arc<EndpointSlice>],
    ops: &mut Vec<Op>,
) {
    let empty = wanted.is_empty();
    let mut wanted: BTreeMap<String, Endpoint> =
        wanted.into_iter().map(|endpoint| (uid(&endpoint).to_owned(), endpoint)).collect();
    let mut kept: Vec<Vec<Endpoint>> = Vec::new();
    for slice in mine {
        let old = slice.endpoints.iter().flatten();
        kept.push(old.filter_map(|endpoint| wanted.remove(uid(endpoint))).collect());
    }
    let mut new = wanted.into_values();
    for endpoints in &mut kept {
        // A slice that lost everything is deleted rather than filled, unless it is the only one.
        if !endpoints.is_empty() || mine.len() == 1 {
            endpoints.extend(new.by_ref().take(MAX.saturating_sub(endpoints.len())));
        }
    }
    for (slice, endpoints) in mine.iter().zip(kept) {
        if endpoints.is_empty() && !empty {
            ops.push(Op::Delete(slice.name_any()));
            continue;
        }
        let mut right = EndpointSlice::clone(slice);
        right.endpoints = Some(endpoints);
        right.metadata.labels = Some(labels(service));
        let same_endpoints =
            right.endpoints.as_deref().unwrap_or_default() == slice.endpoints.as_deref().unwrap_or_default();
        if !same_endpoints || right.metadata != slice.metadata {
            ops.push(Op::Update(Box::new(right)));
        }
    }
    let mut rest: Vec<Endpoint> = new.collect();
    while !rest.is_empty() {
        let more = rest.split_off(rest.len().min(MAX));
        ops.push(Op::Create(Box::new(fresh(service, ports, rest))));
        rest = more;
    }
    if empty && mine.is_empty() {
        ops.push(Op::Create(Box::new(fresh(service, ports, Vec::new()))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::{Value, from_value, json};

    use super::*;

    static MADE: AtomicUsize = AtomicUsize::new(0);

    fn service(spec: Value) -> Service {
        let mut all = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
        json_patch::merge(&mut all, &spec);
        from_value(json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s"}, "spec": all})).unwrap()
    }

    fn pod(n: usize, rest: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("u{n:04}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + n % 2}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250 + 1),
                "conditions": [{"type": "Ready", "status": "True"}]}});
        json_patch::merge(&mut value, &rest);
        Arc::new(from_value(value).unwrap())
    }

    /// Carries out operations on slices as the API server would.
    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Create(mut slice) => {
                    let made = MADE.fetch_add(1, Ordering::Relaxed);
                    slice.metadata.name = Some(format!("web-{made}"));
                    slices.push(Arc::from(slice));
                }
                Op::Update(new) => {
                    let at = slices.iter().position(|s| s.metadata.name == new.metadata.name).unwrap();
                    slices[at] = Arc::from(new);
                }
                Op::Delete(name) => slices.retain(|slice| slice.name_any() != name),
            }
        }
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
    }

    #[test]
    fn slices_fill_shrink_and_come_to_rest() {
        let service = service(json!({}));
        let mut slices = Vec::new();
        let mut step = |pods: &[Arc<Pod>], expect: &[usize]| {
            let ops = plan(&service, pods, &slices, &Zones::new());
            apply(&mut slices, ops);
            assert_eq!(sizes(&slices), expect);
            assert_eq!(plan(&service, pods, &slices, &Zones::new()), [], "at rest");
        };
        let pods: Vec<_> = (0..250).map(|n| pod(n, json!({}))).collect();
        step(&[], &[0]);
        step(&pods[..1], &[1]);
        step(&pods, &[100, 100, 50]);
        step(&pods[..120], &[100, 20]);
        step(&pods[..130], &[100, 30]);
        step(&[], &[0]);
    }

    #[test]
    fn named_ports_split_slices() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let pods: Vec<_> = (0..4).map(|n| pod(n, json!({}))).collect();
        let mut slices = Vec::new();
        apply(&mut slices, plan(&service, &pods, &[], &Zones::new()));
        assert_eq!(sizes(&slices), [2, 2]);
        let ports: Vec<_> = slices.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port).collect();
        assert_eq!(ports, [Some(8000), Some(8001)]);
    }

    #[test]
    fn conditions_say_ready_serving_and_terminating() {
        let check = |spec: Value, pod_rest: Value, expect: (bool, bool, bool)| {
            let endpoint = endpoint(&service(spec), &pod(1, pod_rest.clone()), &Zones::new()).unwrap();
            let c = endpoint.conditions.unwrap();
            assert_eq!((c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()), expect, "{pod_rest}");
        };
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let unready = json!({"status": {"conditions": []}});
        check(json!({}), json!({}), (true, true, false));
        check(json!({}), leaving.clone(), (false, true, true));
        check(json!({}), unready.clone(), (false, false, false));
        check(json!({"publishNotReadyAddresses": true}), unready, (true, false, false));
        check(json!({"publishNotReadyAddresses": true}), leaving, (true, true, true));
    }

    #[test]
    fn headless_names_and_labels() {
        let service = service(json!({"clusterIP": "None"}));
        let named = pod(1, json!({"spec": {"hostname": "db-0", "subdomain": "web"}}));
        let Some(Op::Create(slice)) = plan(&service, &[named], &[], &Zones::new()).pop() else {
            panic!("a slice")
        };
        assert_eq!(slice.endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("db-0"));
        assert!(slice.labels().contains_key(HEADLESS));
        assert_eq!(slice.labels()[SERVICE_NAME], "web");
    }

    #[test]
    fn hints_say_for_whom_an_endpoint_is_meant() {
        let check = |distribution: Value, zone: Option<&str>, expect: Value| {
            let zones = zone.map(|zone| ("n1".to_owned(), zone.to_owned())).into_iter().collect();
            let service = service(json!({"trafficDistribution": distribution}));
            let endpoint = endpoint(&service, &pod(1, json!({})), &zones).unwrap();
            assert_eq!(serde_json::to_value(&endpoint.hints).unwrap(), expect, "{distribution} {zone:?}");
            assert_eq!(endpoint.zone.as_deref(), zone);
        };
        let (node, zone) = (json!([{"name": "n1"}]), json!([{"name": "a"}]));
        check(json!(null), Some("a"), json!(null));
        check(json!("PreferClose"), Some("a"), json!({"forZones": zone}));
        check(json!("PreferSameZone"), None, json!(null));
        check(json!("PreferSameNode"), None, json!({"forNodes": node}));
        check(json!("PreferSameNode"), Some("a"), json!({"forNodes": node, "forZones": zone}));
    }
}
