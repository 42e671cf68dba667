//! Namespaces: when one is deleted, deletes everything in it, and then lets it go.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::context::{Context, Error, ignore_not_found};
use super::discovered::{Kind, kinds};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use client::informer::{Cache, Key};

/// The finalizer (in `spec.finalizers`) that this controller answers for.
const FINALIZER: &str = "kubernetes";
/// How long to wait for content that somebody else must let go, before looking again.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

fn is_leaving(namespace: &Namespace) -> bool {
    let spec = namespace.spec.as_ref();
    let ours = spec.is_some_and(|spec| spec.finalizers.iter().flatten().any(|name| name == FINALIZER));
    namespace.metadata.deletion_timestamp.is_some() && ours
}

pub(super) fn start(context: &Context) {
    let (namespaces, pods) = (context.cache::<Namespace>(), indexes::pods(context));
    let mut harness = Harness::new(context);
    harness.watches(&namespaces, |change, queue| {
        if let Some(namespace) = change.new.filter(|namespace| is_leaving(namespace)) {
            queue.add(namespace.name_any());
        }
    });
    // Pods end in their own time: the last one of a namespace that is leaving brings it back.
    let all = namespaces.clone();
    harness.watches(&pods, move |change, queue| {
        let (None, Some(pod)) = (change.new, change.old) else { return };
        let name = pod.namespace().unwrap_or_default();
        if all.get(&Key::cluster(&name)).is_some_and(|namespace| is_leaving(&namespace)) {
            queue.add(name);
        }
    });
    harness.run(5, Arc::new(Reconciler { context: context.clone(), namespaces }));
}

struct Reconciler {
    context: Context,
    namespaces: Cache<Namespace>,
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let empty = reconcile(&self.context, &self.namespaces, name).await?;
        Ok(if empty { Outcome::Done } else { Outcome::RequeueAfter(LOOK_AGAIN) })
    }
}

/// True when there is nothing left to wait for.
async fn reconcile(context: &Context, namespaces: &Cache<Namespace>, name: &str) -> Result<bool, Error> {
    let Some(namespace) = namespaces.get(&Key::cluster(name)).filter(|n| is_leaving(n)) else {
        return Ok(true);
    };
    let kinds: Vec<Kind> =
        kinds(&context.client, true).await?.into_iter().filter(|kind| kind.namespaced).collect();
    let kinds = Arc::new(kinds);
    // What cannot be cleared now, as another server's that does not answer, keeps nothing else.
    let left = join_all(kinds.iter().map(|kind| clear(context, kind, name))).await;
    let left: Vec<bool> = left.into_iter().collect::<Result<_, _>>()?;
    if left.into_iter().any(|left| left) {
        return Ok(false);
    }
    let mut free = Namespace::clone(&namespace);
    if let Some(finalizers) = free.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let api = context.all::<Namespace>();
    ignore_not_found(api.replace_subresource("finalize", name, &PostParams::default(), &free).await)?;
    Ok(true)
}

/// Deletes all objects of a kind; true when some are still there.
async fn clear(context: &Context, kind: &Kind, namespace: &str) -> Result<bool, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &kind.resource);
    let some = ListParams::default().limit(1);
    if api.list_metadata(&some).await?.items.is_empty() {
        return Ok(false);
    }
    let background = DeleteParams::background();
    if kind.collection {
        api.delete_collection(&background, &ListParams::default()).await?;
    } else {
        for object in api.list_metadata(&ListParams::default()).await? {
            ignore_not_found(api.delete(&object.name_any(), &background).await)?;
        }
    }
    Ok(!api.list_metadata(&some).await?.items.is_empty())
}
