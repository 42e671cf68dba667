//! Names of types and resources, and reading and writing the metadata every object has.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Text that is a constant for built-in types and owned for types made at run time.
pub type Str = Cow<'static, str>;

/// A type: group (empty for core), version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    pub group: Str,
    pub version: Str,
    pub kind: Str,
}

impl Gvk {
    pub const fn of(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), kind: Cow::Borrowed(kind) }
    }

    pub fn new(group: impl Into<Str>, version: impl Into<Str>, kind: impl Into<Str>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The type an object says it is, from `apiVersion` and `kind`; missing parts are empty.
    pub fn of_object(object: &Value) -> Self {
        let (group, version) = split_api_version(object.str_at("/apiVersion").unwrap_or_default());
        let kind = object.str_at("/kind").unwrap_or_default();
        Self::new(group.to_owned(), version.to_owned(), kind.to_owned())
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }
}

/// `Pod`, `Deployment.apps`.
impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// A resource: group (empty for core), version and plural name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    pub group: Str,
    pub version: Str,
    pub resource: Str,
}

impl Gvr {
    pub const fn of(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            resource: Cow::Borrowed(resource),
        }
    }
}

/// `pods`, `deployments.apps`.
impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// Splits `apps/v1` into group and version; `v1` has the empty group.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Joins group and version as `apiVersion` writes them.
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Compares versions of a group as upstream does; the greater is preferred. Stable ones come before beta and alpha, then the
/// higher number does; names of another form come last, in the order of the alphabet.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    rank(a).cmp(&rank(b))
}

fn rank(version: &str) -> (u8, u32, u32, Reverse<&str>) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let stage = |name: &str| rest.split_once(name);
        let (stage, major, minor) = match (stage("beta"), stage("alpha")) {
            (Some((major, minor)), _) => (2, major, minor),
            (_, Some((major, minor))) => (1, major, minor),
            _ => (3, rest, "0"),
        };
        Some((stage, major.parse().ok()?, minor.parse().ok()?))
    });
    match parsed {
        Some((stage, major, minor)) => (stage, major, minor, Reverse("")),
        None => (0, 0, 0, Reverse(version)),
    }
}

/// The moment as `metav1.Time` writes it: RFC 3339, whole seconds, `Z`.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The moment as `metav1.MicroTime` writes it: RFC 3339 with six decimals, `Z`.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// An owner reference's parts; the missing ones are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// Reading and writing an object's metadata. Missing things read as empty.
pub trait ObjectExt {
    fn name(&self) -> &str;
    /// Empty for cluster-scoped objects.
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn generate_name(&self) -> &str;
    fn resource_version(&self) -> &str;
    /// 0 where the kind does not count generations.
    fn generation(&self) -> i64;
    fn creation_timestamp(&self) -> Option<&str>;
    fn deletion_timestamp(&self) -> Option<&str>;
    fn deletion_grace_period_seconds(&self) -> Option<i64>;
    fn label(&self, key: &str) -> Option<&str>;
    fn labels(&self) -> impl Iterator<Item = (&str, &str)>;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn annotations(&self) -> impl Iterator<Item = (&str, &str)>;
    fn finalizers(&self) -> impl Iterator<Item = &str>;
    fn owner_references(&self) -> impl Iterator<Item = OwnerReference<'_>>;
    /// The owner reference with `controller: true`.
    fn controller_of(&self) -> Option<OwnerReference<'_>>;
    fn meta(&self) -> Option<&Map<String, Value>>;
    /// The metadata map, made if it is not there (or is not a map).
    fn meta_mut(&mut self) -> &mut Map<String, Value>;
    fn set_label(&mut self, key: &str, value: &str);
    fn set_annotation(&mut self, key: &str, value: &str);
    /// The string at a JSON pointer.
    fn str_at(&self, pointer: &str) -> Option<&str>;
    /// The integer at a JSON pointer.
    fn int_at(&self, pointer: &str) -> Option<i64>;
    /// The boolean at a JSON pointer.
    fn bool_at(&self, pointer: &str) -> Option<bool>;
    /// The items of the array at a JSON pointer; empty if there is none.
    fn array_at(&self, pointer: &str) -> &[Value];
    /// The map at a JSON pointer.
    fn map_at(&self, pointer: &str) -> Option<&Map<String, Value>>;
    /// The string member `key` of this object.
    fn text(&self, key: &str) -> Option<&str>;
}

fn meta_str<'a>(object: &'a Value, key: &str) -> &'a str {
    object.meta().and_then(|meta| meta.get(key)).and_then(Value::as_str).unwrap_or_default()
}

fn string_map<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = object.meta().and_then(|meta| meta.get(key)).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}

fn meta_items<'a>(object: &'a Value, key: &str) -> std::slice::Iter<'a, Value> {
    let items = object.meta().and_then(|meta| meta.get(key)).and_then(Value::as_array);
    items.map_or(&[][..], Vec::as_slice).iter()
}

fn set_in(object: &mut Value, map: &str, key: &str, value: &str) {
    child_map(object.meta_mut(), map).insert(key.to_owned(), Value::String(value.to_owned()));
}

/// The map member `key` of `map`, made if it is not there (or is not a map).
pub fn child_map<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    if !map.get(key).is_some_and(Value::is_object) {
        map.insert(key.to_owned(), Value::Object(Map::new()));
    }
    map.get_mut(key).and_then(Value::as_object_mut).expect("the member was just made a map")
}

impl ObjectExt for Value {
    fn name(&self) -> &str {
        meta_str(self, "name")
    }

    fn namespace(&self) -> &str {
        meta_str(self, "namespace")
    }

    fn uid(&self) -> &str {
        meta_str(self, "uid")
    }

    fn generate_name(&self) -> &str {
        meta_str(self, "generateName")
    }

    fn resource_version(&self) -> &str {
        meta_str(self, "resourceVersion")
    }

    fn generation(&self) -> i64 {
        self.int_at("/metadata/generation").unwrap_or(0)
    }

    fn creation_timestamp(&self) -> Option<&str> {
        self.str_at("/metadata/creationTimestamp")
    }

    fn deletion_timestamp(&self) -> Option<&str> {
        self.str_at("/metadata/deletionTimestamp")
    }

    fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.int_at("/metadata/deletionGracePeriodSeconds")
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.meta()?.get("labels")?.get(key)?.as_str()
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        string_map(self, "labels")
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta()?.get("annotations")?.get(key)?.as_str()
    }

    fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        string_map(self, "annotations")
    }

    fn finalizers(&self) -> impl Iterator<Item = &str> {
        meta_items(self, "finalizers").filter_map(Value::as_str)
    }

    fn owner_references(&self) -> impl Iterator<Item = OwnerReference<'_>> {
        meta_items(self, "ownerReferences").map(|owner| OwnerReference {
            api_version: owner.text("apiVersion").unwrap_or_default(),
            kind: owner.text("kind").unwrap_or_default(),
            name: owner.text("name").unwrap_or_default(),
            uid: owner.text("uid").unwrap_or_default(),
            controller: owner.bool_at("/controller").unwrap_or(false),
            block_owner_deletion: owner.bool_at("/blockOwnerDeletion").unwrap_or(false),
        })
    }

    fn controller_of(&self) -> Option<OwnerReference<'_>> {
        self.owner_references().find(|owner| owner.controller)
    }

    fn meta(&self) -> Option<&Map<String, Value>> {
        self.get("metadata")?.as_object()
    }

    fn meta_mut(&mut self) -> &mut Map<String, Value> {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        child_map(self.as_object_mut().expect("the value was just made a map"), "metadata")
    }

    fn set_label(&mut self, key: &str, value: &str) {
        set_in(self, "labels", key, value);
    }

    fn set_annotation(&mut self, key: &str, value: &str) {
        set_in(self, "annotations", key, value);
    }

    fn str_at(&self, pointer: &str) -> Option<&str> {
        self.pointer(pointer)?.as_str()
    }

    fn int_at(&self, pointer: &str) -> Option<i64> {
        self.pointer(pointer)?.as_i64()
    }

    fn bool_at(&self, pointer: &str) -> Option<bool> {
        self.pointer(pointer)?.as_bool()
    }

    fn array_at(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn map_at(&self, pointer: &str) -> Option<&Map<String, Value>> {
        self.pointer(pointer)?.as_object()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_preferred_as_upstream_does() {
        let mut versions = ["foo10", "v1beta1", "v2", "v1", "v10", "v1alpha1", "foo1", "v1beta2"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo1", "foo10"]);
    }

    #[test]
    fn reads_what_is_there_and_nothing_else() {
        let pod = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "ownerReferences": [
            {"kind": "ReplicaSet", "name": "r", "uid": "u", "apiVersion": "apps/v1", "controller": true}]}});
        assert_eq!(pod.name(), "a");
        assert_eq!(pod.namespace(), "");
        assert_eq!(pod.labels().collect::<Vec<_>>(), [("x", "1")]);
        assert_eq!(pod.controller_of().map(|o| o.name), Some("r"));
        assert_eq!(pod.finalizers().count(), 0);
    }

    #[test]
    fn times_look_as_go_writes_them() {
        let t: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        assert_eq!(format_time(t), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro_time(t), "2026-01-02T03:04:05.678901Z");
    }
}
