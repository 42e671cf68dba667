//! Bootstrap tokens: deletes each once it has expired.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};

const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

struct Reconciler {
    context: Context,
    secrets: Cache<Secret>,
}

/// When the token stops to be good. One that says no time never does; one that cannot be read is bad already.
fn expires(secret: &Secret) -> Option<Timestamp> {
    let text = &secret.data.as_ref()?.get(EXPIRATION)?.0;
    let text = std::str::from_utf8(text).unwrap_or_default();
    Some(text.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

pub(super) fn start(context: &Context) {
    let secrets =
        context.informers.selected::<Secret>(&format!("metadata.namespace={NAMESPACE},type={KIND}"));
    let mut harness = Harness::new(context);
    harness.watches(&secrets, |change, queue| {
        change.new.into_iter().for_each(|secret| queue.add(secret.name_any()));
    });
    harness.run(1, Arc::new(Reconciler { context: context.clone(), secrets }));
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(secret) = self.secrets.get(&Key::new(NAMESPACE, name)) else { return Ok(Outcome::Done) };
        let Some(expires) = expires(&secret) else { return Ok(Outcome::Done) };
        let left = expires.duration_since(self.context.now());
        if left.is_positive() {
            return Ok(Outcome::after(Some(left)));
        }
        let preconditions = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        ignore_not_found(self.context.api::<Secret>(NAMESPACE).delete(name, &params).await)?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn tokens_say_when_they_expire() {
        let check = |data: Value, expect: Option<&str>| {
            let secret: Secret = from_value(json!({ "data": data })).unwrap();
            assert_eq!(expires(&secret).map(|at| at.to_string()).as_deref(), expect, "{data}");
        };
        check(json!({}), None);
        check(json!({"expiration": "MjAyNi0wMS0wMVQwMDowMDowMFo="}), Some("2026-01-01T00:00:00Z"));
        check(json!({"expiration": "c29vbg=="}), Some("1970-01-01T00:00:00Z"));
    }
}
