//! What a write through a subresource may change: everything else stays as stored.

use serde_json::Value;

use api::meta::ObjectExt;
use api::resources::{Part, Resource};

/// Readies `new`, sent to a subresource that writes a part (`None`: to the object itself), as successor of `old`.
pub fn apply(resource: &Resource, part: Option<Part>, new: &mut Value, old: &Value) {
    match part {
        None => resource.prepare_update(new, old),
        Some(Part::Status) => resource.prepare_status_update(new, old),
        Some(Part::Finalize) => keep_all_but(new, old, &["/spec/finalizers"]),
        // Rule: upstream's approval strategy takes labels and annotations with the conditions.
        Some(Part::Approval) => keep_all_but(new, old, &["/metadata", "/status/conditions"]),
        Some(Part::EphemeralContainers) => {
            keep_all_but(new, old, &["/spec/ephemeralContainers"]);
            count(resource, new, old);
        }
        Some(Part::Resize) => {
            resize(new, old);
            count(resource, new, old);
        }
    }
}

/// `new` becomes `old` with only the values at `pointers`, as sent.
fn keep_all_but(new: &mut Value, old: &Value, pointers: &[&str]) {
    let mut kept = old.clone();
    for pointer in pointers {
        put(&mut kept, pointer, new.pointer(pointer).cloned());
    }
    *new = kept;
}

/// Sets or removes the value at `pointer`; maps on the way are made.
pub fn put(object: &mut Value, pointer: &str, value: Option<Value>) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    let mut at = object;
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        if !at.is_object() {
            return;
        }
        at = &mut at[part];
        if at.is_null() {
            *at = Value::Object(serde_json::Map::new());
        }
    }
    let Some(map) = at.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
}

/// Containers keep everything but their resources and resize policies.
fn resize(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for list in ["/spec/containers", "/spec/initContainers"] {
        let Some(containers) = kept.pointer_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let name = container.text("name").unwrap_or_default().to_owned();
            let sent = new.array_at(list).iter().find(|sent| sent.text("name") == Some(&name));
            let Some(sent) = sent else { continue };
            for field in ["/resources", "/resizePolicy"] {
                put(container, field, sent.pointer(field).cloned());
            }
        }
    }
    *new = kept;
}

fn count(resource: &Resource, new: &mut Value, old: &Value) {
    if resource.generation && new.get("spec") != old.get("spec") {
        new.meta_mut().insert("generation".to_owned(), (old.generation() + 1).into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_subresource_owns_changes() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"], "x": 1}});
        let mut new = json!({"metadata": {"name": "a"}, "spec": {"x": 2}});
        keep_all_but(&mut new, &old, &["/spec/finalizers"]);
        assert_eq!(new, json!({"metadata": {"name": "a"}, "spec": {"x": 1}}));
        let mut new = json!({"status": {"conditions": [1]}, "spec": {}});
        keep_all_but(&mut new, &old, &["/status/conditions"]);
        assert_eq!(new["status"], json!({"conditions": [1]}));
        assert_eq!(new["spec"], old["spec"]);
    }

    #[test]
    fn resize_changes_resources_only() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "i", "resources": {}}]}});
        let mut new = json!({"spec": {"containers": [{"name": "a", "image": "j", "resources": {"limits": {"cpu": "1"}}}]}});
        resize(&mut new, &old);
        assert_eq!(new.str_at("/spec/containers/0/image"), Some("i"));
        assert_eq!(new.str_at("/spec/containers/0/resources/limits/cpu"), Some("1"));
    }
}
