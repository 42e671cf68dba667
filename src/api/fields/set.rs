//! Sets of field paths, and their form in `managedFields`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

/// A set of field paths, as `fieldsV1` writes it: a tree whose edges are `f:<field>`, `k:<keys of a list item>` and
/// `v:<value of a set>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path to here is in the set itself.
    pub member: bool,
    children: BTreeMap<Box<str>, FieldSet>,
}

impl FieldSet {
    /// A set of nothing but the path to here.
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub fn child(&self, edge: &str) -> Option<&Self> {
        self.children.get(edge)
    }

    /// Puts a set below an edge; an empty one is left out.
    pub fn put(&mut self, edge: impl Into<Box<str>>, child: Self) {
        if !child.is_empty() {
            self.children.insert(edge.into(), child);
        }
    }

    /// Takes out everything below an edge, the edge included.
    pub fn cut(&mut self, edge: &str) -> Option<Self> {
        self.children.remove(edge)
    }

    /// Keeps only what is below edges that `keep` names.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.children.retain(|edge, _| keep(edge));
    }

    /// Runs `change` on what is below an edge.
    pub fn change(&mut self, edge: &str, change: impl FnOnce(&mut Self)) {
        if let Some(mut child) = self.children.remove(edge) {
            change(&mut child);
            self.put(edge, child);
        }
    }

    /// Adds everything of another set.
    pub fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (edge, child) in &other.children {
            match self.children.entry(edge.clone()) {
                Entry::Vacant(place) => {
                    place.insert(child.clone());
                }
                Entry::Occupied(mut place) => place.get_mut().add(child),
            }
        }
    }

    /// Removes every path of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (edge, taken) in &other.children {
            if let Entry::Occupied(mut place) = self.children.entry(edge.clone()) {
                place.get_mut().subtract(taken);
                if place.get().is_empty() {
                    place.remove();
                }
            }
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let mut found = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (edge, child) in &self.children {
            if let Some(same) = other.children.get(edge) {
                found.put(edge.clone(), child.both(same));
            }
        }
        found
    }

    /// The set as `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (edge, child) in &self.children {
            map.insert(edge.to_string(), child.to_value());
        }
        Value::Object(map)
    }

    /// A set from `fieldsV1`; `None` if it is not one.
    pub fn from_value(value: &Value) -> Option<Self> {
        let mut set = Self::read(value)?;
        set.member = false;
        Some(set)
    }

    fn read(value: &Value) -> Option<Self> {
        let map = value.as_object()?;
        let mut set = Self { member: map.is_empty() || map.contains_key("."), children: BTreeMap::new() };
        for (edge, child) in map.iter().filter(|(edge, _)| *edge != ".") {
            if !matches!(edge.get(..2), Some("f:" | "k:" | "v:" | "i:")) {
                return None;
            }
            set.children.insert(edge.as_str().into(), Self::read(child)?);
        }
        Some(set)
    }

    /// All paths, as messages write them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, path: &str, found: &mut Vec<String>) {
        if self.member {
            found.push(path.to_owned());
        }
        for (edge, child) in &self.children {
            child.collect(&format!("{path}{}", said(edge)), found);
        }
    }
}

/// An edge as messages write it.
fn said(edge: &str) -> String {
    let (kind, rest) = edge.split_at_checked(2).unwrap_or(("", edge));
    match kind {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={rest}]"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

/// The edge to a field or a map's key.
pub fn field_edge(name: &str) -> Box<str> {
    let mut edge = String::with_capacity(name.len() + 2);
    edge.push_str("f:");
    edge.push_str(name);
    edge.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(&value).expect("a set")
    }

    #[test]
    fn sets_are_written_as_they_are_read() {
        let written = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:containers":
            {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:replicas": {}}});
        assert_eq!(set(written.clone()).to_value(), written);
        assert_eq!(FieldSet::from_value(&json!({"x": {}})), None);
        assert_eq!(FieldSet::from_value(&json!([])), None);
    }

    #[test]
    fn paths_are_said_as_upstream_says_them() {
        let set =
            set(json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}}));
        assert_eq!(
            set.paths(),
            [r#".metadata.finalizers[="x"]"#, r#".spec.ports[port=80,protocol="TCP"].name"#]
        );
    }

    #[test]
    fn sets_obey_their_laws() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}, "f:d": {}}}));
        let mut union = a.clone();
        union.add(&b);
        assert_eq!(union, set(json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}})));
        let mut rest = union.clone();
        rest.subtract(&b);
        assert_eq!(rest, set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(a.both(&b), set(json!({"f:a": {"f:b": {}}})));
        rest.subtract(&a);
        assert!(rest.is_empty());
    }
}
