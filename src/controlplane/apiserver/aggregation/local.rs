//! The APIServices of what this server serves itself: made when they are missing, and taken away with their definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::Aggregator;
use super::availability::PATH;
use super::look::Found;
use crate::bootstrap::send;
use api::meta::ObjectExt;
use api::resources::condition;
use rt::Clock;

/// Says of an APIService that the server keeps it: at start alone, or always.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// In which order clients prefer groups, as upstream has it; custom groups come after all of these.
const PRIORITIES: &[(&str, i64)] = &[
    ("", 18_000),
    ("apiregistration.k8s.io", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
];
const CUSTOM_GROUP: i64 = 1000;
const CUSTOM_VERSION: i64 = 100;
const BUILTIN_VERSION: i64 = 15;

/// How much a group that this server serves is preferred.
pub fn group_priority(group: &str) -> i64 {
    PRIORITIES.iter().find(|(name, _)| *name == group).map_or(CUSTOM_GROUP, |(_, priority)| *priority)
}

/// The APIService of a group and version.
fn object(group: &str, version: &str, custom: bool) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority(group),
    "versionPriority": match (custom, version) {
        (true, _) => CUSTOM_VERSION,
        (false, "v2") => 2 * BUILTIN_VERSION,
        (false, _) => BUILTIN_VERSION,
    }});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    let managed = if custom { "true" } else { "onstart" };
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}}, "spec": spec})
}

impl Aggregator {
    /// Brings the APIServices of what is served here in line with the registry.
    pub(super) async fn register(&self, router: &Router, clock: &dyn Clock) {
        let snapshot = self.registry.snapshot();
        let mut wanted = BTreeMap::new();
        for row in snapshot.table.iter() {
            let made = object(&row.group, &row.version, row.end.is_some());
            wanted.entry(made.name().to_owned()).or_insert(made);
        }
        self.index.caught_up().await;
        let present: Vec<Arc<Value>> = self.index.read().api_services().cloned().collect();
        for object in &present {
            let name = object.name();
            let kept = object.label(MANAGED) == Some("true") && object.pointer("/spec/service").is_none();
            if kept && !wanted.contains_key(name) {
                said(name, send(router, Method::DELETE, &format!("{PATH}/{name}"), &json!({})).await);
            }
        }
        let known = |name: &str| present.iter().find(|known| known.name() == name);
        // All at once, so that the store makes them durable together.
        let missing = wanted.iter().filter(|(name, _)| known(name).is_none());
        let made =
            missing.map(async |(name, object)| said(name, send(router, Method::POST, PATH, object).await));
        join_all(made).await;
        self.index.caught_up().await;
        let settled =
            |known: &Value| known.pointer("/spec/service").is_some() || condition(known, "Available");
        let untold = wanted.keys().filter(|name| !known(name).is_some_and(|known| settled(known)));
        let local = &Found::local();
        join_all(untold.map(|name| self.write_condition(router, name, local, clock))).await;
    }
}

fn said(name: &str, answer: Result<(u16, String), String>) {
    match answer {
        Ok((200..=299 | 404 | 409, _)) => {}
        Ok((_, why)) | Err(why) => tracing::warn!(name, why, "an APIService was not registered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::resources::builtin;

    #[test]
    fn groups_stand_in_the_order_that_clients_prefer() {
        for row in builtin().iter().filter(|row| group_priority(&row.group) == CUSTOM_GROUP) {
            assert_eq!(row.group, "metrics.k8s.io", "a built-in group has a place of its own");
        }
        assert!(PRIORITIES.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        assert_eq!(object("", "v1", false)["metadata"]["name"], "v1.");
        assert_eq!(object("x.io", "v1", true)["spec"]["groupPriorityMinimum"], 1000);
    }
}
