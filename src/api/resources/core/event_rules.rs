//! What must hold of Events, as they are stored.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::validate::{
    Check, FieldError, IMMUTABLE, Path, check_at, dns1123_subdomain, qualified_name, same,
};

const LONGEST_WORD: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// Of every Event, whoever sends it. Rule: `legacyValidateEvent`.
pub fn any(event: &Value) -> Vec<FieldError> {
    let about = event.str_at("/involvedObject/namespace").unwrap_or_default();
    let namespace = event.namespace();
    let timed = has_time(event);
    let mut errors = Vec::new();
    // An Event about a namespaced object lies in its namespace, about a cluster's object in `default`.
    let fits = match (about.is_empty(), timed) {
        (true, false) => namespace == "default",
        (true, true) => matches!(namespace, "default" | "kube-system"),
        (false, false) => namespace == about,
        (false, true) => true,
    };
    if !fits {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", about, why));
    }
    if timed {
        errors.extend(reported(event));
    }
    let wrong = dns1123_subdomain(namespace).into_iter();
    errors.extend(wrong.map(|why| FieldError::invalid("namespace", namespace, why)));
    errors
}

fn has_time(event: &Value) -> bool {
    event.text("eventTime").is_some_and(|time| !time.is_empty())
}

/// Who says the Event, and what it says: those with a time of their own say all of it.
fn reported(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let controller = event.text("reportingComponent").unwrap_or_default();
    if controller.is_empty() {
        errors.push(FieldError::required("reportingComponent", ""));
    }
    let wrong = qualified_name(controller).into_iter();
    errors.extend(wrong.map(|why| FieldError::invalid("reportingComponent", controller, why)));
    for field in ["reportingInstance", "action", "reason"] {
        let said = event.text(field).unwrap_or_default();
        if said.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if said.len() > LONGEST_WORD {
            errors.push(too_long(field, LONGEST_WORD));
        }
    }
    if event.text("message").unwrap_or_default().len() > LONGEST_NOTE {
        errors.push(too_long("message", LONGEST_NOTE));
    }
    errors
}

fn too_long(field: &str, most: usize) -> FieldError {
    FieldError::invalid(field, "", format!("can have at most {most} characters"))
}

/// Of one that is made through `events.k8s.io`. Rule: `ValidateEventCreate`.
pub fn created(event: &Value) -> Vec<FieldError> {
    check_at(event, &Path::default(), |event| {
        series(event);
        if !has_time(event.value) {
            event.required("eventTime", "");
        }
        let kind = event.text("type");
        if !matches!(kind, "Normal" | "Warning") {
            event.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
        }
        for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            let value = event.get(field);
            let empty = *value == json!({}) || *value == 0 || *value == "";
            if event.has(field) && !empty {
                event.push(FieldError::invalid(field, "", "needs to be unset"));
            }
        }
    })
}

/// Of one that is changed through `events.k8s.io`: only its series goes on, and what it says to people. Rule: `ValidateEventUpdate`,
/// which fixes that text as well since 1.24; conformance up to then changes it, and nothing relies on its being refused.
pub fn changed(event: &Value, old: &Value) -> Vec<FieldError> {
    const FIXED: [&str; 12] = [
        "involvedObject",
        "reason",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ];
    check_at(event, &Path::default(), |event| {
        if !same(event.get("series"), &old["series"]) {
            series(event);
        }
        for field in FIXED {
            let (now, before) = (event.get(field), &old[field]);
            let nothing =
                |value: &Value| value.is_null() || *value == json!({}) || *value == 0 || *value == "";
            if !(same(now, before) || nothing(now) && nothing(before)) {
                event.push(FieldError::invalid(field, now.clone(), IMMUTABLE));
            }
        }
    })
}

fn series(event: &mut Check<'_, '_>) {
    if !event.has("series") {
        return;
    }
    let series = event.get("series");
    if series.int_at("/count").unwrap_or(0) < 2 {
        event.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if series.text("lastObservedTime").unwrap_or_default().is_empty() {
        event.push(FieldError::required("series.lastObservedTime", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(patch: Value) -> Value {
        let mut event = json!({"metadata": {"name": "e", "namespace": "n"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"}, "type": "Normal",
            "reason": "Why", "message": "m"});
        json_patch::merge(&mut event, &patch);
        event
    }

    fn timed(patch: Value) -> Value {
        let mut event = event(json!({"eventTime": "2026-01-01T00:00:00.000000Z", "action": "Doing",
            "reportingComponent": "a.io/c", "reportingInstance": "c-1"}));
        json_patch::merge(&mut event, &patch);
        event
    }

    fn fields(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn an_event_lies_with_its_object() {
        let check = |event: Value, expect: &[&str]| assert_eq!(fields(&any(&event)), expect, "{event}");
        check(event(json!({})), &[]);
        check(event(json!({"involvedObject": {"namespace": "other"}})), &["involvedObject.namespace"]);
        check(event(json!({"involvedObject": {"namespace": null}})), &["involvedObject.namespace"]);
        let cluster = json!({"metadata": {"namespace": "default"}, "involvedObject": {"namespace": null}});
        check(event(cluster), &[]);
        check(timed(json!({})), &[]);
        check(timed(json!({"involvedObject": {"namespace": null}})), &["involvedObject.namespace"]);
        check(timed(json!({"action": null, "reason": "x".repeat(129)})), &["action", "reason"]);
        check(timed(json!({"message": "x".repeat(1025)})), &["message"]);
        let nobody = any(&timed(json!({"reportingComponent": null, "reportingInstance": null})));
        assert!(fields(&nobody).starts_with(&["reportingComponent", "reportingComponent"]), "{nobody:?}");
        assert!(fields(&nobody).ends_with(&["reportingInstance"]), "{nobody:?}");
    }

    #[test]
    fn the_newer_group_is_strict() {
        let new = |event: Value, expect: &[&str]| assert_eq!(fields(&created(&event)), expect, "{event}");
        new(timed(json!({})), &[]);
        new(event(json!({})), &["eventTime"]);
        new(timed(json!({"type": "Odd", "count": 2})), &["type", "count"]);
        new(timed(json!({"series": {"count": 1}})), &["series.count", "series.lastObservedTime"]);
        let old = timed(json!({}));
        let next = |patch: Value, expect: &[&str]| {
            assert_eq!(fields(&changed(&timed(patch.clone()), &old)), expect, "{patch}");
        };
        next(json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}), &[]);
        next(json!({"series": {"count": 1, "lastObservedTime": "t"}}), &["series.count"]);
        next(json!({"reason": "Other", "reportingComponent": "b"}), &["reason", "reportingComponent"]);
        next(json!({"source": {}}), &[]);
        next(json!({"message": "other"}), &[]);
    }
}
