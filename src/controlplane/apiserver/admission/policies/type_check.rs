//! The status of a ValidatingAdmissionPolicy: what of it cannot be, by the types that it speaks of.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Policies;
use crate::admission::{Attributes, Operation};
use api::cel::Declared;
use api::meta::{Gvk, ObjectExt, split_api_version};
use api::policy::{declare_builtin, warnings};
use api::resources::Table;
use api::schema;
use api::structural::{Structural, declare};

/// A policy is checked against so many kinds.
const MOST_KINDS: usize = 10;

impl Policies {
    /// Writes into a policy what is wrong with it.
    pub(super) fn check_types(&self, attributes: &mut Attributes<'_>) {
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !write || !attributes.is("admissionregistration.k8s.io", "validatingadmissionpolicies") {
            return;
        }
        let old = attributes.old;
        let Some(policy) = attributes.object.as_mut() else { return };
        if old.is_some_and(|old| old["spec"] == policy["spec"] && old.get("status").is_some()) {
            return;
        }
        let snapshot = self.registry.snapshot();
        let table = &snapshot.table;
        let kinds: Vec<(Gvk, Arc<Declared>)> = kinds(policy, table)
            .into_iter()
            .filter_map(|kind| Some((kind.clone(), known(&kind, table)?)))
            .collect();
        let params = policy.pointer("/spec/paramKind").and_then(|kind| {
            let (group, version) = split_api_version(kind.text("apiVersion")?);
            known(&Gvk::new(group.to_owned(), version.to_owned(), kind.text("kind")?.to_owned()), table)
        });
        let warnings = warnings(policy, &kinds, params.as_ref());
        let checked = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
        let generation = policy.generation();
        policy["status"]["typeChecking"] = checked;
        policy["status"]["observedGeneration"] = generation.into();
    }
}

/// The kinds that a policy names without wildcards, in order.
fn kinds(policy: &Value, table: &Table) -> Vec<Gvk> {
    let mut kinds = Vec::new();
    for rule in policy.array_at("/spec/matchConstraints/resourceRules") {
        let words =
            |key: &str| -> Vec<&str> { rule.array_at(key).iter().filter_map(Value::as_str).collect() };
        let (groups, versions) = (words("/apiGroups"), words("/apiVersions"));
        if groups.contains(&"*") || versions.contains(&"*") {
            continue;
        }
        for group in &groups {
            for version in &versions {
                for resource in words("/resources").iter().filter(|name| !name.contains(['*', '/'])) {
                    kinds.extend(table.find(group, version, resource).map(|row| row.gvk()));
                }
            }
        }
    }
    kinds.sort_by_key(|kind: &Gvk| (kind.group.clone(), kind.version.clone(), kind.kind.clone()));
    kinds.dedup();
    kinds.truncate(MOST_KINDS);
    kinds
}

/// What is known of a kind's objects.
fn known(kind: &Gvk, table: &Table) -> Option<Arc<Declared>> {
    let row = table.by_kind(kind)?;
    match &row.published {
        Some(published) => {
            let published = serde_json::from_str(published).ok()?;
            declare(&Structural::of(&published), true, &kind.kind).map(Arc::new)
        }
        None => schema::builtin(kind).map(|schema| Arc::new(declare_builtin(schema))),
    }
}
