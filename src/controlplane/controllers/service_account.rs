//! Gives every namespace the ServiceAccount `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};

use super::context::{Context, Error, ignore_exists};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};

const DEFAULT: &str = "default";

/// True when the namespace lacks what it should have.
pub(super) fn wants_content(namespace: Option<&Namespace>) -> bool {
    namespace.is_some_and(|namespace| {
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
        namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
    })
}

pub(super) fn start(context: &Context) {
    let (namespaces, accounts) = (context.cache::<Namespace>(), context.cache::<ServiceAccount>());
    let mut harness = Harness::new(context);
    harness.watches(&namespaces, |change, queue| {
        change.new.into_iter().for_each(|namespace| queue.add(namespace.name_any()));
    });
    harness.watches(&accounts, |change, queue| {
        if let (None, Some(old)) = (change.new, change.old)
            && old.name_any() == DEFAULT
        {
            queue.add(old.namespace().unwrap_or_default());
        }
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), namespaces, accounts }));
}

struct Reconciler {
    context: Context,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let wanted = wants_content(self.namespaces.get(&Key::cluster(name)).as_deref())
            && self.accounts.named(name, DEFAULT).is_none();
        if wanted {
            create(&self.context.api(name)).await?;
        }
        Ok(Outcome::Done)
    }
}

async fn create(api: &kube::Api<ServiceAccount>) -> Result<(), Error> {
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    ignore_exists(api.create(&PostParams::default(), &account).await)?;
    Ok(())
}
