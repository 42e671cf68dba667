//! Tests of server-side apply: its laws, over generated objects.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use super::*;
use crate::fields::track;
use crate::schema::{Schema, named};

const NOW: &str = "2026-01-01T00:00:00Z";

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "apps/v1", subresource: "", now: NOW }
}

fn try_apply(live: Option<&Value>, manager: &str, config: &Value, force: bool) -> Result<Value, ApiError> {
    let applier = Applier { writer: writer(manager), force, types: named("apps.v1.Deployment").into() };
    let Applied { mut object, managed } = apply(&applier, live, config)?;
    managed.write(&mut object);
    Ok(object)
}

fn applied(live: Option<&Value>, manager: &str, config: &Value) -> Value {
    try_apply(live, manager, config, false).expect("no conflict")
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object.array_at("/metadata/managedFields").iter();
    entries
        .filter(|entry| entry.text("manager") == Some(manager))
        .map(|entry| entry["fieldsV1"].clone())
        .next()
        .unwrap_or(Value::Null)
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let object = applied(None, "one", &config(json!({"replicas": 1, "paused": true})));
    let error =
        try_apply(Some(&object), "two", &config(json!({"replicas": 2})), false).expect_err("a conflict");
    assert_eq!(error.code, 409);
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let details = error.details.expect("details");
    assert_eq!(
        (
            details.causes[0].reason.as_str(),
            details.causes[0].message.as_str(),
            details.causes[0].field.as_str()
        ),
        ("FieldManagerConflict", "conflict with \"one\"", ".spec.replicas")
    );
    let error = try_apply(Some(&object), "two", &config(json!({"replicas": 2, "paused": false})), false);
    assert_eq!(
        error.expect_err("conflicts").message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas"
    );
}

#[test]
fn an_updater_is_named_with_its_version() {
    let mut object = config(json!({"replicas": 1}));
    track(named("apps.v1.Deployment"), None, &mut object, &writer("editor"));
    let error =
        try_apply(Some(&object), "two", &config(json!({"replicas": 2})), false).expect_err("a conflict");
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"editor\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn force_takes_and_agreement_shares() {
    let object = applied(None, "one", &config(json!({"replicas": 1})));
    let shared = applied(Some(&object), "two", &config(json!({"replicas": 1})));
    assert_eq!(fields(&shared, "one"), fields(&shared, "two"));
    let taken = try_apply(Some(&object), "two", &config(json!({"replicas": 2})), true).expect("forced");
    assert_eq!(taken["spec"]["replicas"], 2);
    assert_eq!(fields(&taken, "one"), Value::Null);
    assert_eq!(fields(&taken, "two"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn what_is_no_longer_said_goes_unless_somebody_else_says_it() {
    let object = applied(None, "one", &config(json!({"replicas": 1, "paused": true})));
    let object = applied(Some(&object), "two", &config(json!({"replicas": 1})));
    let object = applied(Some(&object), "one", &config(json!({})));
    assert_eq!(object["spec"], json!({"replicas": 1}), "paused was one's alone");
    assert_eq!(fields(&object, "one"), json!({"f:spec": {}}));
    let object = applied(Some(&object), "two", &config(json!({})));
    assert_eq!(object["spec"], json!({}));
}

#[test]
fn the_first_apply_meets_what_was_there_before() {
    let object = config(json!({"replicas": 1}));
    let error =
        try_apply(Some(&object), "one", &config(json!({"replicas": 2})), false).expect_err("a conflict");
    assert!(
        error.message.contains("\"before-first-apply\" using apps/v1: .spec.replicas"),
        "{}",
        error.message
    );
    let same = applied(Some(&object), "one", &config(json!({"replicas": 1})));
    assert_eq!(fields(&same, "before-first-apply"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let last = config(json!({"replicas": 1})).to_string();
    let mut object = config(json!({"replicas": 1}));
    object.set_annotation(LAST_APPLIED, &last);
    track(named("apps.v1.Deployment"), None, &mut object, &writer("kubectl-client-side-apply"));
    let next = config(json!({"replicas": 3}));
    assert!(try_apply(Some(&object), "other", &next, false).is_err());
    let taken = applied(Some(&object), "kubectl", &next);
    assert_eq!(taken["spec"]["replicas"], 3);
    let written: Value = serde_json::from_str(taken.annotation(LAST_APPLIED).expect("kept")).expect("JSON");
    assert_eq!(written, next);
}

/// A configuration of random fields: scalars, a map, a list of items by key and a set.
fn random(random: &mut StdRng) -> Value {
    let mut meta = Map::new();
    meta.insert("name".into(), "d".into());
    let mut spec = Map::new();
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        if random.random_bool(0.5) {
            spec.insert(name.into(), random.random_range(1..4).into());
        }
    }
    let mut labels = Map::new();
    for name in ["a", "b", "c"] {
        if random.random_bool(0.4) {
            labels.insert(name.into(), random.random_range(1..3).to_string().into());
        }
    }
    if !labels.is_empty() {
        meta.insert("labels".into(), labels.into());
    }
    let finalizers: Vec<Value> = ["x/a", "x/b", "x/c"]
        .iter()
        .filter(|_| random.random_bool(0.3))
        .map(|name| Value::from(*name))
        .collect();
    if !finalizers.is_empty() {
        meta.insert("finalizers".into(), finalizers.into());
    }
    let mut containers = Vec::new();
    for name in ["a", "b", "c"] {
        if random.random_bool(0.5) {
            let mut container = json!({"name": name, "image": format!("i{}", random.random_range(1..3))});
            if random.random_bool(0.5) {
                container["ports"] = json!([{"containerPort": random.random_range(80..83)}]);
            }
            containers.push(container);
        }
    }
    if !containers.is_empty() {
        spec.insert("template".into(), json!({"spec": {"containers": containers}}));
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
}

fn set_of(object: &Value, manager: &str) -> FieldSet {
    FieldSet::from_value(&fields(object, manager)).unwrap_or_default()
}

/// Runs random appliers over random configurations.
#[test]
fn the_laws_of_apply_hold() {
    let form = Form::of_object(named("apps.v1.Deployment"));
    for seed in 0..300 {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut object = applied(None, "zero", &random(&mut dice));
        for _ in 0..8 {
            let manager = ["one", "two", "three"][dice.random_range(0..3)];
            let (config, force) = (random(&mut dice), dice.random_bool(0.3));
            let Ok(next) = try_apply(Some(&object), manager, &config, force) else { continue };
            // What was applied is what stands, and the applier owns just that.
            assert_eq!(merge(form, &next, &config), next, "seed {seed}: {config}");
            let mut own = fields_of(form, &config);
            strip(&mut own);
            assert_eq!(set_of(&next, manager), own, "seed {seed}");
            // Applying again changes nothing.
            assert_eq!(applied(Some(&next), manager, &config), next, "seed {seed}");
            for other in ["zero", "one", "two", "three"].into_iter().filter(|other| *other != manager) {
                let (before, after) = (set_of(&object, other), set_of(&next, other));
                if !force {
                    assert_eq!(before, after, "seed {seed}: {other} lost fields without force");
                }
                // Whatever is still owned is still there.
                let there = fields_of(form, &next).paths();
                let gone = |path: &String| !there.iter().any(|other| other.starts_with(path.as_str()));
                let gone: Vec<String> = after.paths().into_iter().filter(gone).collect();
                assert!(gone.is_empty(), "seed {seed}: {other} owns {gone:?}");
            }
            object = next;
        }
    }
}

#[test]
fn lists_of_custom_kinds_are_merged_as_their_definition_says() {
    let structural = crate::structural::Structural::of(&json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "protocol"],
                "items": {"type": "object", "properties": {"name": {"type": "string"},
                    "protocol": {"type": "string", "default": "TCP"}, "n": {"type": "integer"}}}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}}}}}}));
    let open = Schema::open(crate::meta::Gvk::of("g", "v1", "K"));
    let types = Types { schema: Some(&open), structural: Some(&structural) };
    let apply_as = |manager: &'static str, live: Option<&Value>, config: Value| {
        let applier = Applier { writer: writer(manager), force: false, types };
        let Applied { mut object, managed } = apply(&applier, live, &config).expect("no conflict");
        managed.write(&mut object);
        object
    };
    let first = json!({"spec": {"ports": [{"name": "a", "n": 1}], "set": ["x"], "whole": {"a": "1"}}});
    let one = apply_as("one", None, first);
    let second = json!({"spec": {"ports": [{"name": "b", "protocol": "UDP", "n": 2}], "set": ["y"]}});
    let both = apply_as("two", Some(&one), second);
    assert_eq!(
        both["spec"]["ports"],
        json!([{"name": "a", "n": 1}, {"name": "b", "protocol": "UDP", "n": 2}])
    );
    let mut set: Vec<&str> =
        both["spec"]["set"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    set.sort_unstable();
    assert_eq!(set, ["x", "y"]);
    // What one no longer says goes; what two says stays.
    let less = apply_as("one", Some(&both), json!({"spec": {"whole": {"b": "2"}}}));
    assert_eq!(
        less["spec"],
        json!({"ports": [{"name": "b", "protocol": "UDP", "n": 2}], "set": ["y"], "whole": {"b": "2"}})
    );
    let applier = Applier { writer: writer("three"), force: false, types };
    let taken = apply(&applier, Some(&both), &json!({"spec": {"ports": [{"name": "a", "n": 5}]}}));
    assert!(taken.is_err_and(|error| error.message.contains("one")));
}
