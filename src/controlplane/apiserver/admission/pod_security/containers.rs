//! Containers of a Pod, and how sentences name some of them.

use serde_json::Value;

use api::meta::ObjectExt;

/// Containers of all three lists.
pub fn all(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    lists.into_iter().flat_map(|list| pod.array_at(list))
}

/// Names of the containers for which it is true.
pub fn those(pod: &Value, which: impl Fn(&Value) -> bool) -> Vec<&str> {
    all(pod)
        .filter(|container| which(container))
        .map(|container| container.text("name").unwrap_or_default())
        .collect()
}

/// `"a", "b"`.
pub fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`.
pub fn named(word: &str, names: &[&str]) -> String {
    format!("{word}{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names))
}

/// Whether a Pod is for Windows, to which rules of Linux do not apply.
pub fn is_windows(pod: &Value) -> bool {
    pod.str_at("/spec/os/name") == Some("windows")
}
