//! The namespaces the cluster itself lives in: each comes back when it is gone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};

use super::context::{Context, Error, ignore_exists};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};

/// Nodes keep their leases in one of them, and Pods without a namespace live in another.
const SYSTEM: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

struct Reconciler {
    context: Context,
    namespaces: Cache<Namespace>,
}

pub(super) fn start(context: &Context) {
    let namespaces = context.cache::<Namespace>();
    let mut harness = Harness::new(context);
    harness.watches(&namespaces, |change, queue| {
        if let (None, Some(gone)) = (change.new, change.old)
            && SYSTEM.contains(&gone.name_any().as_str())
        {
            queue.add(gone.name_any());
        }
    });
    let queue = harness.queue();
    SYSTEM.iter().for_each(|name| queue.add((*name).to_owned()));
    harness.run(1, Arc::new(Reconciler { context: context.clone(), namespaces }));
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        if self.namespaces.get(&Key::cluster(name)).is_none() {
            let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
            let namespace = Namespace { metadata, ..Namespace::default() };
            ignore_exists(self.context.all::<Namespace>().create(&PostParams::default(), &namespace).await)?;
        }
        Ok(Outcome::Done)
    }
}
