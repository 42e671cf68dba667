//! Keeps aggregated ClusterRoles up to date.

use std::sync::Arc;

use axum::Router;
use http::Method;
use serde_json::json;

use super::send;
use crate::api::meta::ObjectExt;
use crate::controlplane::apiserver::authz::Rule;
use crate::controlplane::apiserver::index::Index;
use crate::controlplane::apiserver::key::collections::CLUSTER_ROLES;

/// Keeps the `rules` of aggregating ClusterRoles equal to what their parts add up to, so that people see what a role
/// gives (upstream's clusterrole-aggregation controller). Decisions do not wait for it: they add up the parts themselves.
pub async fn keep_aggregates(router: Router, index: Arc<Index>) {
    let mut changes = index.rbac_changes();
    loop {
        changes.mark_unchanged();
        let outdated: Vec<(String, Vec<Rule>)> = {
            let known = index.read();
            let all = known.rbac.aggregates().into_iter();
            all.filter(|(name, rules)| known.rbac.written_rules(name) != rules).collect()
        };
        for (name, rules) in outdated {
            if let Err(error) = write(&router, &index, &name, &rules).await {
                tracing::warn!(name, error, "the rules of an aggregating ClusterRole were not written");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn write(router: &Router, index: &Index, name: &str, rules: &[Rule]) -> Result<(), String> {
    let key = CLUSTER_ROLES.key("", name);
    let Some(entry) = index.store().get(&key).await.map_err(|error| error.to_string())? else {
        return Ok(());
    };
    let mut role: serde_json::Value =
        serde_json::from_slice(&entry.data).map_err(|error| error.to_string())?;
    if role.deletion_timestamp().is_some() {
        return Ok(());
    }
    role["rules"] = json!(rules);
    let path = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}");
    match send(router, Method::PUT, &path, &role).await? {
        // 409: it has changed meanwhile, and that change wakes us again.
        (200..=299 | 404 | 409, _) => Ok(()),
        (_, answer) => Err(answer),
    }
}
