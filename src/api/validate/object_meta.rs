//! The rules of `metadata`, when an object is made and when it is changed.

use serde_json::Value;

use super::{
    FieldError, Path, dns1035_label, dns1123_label, dns1123_subdomain, label_value, path_segment_name,
    qualified_name,
};
use crate::meta::{ObjectExt, split_api_version};

/// What the names of a kind must look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    #[default]
    Subdomain,
    Label,
    /// Starts with a letter: Services.
    Label1035,
    /// Anything that fits one path segment: RBAC.
    PathSegment,
}

impl NameRule {
    /// What is wrong with the name. A prefix (`generateName`) may end with a dash.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked;
        let name = match name.strip_suffix('-').filter(|_| prefix) {
            Some(stem) => {
                masked = format!("{stem}a");
                &masked
            }
            None => name,
        };
        match self {
            Self::Subdomain => dns1123_subdomain(name),
            Self::Label => dns1123_label(name),
            Self::Label1035 => dns1035_label(name),
            Self::PathSegment => path_segment_name(name),
        }
    }
}

/// All keys and values of annotations together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Checks a map of labels.
pub fn labels_errors(labels: Option<&Value>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(qualified_name(key).into_iter().map(|e| FieldError::invalid(path, key.as_str(), e)));
        let text = value.as_str().unwrap_or_default();
        errors.extend(label_value(text).into_iter().map(|e| FieldError::invalid(path, text, e)));
    }
    errors
}

/// Checks a map of annotations.
pub fn annotations_errors(annotations: Option<&Value>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        let wrong = qualified_name(&key.to_lowercase());
        errors.extend(wrong.into_iter().map(|e| FieldError::invalid(path, key.as_str(), e)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(path, ANNOTATIONS_LIMIT));
    }
    errors
}

fn owner_references(object: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for (at, owner) in object.owner_references().enumerate() {
        let version = split_api_version(owner.api_version).1;
        if owner.api_version.is_empty() {
            errors.push(FieldError::invalid(path.child("apiVersion"), "", "version must not be empty"));
        } else if version.is_empty() || version.contains('/') {
            let rule = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(path.child("apiVersion"), owner.api_version, rule));
        }
        for (field, value) in [("kind", owner.kind), ("name", owner.name), ("uid", owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(path.child(field), "", "must not be empty"));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let reference = object.array_at("/metadata/ownerReferences")[at].clone();
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference, why));
        }
        if owner.controller {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let all = object.pointer("/metadata/ownerReferences").cloned().unwrap_or_default();
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(FieldError::invalid("metadata.ownerReferences", all, why));
                }
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn finalizers(object: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in object.finalizers() {
        errors.extend(qualified_name(name).into_iter().map(|e| FieldError::invalid(path, name, e)));
    }
    let has = |wanted: &str| object.finalizers().any(|f| f == wanted);
    if has("orphan") && has("foregroundDeletion") {
        let all = object.pointer("/metadata/finalizers").cloned().unwrap_or_default();
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, all, why));
    }
    errors
}

/// Finalizers of the built-in kinds either are Kubernetes' own, or say whose they are. Rule: `validateKubeFinalizerName`.
pub fn finalizers_of_somebody(object: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata").child("finalizers");
    let own = |name: &str| matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
    let nobodys = object.finalizers().enumerate().filter(|(_, name)| !name.contains('/') && !own(name));
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    nobodys.map(|(at, name)| FieldError::invalid(path.index(at), name, why)).collect()
}

fn common(object: &Value, namespaced: bool, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespace = object.namespace();
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(path.child("namespace"), "")),
        (true, false) => {
            let wrong = dns1123_label(namespace).into_iter();
            errors.extend(wrong.map(|e| FieldError::invalid(path.child("namespace"), namespace, e)));
        }
        (false, false) => {
            errors.push(FieldError::forbidden(path.child("namespace"), "not allowed on this type"));
        }
        (false, true) => {}
    }
    if object.generation() < 0 {
        let rule = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path.child("generation"), object.generation(), rule));
    }
    let meta = |key: &str| object.meta().and_then(|meta| meta.get(key));
    errors.extend(labels_errors(meta("labels"), &path.child("labels")));
    errors.extend(annotations_errors(meta("annotations"), &path.child("annotations")));
    errors.extend(owner_references(object, &path.child("ownerReferences")));
    errors.extend(finalizers(object, &path.child("finalizers")));
    errors
}

/// The metadata of an object about to be made; its name has been generated already.
pub fn object_meta(object: &Value, namespaced: bool, rule: NameRule) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = generate_name(object, rule, &path);
    let name = object.name();
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        let wrong = rule.check(name, false).into_iter();
        errors.extend(wrong.map(|e| FieldError::invalid(path.child("name"), name, e)));
    }
    errors.extend(common(object, namespaced, &path));
    errors
}

fn generate_name(object: &Value, rule: NameRule, path: &Path) -> Vec<FieldError> {
    let prefix = object.generate_name();
    let wrong = if prefix.is_empty() { Vec::new() } else { rule.check(prefix, true) };
    wrong.into_iter().map(|why| FieldError::invalid(path.child("generateName"), prefix, why)).collect()
}

/// The metadata of an object about to be changed. What the server sets (uid, creationTimestamp, deletion*)
/// is expected to be carried over from `old` before. `prefix`: the rule for what a name was made of, for kinds that check it again.
pub fn object_meta_update(object: &Value, old: &Value, prefix: Option<NameRule>) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = prefix.map_or_else(Vec::new, |rule| generate_name(object, rule, &path));
    if old.deletion_timestamp().is_some() {
        let extra: Vec<&str> =
            object.finalizers().filter(|new| !old.finalizers().any(|f| f == *new)).collect();
        if !extra.is_empty() {
            let list: Vec<String> = extra.iter().map(|f| format!("{f:?}")).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden(path.child("finalizers"), why));
        }
    }
    if object.resource_version().is_empty() {
        let why = "must be specified for an update";
        errors.push(FieldError::invalid(path.child("resourceVersion"), "", why));
    }
    if object.generation() < old.generation() {
        let why = "must not be decremented";
        errors.push(FieldError::invalid(path.child("generation"), object.generation(), why));
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let value = |o: &Value| o.meta().and_then(|meta| meta.get(key)).cloned().unwrap_or_default();
        if value(object) != value(old) {
            errors.push(FieldError::invalid(path.child(key), value(object), "field is immutable"));
        }
    }
    errors.extend(common(object, !old.namespace().is_empty(), &path));
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sentences(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_object_needs_a_name_and_a_namespace() {
        let errors = object_meta(&json!({"metadata": {}}), true, NameRule::Subdomain);
        assert_eq!(
            sentences(errors),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
    }

    #[test]
    fn what_the_server_sets_stays() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "1"}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "resourceVersion": "1"}});
        assert_eq!(
            sentences(object_meta_update(&new, &old, None)),
            ["metadata.uid: Invalid value: \"2\": field is immutable"]
        );
    }

    #[test]
    fn a_prefix_may_end_with_a_dash() {
        assert!(NameRule::Label.check("web-", true).is_empty());
        assert!(!NameRule::Label.check("web-", false).is_empty());
    }
}
