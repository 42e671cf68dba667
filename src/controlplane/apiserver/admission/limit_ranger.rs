//! Admission by LimitRanges: defaults and bounds.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Attributes, Context, Operation, Plugin, pod};
use api::meta::ObjectExt;
use api::quantity::Quantity;
use api::quota::{Amounts, pod_total};
use api::status::ApiError;

/// Defaults for containers that name no requests or limits, and the bounds that LimitRanges set.
pub(super) struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        let mut notes = Vec::new();
        for item in
            items(context, attributes.namespace).filter(|item| item.str_at("/type") == Some("Container"))
        {
            let defaults = |field: &str| item.map_at(field).cloned().unwrap_or_default();
            let (limits, requests) = (defaults("/default"), defaults("/defaultRequest"));
            for (list, word) in [("initContainers", "init container"), ("containers", "container")] {
                let containers = object.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    let name = container.str_at("/name").unwrap_or_default().to_owned();
                    // Limits first: a default request never exceeds a limit that the author gave, for then there is one.
                    for (field, values, what) in
                        [("requests", &requests, "request"), ("limits", &limits, "limit")]
                    {
                        let set = fill(container, field, values);
                        if !set.is_empty() {
                            notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                        }
                    }
                }
            }
        }
        if !notes.is_empty() {
            object.set_annotation(ANNOTATION, &format!("LimitRanger plugin set: {}", notes.join("; ")));
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        let create = attributes.operation == Operation::Create;
        let Some(object) = attributes.object.as_ref() else { return Ok(()) };
        let mut problems = Vec::new();
        if create && attributes.is("", "pods") {
            for item in items(context, attributes.namespace) {
                check_pod(object, item, &mut problems);
            }
        } else if attributes.is("", "persistentvolumeclaims") && attributes.operation != Operation::Delete {
            let requests = object.map_at("/spec/resources/requests").map(quantities).unwrap_or_default();
            for item in items(context, attributes.namespace) {
                if item.str_at("/type") == Some("PersistentVolumeClaim") {
                    check(item, &requests, &BTreeMap::new(), &mut problems);
                }
            }
        }
        match &problems[..] {
            [] => Ok(()),
            [one] => Err(attributes.forbidden(one)),
            several => Err(attributes.forbidden(&format!("[{}]", several.join(", ")))),
        }
    }
}

fn items<'a>(context: &Context<'a>, namespace: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    context.known.limit_ranges(namespace).flat_map(|range| range.array_at("/spec/limits"))
}

fn quantities(map: &Map<String, Value>) -> Amounts {
    map.iter().filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

fn amounts(container: &Value, field: &str) -> Amounts {
    container.map_at(&format!("/resources/{field}")).map(quantities).unwrap_or_default()
}

/// Adds what is missing; returns the names of what was added.
fn fill(container: &mut Value, field: &str, values: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    let Some(container) = container.as_object_mut() else { return set };
    if values.is_empty() {
        return set;
    }
    let empty = || Value::Object(Map::new());
    let resources = container.entry("resources").or_insert_with(empty);
    let Some(resources) = resources.as_object_mut() else { return set };
    let Some(current) = resources.entry(field).or_insert_with(empty).as_object_mut() else { return set };
    for (name, value) in values {
        if !current.contains_key(name) {
            current.insert(name.clone(), value.clone());
            set.push(name.clone());
        }
    }
    set
}

fn check_pod(pod: &Value, item: &Value, problems: &mut Vec<String>) {
    match item.str_at("/type").unwrap_or_default() {
        "Container" => {
            for container in pod::containers(pod) {
                check(item, &amounts(container, "requests"), &amounts(container, "limits"), problems);
            }
        }
        "Pod" => {
            let (requests, limits) = (pod_total(pod, "requests"), pod_total(pod, "limits"));
            check(item, &requests, &limits, problems);
        }
        _ => {}
    }
}

fn check(item: &Value, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    let kind = item.str_at("/type").unwrap_or_default();
    let bounds = |field: &str| item.map_at(field).map(quantities).unwrap_or_default();
    for (name, min) in bounds("/min") {
        let shown = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => problems.push(format!("{shown}.  No request is specified")),
            (Some(request), _) if *request < min => {
                problems.push(format!("{shown}, but request is {request}"));
            }
            (Some(_), Some(limit)) if *limit < min => {
                problems.push(format!("{shown}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, max) in bounds("/max") {
        let shown = format!("maximum {name} usage per {kind} is {max}");
        if kind == "PersistentVolumeClaim" {
            if let Some(request) = requests.get(&name).filter(|request| **request > max) {
                problems.push(format!("{shown}, but request is {request}"));
            }
            continue;
        }
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => problems.push(format!("{shown}.  No limit is specified")),
            (Some(limit), _) if *limit > max => problems.push(format!("{shown}, but limit is {limit}")),
            (Some(_), Some(request)) if *request > max => {
                problems.push(format!("{shown}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in bounds("/maxLimitRequestRatio") {
        let (Some(request), Some(limit)) = (requests.get(&name), limits.get(&name)) else {
            problems.push(format!("{name} max limit to request ratio per {kind} is {ratio}, but no request is specified or request is 0"));
            continue;
        };
        if request.is_zero()
            || limit.milli() as f64 > request.milli() as f64 * (ratio.milli() as f64 / 1000.0)
        {
            let observed =
                if request.is_zero() { 0.0 } else { limit.milli() as f64 / request.milli() as f64 };
            problems.push(format!(
                "{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {observed:.6}"
            ));
        }
    }
}
