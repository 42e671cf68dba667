//! Reading and changing Pods as JSON, as several plugins do.

use serde_json::Value;

use api::meta::ObjectExt;

/// Marks the API's image of a static Pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Init containers, then containers.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.array_at("/spec/initContainers").iter().chain(pod.array_at("/spec/containers"))
}

/// Init containers, then containers.
pub(super) fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let (mut init, mut main) = (None, None);
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        for (field, value) in spec.iter_mut() {
            match field.as_str() {
                "initContainers" => init = value.as_array_mut(),
                "containers" => main = value.as_array_mut(),
                _ => {}
            }
        }
    }
    init.into_iter().chain(main).flatten()
}

/// Appends to a list field, which may be missing or null.
pub(super) fn push(object: &mut Value, field: &str, item: Value) {
    let Some(object) = object.as_object_mut() else { return };
    let list = object.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// The scalar at `pointer` written, with its parents made.
pub(super) fn set_spec(pod: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(field.to_owned(), value.into());
    }
}
