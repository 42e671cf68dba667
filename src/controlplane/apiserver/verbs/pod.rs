//! Binding and eviction of Pods.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use api::meta::{ObjectExt, format_time};
use api::selector::LabelSelector;
use api::status::{ApiError, Reason};
use api::validate::FieldError;
use storage::ListQuery;

use super::super::admission::Operation;
use super::super::context::{RequestContext, from_storage};
use super::super::convert;
use super::super::request::RequestInfo;
use super::super::reservation::Reservations;
use super::super::wire;
use super::delete::delete_object;
use super::delete_plan::DeleteOptions;
use super::write::{self, Admit, Decision, Write};
use super::{Answer, RequestBody};

fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// Assigns a Pod to a node: what schedulers do.
pub async fn bind(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    let dry_run = context.params.dry_run()?;
    let (binding, warnings) = context.decode(body)?;
    if !binding.name().is_empty() && binding.name() != context.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    check_target(&binding)?;
    let mut attributes = context.attributes(Operation::Create, Some(binding), None, dry_run);
    let mut reservations = context.engine.admission.mutate(&mut attributes).await?;
    context.engine.admission.validate(&attributes, &mut reservations).await?;
    let binding = attributes.object.take().ok_or_else(|| ApiError::internal("admission lost the object"))?;
    let write = Write { key: context.key(), admit: Admit::Nothing, tracks: false, fresh: false, dry_run };
    let written = write::write(context, write, |pod| {
        let pod = pod.ok_or_else(|| context.not_found())?;
        bound(pod, &binding, context.engine.clock.now())
            .map(Decision::Put)
            .map_err(|why| ApiError::conflict("", "pods/binding", &context.info.name, &why))
    });
    written.await?;
    let mut response = context.answer_document(StatusCode::CREATED, &success());
    wire::warn(&mut response, &warnings);
    Ok(response)
}

/// A binding names a node. Rule: `ValidatePodBinding`.
fn check_target(binding: &Value) -> Result<(), ApiError> {
    let kind = binding.str_at("/target/kind").unwrap_or_default();
    let error = if !matches!(kind, "" | "Node") {
        FieldError::not_supported("target.kind", kind, &["Node", "<empty>"])
    } else if binding.str_at("/target/name").unwrap_or_default().is_empty() {
        FieldError::required("target.name", "")
    } else {
        return Ok(());
    };
    Err(ApiError::bad_request(error.to_string()))
}

/// The Pod on the node that the binding names, or why it cannot be there.
fn bound(pod: &Value, binding: &Value, now: Timestamp) -> Result<Value, String> {
    let name = pod.name();
    if let Some(uid) = Some(binding.uid()).filter(|uid| !uid.is_empty() && *uid != pod.uid()) {
        return Err(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            pod.uid()
        ));
    }
    if pod.deletion_timestamp().is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod.str_at("/spec/nodeName").filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !pod.array_at("/spec/schedulingGates").is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = binding.str_at("/target/name").unwrap_or_default().into();
    for (key, value) in binding.annotations() {
        new.set_annotation(key, value);
    }
    for (key, value) in binding.labels() {
        new.set_label(key, value);
    }
    let mut scheduled = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": format_time(now),
    });
    if pod.generation() > 0 {
        scheduled["observedGeneration"] = pod.generation().into();
    }
    set_condition(&mut new, scheduled);
    Ok(new)
}

/// Puts a condition among the status's, in the place of the one of its type.
fn set_condition(pod: &mut Value, condition: Value) {
    let kind = condition["type"].clone();
    if pod.pointer("/status/conditions").and_then(Value::as_array).is_none() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else {
        return;
    };
    match conditions.iter_mut().find(|standing| standing["type"] == kind) {
        Some(standing) => *standing = condition,
        None => conditions.push(condition),
    }
}

/// Deletes a Pod unless a disruption budget says that it is needed: what `kubectl drain` does.
pub async fn evict(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    let (eviction, _) = context.decode(body)?;
    if !eviction.name().is_empty() && eviction.name() != context.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let said = eviction.get("deleteOptions").filter(|options| !options.is_null());
    let nothing = json!({});
    let (options, dry) = DeleteOptions::read(Some(said.unwrap_or(&nothing)), &context.params)?;
    // Rule: `propagateDryRun`. The query is that of a create, and either may say it.
    let dry_run = dry || context.params.dry_run()?;
    let entry = context.stored().await?;
    let pod = context.read(&entry)?;
    options.check_preconditions(&pod, context.resource)?;
    let attributes = context.attributes(Operation::Create, Some(eviction), None, dry_run);
    context.engine.admission.validate(&attributes, &mut Reservations::default()).await?;
    if needs_budget(&pod) {
        spend_budget(context, &pod, dry_run).await?;
        mark_disrupted(context, dry_run).await?;
    }
    let info = RequestInfo { subresource: String::new(), ..context.info.clone() };
    let delete = RequestContext { info: &info, handler: None, params: context.params.clone(), ..*context };
    delete_object(&delete, &options, dry_run).await?;
    Ok(context.answer_document(StatusCode::CREATED, &success()))
}

/// The condition tells a Job's controller, among others, that the Pod did not fail by its own doing.
async fn mark_disrupted(context: &RequestContext<'_>, dry_run: bool) -> Result<(), ApiError> {
    let now = context.engine.clock.now();
    let write = Write { key: context.key(), admit: Admit::Nothing, tracks: false, fresh: false, dry_run };
    let written = write::write(context, write, |pod| {
        let pod = pod.ok_or_else(|| context.not_found())?;
        Ok(Decision::Put(disrupted(pod, now)))
    });
    written.await.map(drop)
}

/// Pods that have ended, were never placed, or are going anyway disrupt nothing.
fn needs_budget(pod: &Value) -> bool {
    pod.deletion_timestamp().is_none()
        && !matches!(pod.str_at("/status/phase"), Some("Succeeded" | "Failed" | "Pending"))
}

fn disrupted(pod: &Value, now: Timestamp) -> Value {
    let mut new = pod.clone();
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": null,
        "lastTransitionTime": format_time(now),
    });
    set_condition(&mut new, condition);
    new
}

/// Takes one disruption from the budget that covers the Pod; 429 if it has none left.
async fn spend_budget(context: &RequestContext<'_>, pod: &Value, dry_run: bool) -> Result<(), ApiError> {
    let budgets = context
        .table
        .find("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(|| ApiError::internal("there is no resource for disruption budgets"))?;
    let prefix = convert::collection(budgets).prefix(&context.info.namespace);
    let listing = context
        .engine
        .store
        .list(ListQuery { prefix, ..ListQuery::default() })
        .await
        .map_err(from_storage)?;
    let mut covering = Vec::new();
    for entry in &listing.entries {
        if covers(&convert::read(budgets, &entry.data)?, pod) {
            covering.push(entry);
        }
    }
    let key = match covering.as_slice() {
        [] => return Ok(()),
        [entry] => entry.key.to_string(),
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let now = context.engine.clock.now();
    let budget = RequestContext { resource: budgets, params: context.params.clone(), ..*context };
    let write = Write { key, admit: Admit::Nothing, tracks: false, fresh: false, dry_run };
    let written = write::write(&budget, write, |budget| match budget {
        // It has gone meanwhile, and covers nothing any more.
        None => Err(context.not_found()),
        Some(budget) => Ok(spent(budget, pod, now)?.map_or(Decision::Keep, Decision::Put)),
    });
    match written.await {
        Err(ApiError { reason: Reason::NotFound, .. }) => Ok(()),
        done => done.map(drop),
    }
}

fn covers(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = budget.pointer("/spec/selector").filter(|selector| !selector.is_null()) else {
        return false;
    };
    LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(|key| pod.label(key)))
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod.array_at("/status/conditions").iter();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The budget after one more disruption. `None`: none is taken, because the Pod is not healthy and may go.
fn spent(budget: &Value, pod: &Value, now: Timestamp) -> Result<Option<Value>, ApiError> {
    let name = budget.name();
    let status = |field: &str| budget.int_at(&format!("/status/{field}")).unwrap_or(0);
    let (healthy, desired) = (status("currentHealthy"), status("desiredHealthy"));
    if !is_ready(pod) {
        let always = budget.str_at("/spec/unhealthyPodEvictionPolicy") == Some("AlwaysAllow");
        if always || (healthy >= desired && desired > 0) {
            return Ok(None);
        }
    }
    if status("observedGeneration") < budget.generation() {
        let error = ApiError::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            10,
        );
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(error.with_cause("DisruptionBudget", &why, ""));
    }
    let allowed = status("disruptionsAllowed");
    if allowed <= 0 {
        let error = ApiError::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            0,
        );
        let why =
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(error.with_cause("DisruptionBudget", &why, ""));
    }
    let mut new = budget.clone();
    new["status"]["disruptionsAllowed"] = (allowed - 1).into();
    new["status"]["disruptedPods"][pod.name()] = format_time(now).into();
    Ok(Some(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn a_pod_is_bound_once() {
        let now = NOW.parse().expect("time");
        let pod = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {}});
        let binding = json!({"metadata": {"name": "a", "annotations": {"k": "v"}}, "target": {"name": "n"}});
        let bound_pod = bound(&pod, &binding, now).expect("bound");
        assert_eq!(bound_pod.str_at("/spec/nodeName"), Some("n"));
        assert_eq!(bound_pod.annotation("k"), Some("v"));
        assert_eq!(bound_pod.str_at("/status/conditions/0/type"), Some("PodScheduled"));
        let again = bound(&bound_pod, &binding, now).expect_err("taken");
        assert_eq!(again, "pod a is already assigned to node \"n\"");
        let other = json!({"metadata": {"name": "a", "uid": "other"}, "target": {"name": "n"}});
        assert!(bound(&pod, &other, now).is_err());
    }

    #[test]
    fn budgets_are_spent_one_by_one() {
        let now = NOW.parse().expect("time");
        let pod = json!({"metadata": {"name": "a"}, "status":
            {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let budget = |allowed: i64| {
            json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status":
                {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 1}})
        };
        let after = spent(&budget(1), &pod, now).expect("allowed").expect("spent");
        assert_eq!(after["status"]["disruptionsAllowed"], 0);
        assert_eq!(after["status"]["disruptedPods"]["a"], NOW);
        let refused = spent(&after, &pod, now).expect_err("refused");
        assert_eq!(refused.code, 429);
        let unready = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}});
        assert_eq!(spent(&after, &unready, now), Ok(None));
    }
}
