//! An applied configuration merged into an object, and what it no longer says taken out of it.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::form::{Form, Parts, Types};
use super::set::{FieldSet, field_edge};

/// What `live` becomes when `config` is put over it: fields of the configuration win, the others stay. Lists that are sets or maps
/// keep the items that the configuration does not name; those that it names come in its order.
pub fn merge(form: Form<'_>, live: &Value, config: &Value) -> Value {
    match (form.parts(live), form.parts(config)) {
        (Parts::Fields(live), Parts::Fields(config)) => {
            let mut merged: Map<String, Value> = live.clone();
            for (name, value) in config {
                let value = match merged.get(name) {
                    Some(old) => merge(form.below(name), old, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Items(live), Parts::Items(config)) => Value::Array(merge_items(form, &live, &config)),
        _ => config.clone(),
    }
}

/// An object that a configuration is put over, nobody's fields asked. Fails, with the places, if the configuration says a list, map or
/// object that is taken as a whole: what it leaves out of it would be lost.
pub fn merged<'s>(types: impl Into<Types<'s>>, live: &Value, config: &Value) -> Result<Value, String> {
    let form = Form::of_object(types);
    let mut wholes = Vec::new();
    find_wholes(form, config, String::new(), &mut wholes);
    if !wholes.is_empty() {
        let places = wholes.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {places}"
        ));
    }
    Ok(merge(form, live, config))
}

fn find_wholes(form: Form<'_>, value: &Value, path: String, wholes: &mut Vec<String>) {
    match form.parts(value) {
        Parts::None if matches!(value, Value::Array(_) | Value::Object(_)) => wholes.push(path),
        Parts::None => {}
        Parts::Fields(map) => {
            for (name, value) in map {
                find_wholes(form.below(name), value, format!("{path}.{name}"), wholes);
            }
        }
        Parts::Items(items) => {
            for (at, (_, value)) in items.into_iter().enumerate() {
                find_wholes(form.below(""), value, format!("{path}[{at}]"), wholes);
            }
        }
    }
}

fn merge_items(form: Form<'_>, live: &[(Box<str>, &Value)], config: &[(Box<str>, &Value)]) -> Vec<Value> {
    let old: HashMap<&str, &Value> = live.iter().map(|(edge, value)| (edge.as_ref(), *value)).collect();
    let named: HashSet<&str> = config.iter().map(|(edge, _)| edge.as_ref()).collect();
    let mut done: HashSet<&str> = HashSet::new();
    let mut merged = Vec::with_capacity(live.len() + config.len());
    let (mut live, mut config) = (live.iter().peekable(), config.iter());
    loop {
        // What the configuration does not name keeps its place before the next item that it does name.
        while let Some((edge, value)) = live.peek() {
            match named.contains(edge.as_ref()) {
                false => merged.push((*value).clone()),
                true if done.contains(edge.as_ref()) => {}
                true => break,
            }
            live.next();
        }
        let Some((edge, value)) = config.next() else { break };
        if done.insert(edge) {
            let item = match old.get(edge.as_ref()) {
                Some(old) => merge(form.below(""), old, value),
                None => (*value).clone(),
            };
            merged.push(item);
        }
    }
    merged.extend(live.filter(|(edge, _)| !named.contains(edge.as_ref())).map(|(_, value)| (*value).clone()));
    merged
}

/// Takes out of an object what its applier said `last`, and nobody owns any more. `owned`: what everybody owns now, the applier
/// included.
pub fn prune(form: Form<'_>, value: &mut Value, last: &FieldSet, owned: &FieldSet) {
    let doomed = |edge: &str| last.child(edge).is_some() && owned.child(edge).is_none();
    match form.parts(value) {
        Parts::None => {}
        Parts::Fields(_) => {
            let Some(map) = value.as_object_mut() else { return };
            map.retain(|name, _| !doomed(&field_edge(name)));
            for (name, part) in map.iter_mut() {
                let edge = field_edge(name);
                if let (Some(last), Some(owned)) = (last.child(&edge), owned.child(&edge)) {
                    prune(form.below(name), part, last, owned);
                }
            }
        }
        Parts::Items(items) => {
            let edges: Vec<Box<str>> = items.into_iter().map(|(edge, _)| edge).collect();
            let Some(items) = value.as_array_mut() else { return };
            let mut at = 0;
            items.retain_mut(|item| {
                let edge = &edges[at];
                at += 1;
                if let (Some(last), Some(owned)) = (last.child(edge), owned.child(edge)) {
                    prune(form.below(""), item, last, owned);
                }
                !doomed(edge)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::named;

    fn containers(value: Value) -> Value {
        json!({"spec": {"containers": value}})
    }

    fn check(live: Value, config: Value, expect: Value) {
        let form = Form::of_object(named("core.v1.Pod"));
        assert_eq!(merge(form, &live, &config), expect);
    }

    #[test]
    fn items_are_merged_by_their_keys() {
        check(
            containers(json!([{"name": "x"}, {"name": "a", "image": "1"}, {"name": "y"}, {"name": "b"}])),
            containers(json!([{"name": "b", "image": "2"}, {"name": "a"}, {"name": "c"}])),
            containers(
                json!([{"name": "x"}, {"name": "b", "image": "2"}, {"name": "a", "image": "1"}, {"name": "y"}, {"name": "c"}]),
            ),
        );
    }

    #[test]
    fn what_is_taken_as_a_whole_is_replaced() {
        check(
            json!({"spec": {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}}}),
            json!({"spec": {"tolerations": [{"key": "b"}], "nodeSelector": {"c": "d"}}}),
            json!({"spec": {"tolerations": [{"key": "b"}], "nodeSelector": {"c": "d"}}}),
        );
    }

    #[test]
    fn what_nobody_says_any_more_goes() {
        let form = Form::of_object(named("core.v1.Pod"));
        let set = |value: Value| FieldSet::from_value(&value).expect("a set");
        let mut object =
            containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b"}, {"name": "c"}]));
        let last = set(
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}},
            "k:{\"name\":\"b\"}": {".": {}, "f:name": {}}}}}),
        );
        let owned = set(json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}}));
        prune(form, &mut object, &last, &owned);
        assert_eq!(object, containers(json!([{"name": "a", "tty": true}, {"name": "c"}])));
    }
}
