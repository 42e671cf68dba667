//! What objects use of a namespace's ResourceQuotas, and which quotas count them. Rule: upstream's quota evaluators.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::meta::ObjectExt;
use super::quantity::Quantity;

/// Amounts by the name that a quota has for them.
pub type Amounts = BTreeMap<String, Quantity>;

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Resources that quotas may count by their plain name.
const PLAIN: [&str; 7] = [
    "pods",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "resourcequotas",
];

/// Adds to an amount.
pub fn add(amounts: &mut Amounts, name: &str, more: Quantity) {
    let sum = amounts.get(name).copied().unwrap_or(Quantity::ZERO) + more;
    amounts.insert(name.to_owned(), sum);
}

/// Adds all amounts of another map.
pub fn add_all(amounts: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        add(amounts, name, *amount);
    }
}

fn read(map: Option<&Value>) -> Amounts {
    let members = map.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

/// What a quota allows.
pub fn hard(quota: &Value) -> Amounts {
    read(quota.pointer("/spec/hard"))
}

/// A Pod's `requests` or `limits`: the containers together with the sidecars, or the largest init container where that
/// is more, and what the runtime takes.
pub fn pod_total(pod: &Value, field: &str) -> Amounts {
    let own = |container: &Value| read(container.pointer(&format!("/resources/{field}")));
    let mut total = Amounts::new();
    for container in pod.array_at("/spec/containers") {
        add_all(&mut total, &own(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in pod.array_at("/spec/initContainers") {
        let mut now = sidecars.clone();
        add_all(&mut now, &own(container));
        if container.text("restartPolicy") == Some("Always") {
            sidecars = now.clone();
        }
        raise(&mut peak, &now);
    }
    add_all(&mut total, &sidecars);
    raise(&mut total, &peak);
    // What is said of the Pod as a whole counts instead of what its containers say.
    for (name, amount) in read(pod.pointer(&format!("/spec/resources/{field}"))) {
        total.insert(name, amount);
    }
    for (name, amount) in read(pod.pointer("/spec/overhead")) {
        if field == "requests" || total.contains_key(&name) {
            add(&mut total, &name, amount);
        }
    }
    total
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        if total.get(name).is_none_or(|before| before < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// Whether a Pod has ended, so that it uses nothing any more.
fn has_ended(pod: &Value) -> bool {
    matches!(pod.str_at("/status/phase"), Some("Succeeded" | "Failed"))
}

/// What an object of this resource uses.
pub fn usage(group: &str, resource: &str, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    let one = Quantity::from_units(1);
    let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    add(&mut used, &format!("count/{qualified}"), one);
    if !group.is_empty() {
        return used;
    }
    match resource {
        "pods" if has_ended(object) => {}
        "pods" => pod_usage(object, &mut used),
        "services" => service_usage(object, &mut used),
        "persistentvolumeclaims" => claim_usage(object, &mut used),
        _ => {}
    }
    if PLAIN.contains(&resource) && !(resource == "pods" && has_ended(object)) {
        add(&mut used, resource, one);
    }
    used
}

fn pod_usage(pod: &Value, used: &mut Amounts) {
    for (name, amount) in pod_total(pod, "requests") {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            add(used, &name, amount);
        }
        add(used, &format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(pod, "limits") {
        if COMPUTE.contains(&name.as_str()) {
            add(used, &format!("limits.{name}"), amount);
        }
    }
}

fn service_usage(service: &Value, used: &mut Amounts) {
    let ports = i64::try_from(service.array_at("/spec/ports").len()).unwrap_or(i64::MAX);
    match service.str_at("/spec/type") {
        Some("NodePort") => add(used, "services.nodeports", Quantity::from_units(ports)),
        Some("LoadBalancer") => {
            add(used, "services.loadbalancers", Quantity::from_units(1));
            let ports = if service.bool_at("/spec/allocateLoadBalancerNodePorts") == Some(false) {
                let given = service.array_at("/spec/ports").iter();
                given.filter(|port| port.int_at("/nodePort").unwrap_or(0) != 0).count()
            } else {
                service.array_at("/spec/ports").len()
            };
            add(used, "services.nodeports", Quantity::from_units(i64::try_from(ports).unwrap_or(i64::MAX)));
        }
        _ => {}
    }
}

fn claim_usage(claim: &Value, used: &mut Amounts) {
    const SUFFIX: &str = "storageclass.storage.k8s.io";
    let class = claim.str_at("/spec/storageClassName").unwrap_or_default();
    if !class.is_empty() {
        add(used, &format!("{class}.{SUFFIX}/persistentvolumeclaims"), Quantity::from_units(1));
    }
    let size = claim.pointer("/spec/resources/requests/storage").and_then(|v| Quantity::from_value(v).ok());
    if let Some(size) = size {
        add(used, "requests.storage", size);
        if !class.is_empty() {
            add(used, &format!("{class}.{SUFFIX}/requests.storage"), size);
        }
    }
}

/// Whether a quota counts the object: it is in all of the quota's scopes.
pub fn counts(quota: &Value, group: &str, resource: &str, object: &Value) -> bool {
    let plain = quota.array_at("/spec/scopes").iter().filter_map(Value::as_str);
    let selected = quota.array_at("/spec/scopeSelector/matchExpressions");
    let is_pod = group.is_empty() && resource == "pods";
    let is_claim = group.is_empty() && resource == "persistentvolumeclaims";
    let fits = |scope: &str, operator: &str, values: &[Value]| match scope {
        "VolumeAttributesClass" if is_claim => {
            let class = object.str_at("/spec/volumeAttributesClassName").unwrap_or_default();
            selects(class, operator, values)
        }
        _ if is_pod => pod_in_scope(object, scope, operator, values),
        _ => false,
    };
    plain.into_iter().all(|scope| fits(scope, "Exists", &[]))
        && selected.iter().all(|expression| {
            let text = |key: &str| expression.text(key).unwrap_or_default();
            fits(text("scopeName"), text("operator"), expression.array_at("/values"))
        })
}

fn selects(value: &str, operator: &str, values: &[Value]) -> bool {
    let listed = values.iter().any(|own| own == value);
    match operator {
        "In" => listed,
        "NotIn" => !listed,
        "DoesNotExist" => value.is_empty(),
        _ => !value.is_empty(),
    }
}

fn pod_in_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let deadline = pod.int_at("/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            selects(pod.str_at("/spec/priorityClassName").unwrap_or_default(), operator, values)
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    let asks = |field: &str| {
        let total = pod_total(pod, field);
        ["cpu", "memory"].iter().any(|name| total.get(*name).is_some_and(|amount| !amount.is_zero()))
    };
    !asks("requests") && !asks("limits")
}

fn crosses_namespaces(pod: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let list = |list: &str| pod.array_at(&format!("/spec/affinity/{kind}/{list}"));
        let preferred = list(PREFERRED).iter().filter_map(|term| term.get("podAffinityTerm"));
        list(REQUIRED).iter().chain(preferred).any(|term| {
            !term.array_at("/namespaces").is_empty()
                || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
        })
    })
}

/// What containers of a Pod must say because the quota limits it, and do not: resource, then containers.
pub fn unsaid(quota: &Value, pod: &Value) -> BTreeMap<String, BTreeSet<String>> {
    const NEEDED: [(&str, &str, &str); 6] = [
        ("cpu", "requests", "cpu"),
        ("memory", "requests", "memory"),
        ("requests.cpu", "requests", "cpu"),
        ("requests.memory", "requests", "memory"),
        ("limits.cpu", "limits", "cpu"),
        ("limits.memory", "limits", "memory"),
    ];
    let hard = hard(quota);
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let containers = pod.array_at("/spec/containers").iter().chain(pod.array_at("/spec/initContainers"));
    for container in containers {
        for (name, field, resource) in NEEDED.iter().filter(|(name, _, _)| hard.contains_key(*name)) {
            let said =
                |owner: &Value, root: &str| owner.pointer(&format!("{root}/{field}/{resource}")).is_some();
            if !said(container, "/resources") && !said(pod, "/spec/resources") {
                let who = container.text("name").unwrap_or_default().to_owned();
                missing.entry((*name).to_owned()).or_default().insert(who);
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(amounts: &Amounts) -> String {
        let parts: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        parts.join(",")
    }

    #[test]
    fn what_objects_use() {
        let check = |resource: &str, object: Value, expect: &str| {
            assert_eq!(shown(&usage("", resource, &object)), expect);
        };
        let pod = json!({"spec": {"containers": [
            {"resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "3"}}}]}});
        check(
            "pods",
            pod.clone(),
            "count/pods=1,cpu=3,limits.memory=1Gi,pods=1,requests.cpu=3,requests.example.com/gpu=2",
        );
        let mut ended = pod;
        ended["status"] = json!({"phase": "Succeeded"});
        check("pods", ended, "count/pods=1");
        check("configmaps", json!({}), "configmaps=1,count/configmaps=1");
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        check(
            "services",
            service,
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2",
        );
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        check(
            "persistentvolumeclaims",
            claim,
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
        );
        assert_eq!(shown(&usage("apps", "deployments", &json!({}))), "count/deployments.apps=1");
    }

    #[test]
    fn scopes_choose_what_counts() {
        let best_effort = json!({"spec": {"containers": [{}], "priorityClassName": "high"}});
        let check = |spec: Value, expect: bool| {
            assert_eq!(counts(&json!({"spec": spec}), "", "pods", &best_effort), expect, "{spec}");
        };
        check(json!({}), true);
        check(json!({"scopes": ["BestEffort", "NotTerminating"]}), true);
        check(json!({"scopes": ["NotBestEffort"]}), false);
        let class = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        check(class("In", json!(["high"])), true);
        check(class("NotIn", json!(["high"])), false);
        check(class("Exists", json!([])), true);
        assert!(!counts(&json!({"spec": {"scopes": ["Terminating"]}}), "", "services", &json!({})));
    }

    #[test]
    fn limited_resources_must_be_said() {
        let quota = json!({"spec": {"hard": {"limits.cpu": "1", "memory": "1Gi", "pods": "1"}}});
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"memory": "1"}}}, {"name": "b"}]}});
        let missing = unsaid(&quota, &pod);
        assert_eq!(missing["limits.cpu"].len(), 2);
        assert_eq!(missing["memory"].iter().collect::<Vec<_>>(), ["b"]);
    }
}
