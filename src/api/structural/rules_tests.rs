//! Rules over objects, by example; most are of the documentation of CustomResourceDefinitions.

use serde_json::{Value, json};

use super::{Rules, Structural};

/// What is said of an object (an error as it is, a warning in parentheses) under a schema of its `spec`.
fn said(spec: Value, new: Value, old: Option<Value>) -> Vec<String> {
    let schema = Structural::of(&json!({"type": "object", "properties": {"spec": spec}}));
    let rules = Rules::of(&schema).expect("rules");
    let (new, old) = (json!({"spec": new}), old.map(|old| json!({"spec": old})));
    let outcome = rules.check(&schema, &new, old.as_ref());
    let warnings = outcome.warnings.iter().map(|warning| format!("({warning})"));
    outcome.errors.iter().map(ToString::to_string).chain(warnings).collect()
}

#[track_caller]
fn check(spec: &Value, new: Value, old: Option<Value>, expect: &[&str]) {
    assert_eq!(said(spec.clone(), new, old), expect);
}

#[test]
fn rules_are_kept() {
    let replicas = json!({"type": "object", "properties": {
        "minReplicas": {"type": "integer"}, "replicas": {"type": "integer"}, "maxReplicas": {"type": "integer"}},
        "x-kubernetes-validations": [
            {"rule": "self.minReplicas <= self.replicas", "message": "replicas should be greater than or equal to minReplicas."},
            {"rule": "self.replicas <= self.maxReplicas", "messageExpression": "'at most ' + string(self.maxReplicas)",
             "fieldPath": ".replicas", "reason": "FieldValueForbidden"}]});
    check(&replicas, json!({"minReplicas": 0, "replicas": 2, "maxReplicas": 3}), None, &[]);
    check(
        &replicas,
        json!({"minReplicas": 4, "replicas": 5, "maxReplicas": 3}),
        None,
        &["spec.replicas: Forbidden: at most 3"],
    );
    check(
        &replicas,
        json!({"minReplicas": 4, "replicas": 2, "maxReplicas": 3}),
        None,
        &["spec: Invalid value: replicas should be greater than or equal to minReplicas."],
    );
    check(
        &replicas,
        json!({"replicas": 1, "maxReplicas": 3}),
        None,
        &[
            "spec: Invalid value: \"object\": no such key: minReplicas evaluating rule: replicas should be greater than or equal to minReplicas.",
        ],
    );
    let text = json!({"type": "object", "properties": {"a": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self.startsWith('x')"}]}}});
    check(
        &text,
        json!({"a": "y"}),
        None,
        &["spec.a: Invalid value: \"y\": failed rule: self.startsWith('x')"],
    );
}

#[test]
fn values_have_the_types_of_their_schema() {
    let spec = json!({"type": "object", "properties": {
        "port": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"}, "for": {"type": "string", "format": "duration"},
        "ratio": {"type": "number"}, "data": {"type": "string", "format": "byte"},
        "namespace": {"type": "string"}, "x-prop": {"type": "integer"}, "redact__d": {"type": "integer"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "maybe": {"type": "string", "nullable": true}},
        "x-kubernetes-validations": [
            {"rule": "type(self.port) == int ? self.port < 10 : self.port.matches('^[0-9]+%$')"},
            {"rule": "self.when.getFullYear() == 2024 && self.__for__ > duration('1m')"},
            {"rule": "self.ratio == 1.0 && self.ratio * 2.0 == 2.0 && self.data == b'hi'"},
            {"rule": "self.__namespace__ == 'n' && self.x__dash__prop == 1 && self.redact__underscores__d == 2"},
            {"rule": "self.set == ['b', 'a'] && (self.set + ['a']).size() == 2"},
            {"rule": "(self.ports + self.ports).size() == 1"},
            {"rule": "self.labels.all(k, k.startsWith('l') && self.labels[k].size() < 5) && !('z' in self.labels)"},
            {"rule": "self.pod.metadata.name == 'p' && self.pod.kind == 'Pod' && has(self.maybe) && dyn(self.maybe) == null"}]});
    let value = |port: Value| {
        json!({"port": port, "when": "2024-05-01T00:00:00Z", "for": "1h", "ratio": 1, "data": "aGk=",
            "namespace": "n", "x-prop": 1, "redact__d": 2, "set": ["a", "b"], "ports": [{"name": "a", "n": 1}],
            "labels": {"l1": "v"}, "pod": {"kind": "Pod", "metadata": {"name": "p"}, "odd": 1}, "maybe": null})
    };
    check(&spec, value(json!(5)), None, &[]);
    check(&spec, value(json!("5%")), None, &[]);
    assert_eq!(said(spec, value(json!(50)), None).len(), 1);
}

#[test]
fn transitions() {
    let spec = json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is fixed"}]},
        "once": {"type": "string", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true, "message": "starts as first"}]},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "only grows"}]}}}});
    check(&spec, json!({"fixed": "a", "once": "first"}), None, &[]);
    check(&spec, json!({"once": "second"}), None, &["spec.once: Invalid value: \"second\": starts as first"]);
    check(&spec, json!({"once": "second"}), Some(json!({"once": "first"})), &[]);
    check(&spec, json!({"fixed": "b"}), Some(json!({})), &[]);
    check(
        &spec,
        json!({"fixed": "b"}),
        Some(json!({"fixed": "a"})),
        &["spec.fixed: Invalid value: \"b\": is fixed"],
    );
    check(
        &spec,
        json!({"l": [{"k": "new", "v": 0}, {"k": "a", "v": 1}]}),
        Some(json!({"l": [{"k": "a", "v": 2}]})),
        &["spec.l[1]: Invalid value: only grows"],
    );
}

#[test]
fn what_is_kept_may_stay_wrong() {
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == 'good'", "message": "not good"}]},
        "b": {"type": "string"}}});
    let old = json!({"a": "bad", "b": "1"});
    check(
        &spec,
        json!({"a": "bad", "b": "2"}),
        Some(old.clone()),
        &["(spec.a: Invalid value: \"bad\": not good)"],
    );
    check(&spec, json!({"a": "worse"}), Some(old), &["spec.a: Invalid value: \"worse\": not good"]);
}

#[test]
fn rules_of_the_object_and_below_all_of() {
    let schema = Structural::of(&json!({"type": "object",
        "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('x') && self.kind == 'K'"}],
        "allOf": [{"properties": {"spec": {"properties": {"n": {
            "x-kubernetes-validations": [{"rule": "self > 1", "message": "too small"}]}}}}}]}));
    let rules = Rules::of(&schema).expect("rules");
    let said = |name: &str, n: i64| -> Vec<String> {
        let object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": name, "labels": {}}, "spec": {"n": n}});
        rules.check(&schema, &object, None).errors.iter().map(ToString::to_string).collect()
    };
    assert!(said("xy", 2).is_empty());
    assert_eq!(
        said("ab", 1),
        [
            "<nil>: Invalid value: failed rule: self.metadata.name.startsWith('x') && self.kind == 'K'",
            "spec.n: Invalid value: 1: too small"
        ]
    );
}

#[test]
fn rules_cannot_stop_the_server() {
    let spec = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a + b > -1))"}]}}});
    let many: Vec<u64> = (0..3000).collect();
    let said = said(spec, json!({"l": many}), None);
    assert!(said.len() == 1 && said[0].contains("call cost exceeds limit for rule"), "{said:?}");
}
