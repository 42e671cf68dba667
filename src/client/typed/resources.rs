//! Amounts of resources: what Pods ask for and what nodes have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use api::quantity;

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// By resource name; `cpu` in thousandths, everything else in its own unit.
pub type Amounts = BTreeMap<String, i64>;

fn amount(name: &str, quantity: &Quantity) -> i64 {
    let parsed = quantity::Quantity::parse(&quantity.0).unwrap_or_else(|_| quantity::Quantity::from_units(0));
    if name == CPU { parsed.milli() } else { parsed.value() }
}

/// Reads a resource list.
pub fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter().flatten().map(|(name, quantity)| (name.clone(), amount(name, quantity))).collect()
}

/// Adds `more`, `times` times (-1 takes it away).
pub fn add(total: &mut Amounts, more: &Amounts, times: i64) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += amount * times;
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let entry = total.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|resources| resources.requests.as_ref()))
}

/// What a Pod asks for: its containers together, or the highest moment of its init containers where that
/// is more; sidecars run beside everything that starts after them. Pod-level requests count instead of the
/// containers' for the resources they name.
pub fn requested(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = of_containers(spec, |container| requests(container.resources.as_ref()));
    total.extend(requests(spec.resources.as_ref()));
    add(&mut total, &amounts(spec.overhead.as_ref()), 1);
    total
}

/// What a Pod may use at most, summed as [`requested`] is; what no container limits is absent.
pub fn limited(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let limits = |resources: Option<&ResourceRequirements>| {
        amounts(resources.and_then(|resources| resources.limits.as_ref()))
    };
    let mut total = of_containers(spec, |container| limits(container.resources.as_ref()));
    total.extend(limits(spec.resources.as_ref()));
    total
}

fn of_containers(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in &spec.containers {
        add(&mut total, &of(container), 1);
    }
    for init in spec.init_containers.iter().flatten() {
        let mut moment = of(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &moment, 1);
            add(&mut sidecars, &moment, 1);
            raise(&mut peak, &sidecars);
        } else {
            add(&mut moment, &sidecars, 1);
            raise(&mut peak, &moment);
        }
    }
    raise(&mut total, &peak);
    total
}

/// What scores count for a Pod: a container that asks for nothing is taken for a tenth of a core and
/// 200 MiB, so that such Pods spread too.
pub fn assumed(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let defaults = [(CPU, 100), (MEMORY, 200 << 20)];
    of_containers(spec, |container| {
        let mut amounts = requests(container.resources.as_ref());
        amounts.retain(|name, _| name == CPU || name == MEMORY);
        for (name, least) in defaults {
            amounts.entry(name.to_owned()).or_insert(least);
        }
        amounts
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn requests_add_up_as_upstream_defines() {
        let check = |spec: Value, cpu: i64| {
            let pod: Pod = from_value(json!({"spec": spec})).unwrap();
            assert_eq!(requested(&pod).get(CPU).copied().unwrap_or(0), cpu, "{spec}");
        };
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}});
        check(json!({"containers": [c("100m"), c("0.2")]}), 300);
        check(json!({"containers": [c("100m")], "initContainers": [c("1")]}), 1000);
        check(json!({"containers": [c("100m")], "initContainers": [sidecar.clone(), c("1")]}), 1050);
        check(json!({"containers": [c("100m")], "initContainers": [sidecar]}), 150);
        check(json!({"containers": [c("100m")], "overhead": {"cpu": "10m"}}), 110);
        check(json!({"containers": [c("100m")], "resources": {"requests": {"cpu": "2"}}}), 2000);
    }
}
