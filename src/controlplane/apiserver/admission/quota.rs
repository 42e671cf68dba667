//! ResourceQuotas: nothing is created, and nothing grows, beyond what its namespace may use.
//!
//! Writes that a quota counts go one at a time in a namespace: what is used is read from the store while the namespace is
//! held, and it is held until the write has an outcome. Where other servers write to the same store, the write takes the namespace's
//! turn there, and is counted again if another one came first. So the count is exact whoever writes at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::super::context::from_storage;
use super::{Attributes, Operation};
use crate::index::Index;
use crate::key::CollectionKey;
use crate::reservation::{Reservation, Reservations};
use api::meta::ObjectExt;
use api::quota::{self, Amounts};
use api::status::ApiError;
use storage::{ListQuery, Turn};

/// Keeps namespaces within their quotas.
#[derive(Default)]
pub(super) struct Quotas {
    namespaces: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A namespace that is held for one write.
struct Held {
    _guard: OwnedMutexGuard<()>,
    turn: Option<Turn>,
}

impl Reservation for Held {
    fn turn(&self) -> Option<Turn> {
        self.turn.clone()
    }

    fn commit(self: Box<Self>) {}
}

/// What of `after` is more than before, among the names that the quota limits.
fn growth(hard: &Amounts, before: &Amounts, after: &Amounts) -> Amounts {
    let mut more = Amounts::new();
    for (name, amount) in after.iter().filter(|(name, _)| hard.contains_key(*name)) {
        let grown = match before.get(name) {
            Some(before) => *amount - *before,
            None => *amount,
        };
        if grown.sign() > 0 {
            more.insert(name.clone(), grown);
        }
    }
    more
}

fn shown<'a>(names: impl Iterator<Item = &'a String>, amounts: &Amounts) -> String {
    let of = |name: &String| {
        let amount = amounts.get(name).map_or_else(|| "0".to_owned(), ToString::to_string);
        format!("{name}={amount}")
    };
    names.map(of).collect::<Vec<_>>().join(",")
}

/// Refuses growth beyond the quota.
fn check(quota: &Value, hard: &Amounts, used: &Amounts, more: &Amounts) -> Result<(), String> {
    let mut over: Vec<&String> = Vec::new();
    for (name, amount) in more {
        let mut sum = used.clone();
        quota::add(&mut sum, name, *amount);
        if hard.get(name).is_some_and(|hard| sum[name] > *hard) {
            over.push(name);
        }
    }
    if over.is_empty() {
        return Ok(());
    }
    Err(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name(),
        shown(over.iter().copied(), more),
        shown(over.iter().copied(), used),
        shown(over.iter().copied(), hard)
    ))
}

/// The quotas that the write makes use of, each with what it takes of it.
fn concerned(
    attributes: &Attributes<'_>,
    quotas: &[Arc<Value>],
) -> Result<Vec<(Arc<Value>, Amounts)>, ApiError> {
    let Some(object) = attributes.object.as_ref() else { return Ok(Vec::new()) };
    let (group, resource) = (attributes.group, attributes.resource);
    let after = quota::usage(group, resource, object);
    let mut found = Vec::new();
    for one in quotas {
        let hard = quota::hard(one);
        if !after.keys().any(|name| hard.contains_key(name)) || !quota::counts(one, group, resource, object) {
            continue;
        }
        if attributes.is("", "pods") && attributes.operation == Operation::Create {
            let missing = quota::unsaid(one, object);
            if !missing.is_empty() {
                let words: Vec<String> = missing
                    .iter()
                    .map(|(name, who)| {
                        format!("{name} for: {}", who.iter().cloned().collect::<Vec<_>>().join(","))
                    })
                    .collect();
                let why = format!("failed quota: {}: must specify {}", one.name(), words.join("; "));
                return Err(attributes.forbidden(&why));
            }
        }
        let before = match attributes.old {
            Some(old) if quota::counts(one, group, resource, old) => quota::usage(group, resource, old),
            _ => Amounts::new(),
        };
        let more = growth(&hard, &before, &after);
        if !more.is_empty() {
            found.push((one.clone(), more));
        }
    }
    Ok(found)
}

impl Quotas {
    async fn hold(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for a namespace that nobody else has a handle of.
            all.retain(|name, lock| name == namespace || Arc::strong_count(lock) > 1);
            all.entry(namespace.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Admits a write within its namespace's quotas, and holds the namespace for it. Fails as `forbidden` if it would use more
    /// than there is.
    pub(super) async fn reserve(
        &self,
        attributes: &Attributes<'_>,
        index: &Index,
        reservations: &mut Reservations,
    ) -> Result<(), ApiError> {
        let creates = attributes.operation == Operation::Create && attributes.subresource.is_empty();
        let grows = attributes.operation == Operation::Update
            && matches!(attributes.subresource, "" | "resize")
            && attributes.group.is_empty()
            && matches!(attributes.resource, "pods" | "services" | "persistentvolumeclaims");
        if attributes.namespace.is_empty() || !(creates || grows) {
            return Ok(());
        }
        let quotas: Vec<Arc<Value>> = index.read().quotas(attributes.namespace).cloned().collect();
        if quotas.is_empty() {
            return Ok(());
        }
        let concerned = concerned(attributes, &quotas)?;
        if concerned.is_empty() {
            return Ok(());
        }
        let guard = self.hold(attributes.namespace).await;
        let turn = index.store().turn(&format!("quotas/{}", attributes.namespace)).await;
        let held = Held { _guard: guard, turn: turn.map_err(from_storage)? };
        let collection = CollectionKey::namespaced(attributes.group, attributes.resource);
        let query = ListQuery { prefix: collection.prefix(attributes.namespace), ..ListQuery::default() };
        let standing: Vec<Value> = index
            .store()
            .list(query)
            .await
            .map_err(from_storage)?
            .entries
            .iter()
            .filter_map(|entry| serde_json::from_slice(&entry.data).ok())
            .collect();
        for (one, more) in &concerned {
            let mut used = Amounts::new();
            for object in &standing {
                if quota::counts(one, attributes.group, attributes.resource, object) {
                    quota::add_all(&mut used, &quota::usage(attributes.group, attributes.resource, object));
                }
            }
            check(one, &quota::hard(one), &used, more).map_err(|why| attributes.forbidden(&why))?;
        }
        reservations.add(held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use api::quantity::Quantity;

    #[test]
    fn says_what_is_exceeded() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "requests.cpu": "2"}}});
        let amounts = |pods: i64, cpu: i64| -> Amounts {
            [
                ("pods".to_owned(), Quantity::from_units(pods)),
                ("requests.cpu".to_owned(), Quantity::from_units(cpu)),
            ]
            .into()
        };
        let hard = quota::hard(&quota);
        assert_eq!(check(&quota, &hard, &amounts(0, 1), &amounts(1, 1)), Ok(()));
        assert_eq!(
            check(&quota, &hard, &amounts(1, 2), &amounts(1, 1)),
            Err("exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=2, limited: pods=1,requests.cpu=2".to_owned())
        );
        let none = Amounts::new();
        assert_eq!(
            growth(&hard, &amounts(1, 2), &amounts(1, 3)),
            [("requests.cpu".to_owned(), Quantity::from_units(1))].into()
        );
        assert_eq!(growth(&hard, &amounts(1, 2), &none), none);
    }
}
