//! Which fields an object has, and which two objects differ in.

use std::collections::HashMap;

use serde_json::Value;

use super::form::{Form, Parts};
use super::set::FieldSet;

/// Fields of metadata that the server alone sets, or that name the object: nobody owns them.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// How one object differs from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields that were added or have another value.
    pub changed: FieldSet,
    pub removed: FieldSet,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Takes out the fields that nobody owns.
pub fn strip(set: &mut FieldSet) {
    for edge in ["f:apiVersion", "f:kind"] {
        set.cut(edge);
    }
    set.change("f:metadata", |metadata| {
        metadata.member = false;
        for name in UNOWNED {
            metadata.cut(&super::set::field_edge(name));
        }
    });
}

/// The fields that an applied configuration has an opinion about; those that nobody owns too.
pub fn fields_of(form: Form<'_>, value: &Value) -> FieldSet {
    let parts = form.parts(value);
    if matches!(parts, Parts::None) {
        return FieldSet::leaf();
    }
    let mut set = FieldSet::default();
    for (edge, name, part) in parts.each() {
        let mut child = fields_of(form.below(name), part);
        let empty = part.is_null() || part.as_object().is_some_and(serde_json::Map::is_empty);
        child.member |= empty || !form.is_struct();
        set.put(edge, child);
    }
    set
}

/// How `new` differs from `old`.
pub fn compare(form: Form<'_>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    let (there, changed, removed) = ((true, true), &mut difference.changed, &mut difference.removed);
    walk(form, Some(old), Some(new), there, changed, removed);
    strip(&mut difference.changed);
    strip(&mut difference.removed);
    difference
}

/// Compares two values. `there`: whether each is there though nothing says so.
fn walk(
    form: Form<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    there: (bool, bool),
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    if old == new {
        return;
    }
    let before = old.map_or(Parts::None, |value| form.parts(value));
    let after = new.map_or(Parts::None, |value| form.parts(value));
    let whole = |value: Option<&Value>, parts: &Parts<'_>| {
        value.is_some_and(|value| !value.is_null()) && matches!(parts, Parts::None)
    };
    if (before.is_empty() && after.is_empty()) || whole(old, &before) || whole(new, &after) {
        match (old, new) {
            (None, Some(new)) if !there.0 || !is_zero(new) => changed.member = true,
            (Some(_), None) if !there.1 => removed.member = true,
            (Some(_), Some(_)) => changed.member = true,
            _ => {}
        }
        return;
    }
    let (before, after) = (before.each(), after.each());
    let known: HashMap<&str, &Value> =
        before.iter().map(|(edge, _, value)| (edge.as_ref(), *value)).collect();
    let there = (there.0 || old.is_some(), there.1 || new.is_some());
    for (edge, name, value) in &after {
        let old = known.get(edge.as_ref()).copied();
        part(form, name, edge, (old, Some(value)), there, changed, removed);
    }
    if !known.is_empty() {
        let kept: std::collections::HashSet<&str> = after.iter().map(|(edge, ..)| edge.as_ref()).collect();
        for (edge, name, value) in before.iter().filter(|(edge, ..)| !kept.contains(edge.as_ref())) {
            part(form, name, edge, (Some(value), None), there, changed, removed);
        }
    }
    changed.member |= !there.0;
    removed.member |= !there.1;
}

/// Whether a value is what Go has where nothing is said.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn part(
    form: Form<'_>,
    name: &str,
    edge: &str,
    (old, new): (Option<&Value>, Option<&Value>),
    there: (bool, bool),
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    // Where the whole is there, a part that is null is one that nothing says.
    let null = |value: Option<&Value>| value.is_none_or(Value::is_null);
    if there.0 && there.1 && null(old) && null(new) {
        return;
    }
    let always = form.always_there(name);
    let (mut added, mut gone) = (FieldSet::default(), FieldSet::default());
    let there = (always && there.0, always && there.1);
    walk(form.below(name), old, new, there, &mut added, &mut gone);
    changed.put(edge, added);
    removed.put(edge, gone);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::named;

    fn pod(value: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": value})
    }

    fn check(name: &str, old: Value, new: Value, changed: Value, removed: Value) {
        let form = Form::of_object(Some(named(name).expect("a type")));
        let found = compare(form, &old, &new);
        assert_eq!(found.changed.to_value(), changed, "changed");
        assert_eq!(found.removed.to_value(), removed, "removed");
    }

    #[test]
    fn a_new_deployment_is_owned_as_upstream_says() {
        let new = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u",
            "labels": {"app": "d"}}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}, "template":
            {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i",
            "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "securityContext": {}}}}});
        check(
            "apps.v1.Deployment",
            json!({}),
            new,
            json!({
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:replicas": {}, "f:selector": {}, "f:strategy": {"f:type": {}, "f:rollingUpdate":
                    {".": {}, "f:maxSurge": {}}}, "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:securityContext": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {},
                    "f:name": {}, "f:image": {}, "f:resources": {}, "f:ports": {".": {},
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}
            }),
            json!({}),
        );
    }

    #[test]
    fn only_what_differs_is_said() {
        check(
            "core.v1.Pod",
            pod(
                json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}], "nodeSelector": {"k": "v"}}),
            ),
            pod(
                json!({"containers": [{"name": "a", "image": "y"}], "nodeSelector": {"k": "w"}, "hostname": "h"}),
            ),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}, "f:hostname": {},
                "f:nodeSelector": {}}}),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {".": {}, "f:name": {}}}}}),
        );
    }

    #[test]
    fn sets_and_owner_references() {
        check(
            "core.v1.ConfigMap",
            json!({"metadata": {"finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "u", "name": "n"}]}}),
            json!({"f:metadata": {"f:finalizers": {"v:\"b\"": {}}, "f:ownerReferences":
                {".": {}, "k:{\"uid\":\"u\"}": {}}}}),
            json!({}),
        );
    }

    #[test]
    fn what_a_configuration_says() {
        let form = Form::of_object(named("core.v1.Pod"));
        let mut set =
            fields_of(form, &pod(json!({"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]})));
        strip(&mut set);
        assert_eq!(
            set.to_value(),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {},
            "f:ports": {"k:{\"containerPort\":1,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}})
        );
    }
}
