//! Writes into aggregating ClusterRoles the rules of the roles that they select. Who asks what a role allows reads what is written.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use client::typed::selects;

/// The rules that an aggregating role is to have: those of all roles that it selects, by name, each once. `None` if it does not
/// aggregate, or has them already.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref()?;
    let selected = |part: &&Arc<ClusterRole>| {
        part.metadata.name != role.metadata.name
            && selectors.iter().any(|selector| selects(selector, part.metadata.labels.as_ref()))
    };
    let mut parts: Vec<&Arc<ClusterRole>> = all.iter().filter(selected).collect();
    parts.sort_by_key(|part| part.name_any());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.iter().filter_map(|part| part.rules.as_ref()).flatten() {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    (rules != *role.rules.as_deref().unwrap_or_default()).then_some(rules)
}

struct Reconciler {
    context: Context,
    roles: Cache<ClusterRole>,
}

pub(super) fn start(context: &Context) {
    let roles = context.cache::<ClusterRole>();
    let mut harness = Harness::new(context);
    let known = roles.clone();
    // Any role may be a part of any aggregate.
    harness.watches(&roles, move |_, queue| {
        let aggregates = known.list().into_iter().filter(|role| role.aggregation_rule.is_some());
        aggregates.for_each(|role| queue.add(role.name_any()));
    });
    harness.run(1, Arc::new(Reconciler { context: context.clone(), roles }));
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(role) = self.roles.get(&Key::cluster(name)) else { return Ok(Outcome::Done) };
        if role.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if let Some(rules) = plan(&role, &self.roles.list()) {
            let wanted = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": name, "uid": role.metadata.uid},
                "rules": rules,
            });
            let how = PatchParams::apply(self.context.name()).force();
            ignore_not_found(
                self.context.all::<ClusterRole>().patch(name, &how, &Patch::Apply(wanted)).await,
            )?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(value: serde_json::Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).expect("a role"))
    }

    #[test]
    fn an_aggregate_has_the_rules_of_what_it_selects_once() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let part = |name: &str, rules: serde_json::Value| {
            role(json!({"metadata": {"name": name, "labels": {"to-view": "true"}}, "rules": rules}))
        };
        let other = role(json!({"metadata": {"name": "other"}, "rules": [rule("delete")]}));
        let rule_of = json!({"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]});
        let view = |rules: serde_json::Value| {
            role(
                json!({"metadata": {"name": "view", "labels": {"to-view": "true"}}, "aggregationRule": rule_of, "rules": rules}),
            )
        };
        let all =
            [part("b", json!([rule("list"), rule("get")])), part("a", json!([rule("get")])), other.clone()];
        let rules = plan(&view(json!([])), &all).expect("rules to write");
        assert_eq!(json!(rules), json!([rule("get"), rule("list")]));
        assert_eq!(plan(&view(json!(rules)), &all), None, "it has them");
        assert_eq!(plan(&view(json!(rules)), &[]), Some(Vec::new()), "the parts are gone");
        assert_eq!(plan(&other, &all), None, "it does not aggregate");
    }
}
