//! The EndpointSlices that one controller manages, by the Service they belong to: found, followed and written.

use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use super::context::{Context, Error, ignore_not_found};
use super::harness::Harness;
use super::writes::Writes;
use client::informer::{Cache, Key};
use client::typed::SERVICE_NAME;

/// The label that names a slice's manager.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The index of slices by manager and Service.
const BY_SERVICE: &str = "managed";

/// One change of a Service's slices.
#[derive(Debug, PartialEq)]
pub(super) enum Op {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(String),
}

/// Slices of one manager.
pub(super) struct ManagedSlices {
    context: Context,
    manager: &'static str,
    cache: Cache<EndpointSlice>,
    writes: Writes,
}

/// The Service that a slice of this manager belongs to.
fn service_of(slice: &EndpointSlice, manager: &str) -> Option<Key> {
    let labels = slice.labels();
    let ours = labels.get(MANAGED_BY).is_some_and(|name| name == manager);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(Key::new(slice.namespace().unwrap_or_default(), name))
}

fn index_key(manager: &str, service: &Key) -> String {
    format!("{manager} {service}")
}

impl ManagedSlices {
    /// Follows the manager's slices: a change brings back their Service's key.
    pub(super) fn watch(context: &Context, harness: &mut Harness<Key>, manager: &'static str) -> Self {
        let (cache, writes) = (context.cache::<EndpointSlice>(), Writes::default());
        cache.index(BY_SERVICE, |slice| {
            let manager = slice.labels().get(MANAGED_BY);
            let key = manager.and_then(|manager| Some(index_key(manager, &service_of(slice, manager)?)));
            key.into_iter().collect()
        });
        let gone = writes.clone();
        harness.watches(&cache, move |change, queue| {
            for slice in change.both() {
                let Some(key) = service_of(slice, manager) else { continue };
                if change.new.is_none() {
                    gone.gone(&key, &Key::of(&slice.metadata));
                }
                queue.add(key);
            }
        });
        Self { context: context.clone(), manager, cache, writes }
    }

    /// The slices of a Service. `None` while not all that was written has been seen: the watch brings it, and with it this
    /// key again.
    pub(super) fn of(&self, service: &Key) -> Option<Vec<Arc<EndpointSlice>>> {
        let existing = self.cache.find(BY_SERVICE, &index_key(self.manager, service));
        let metadata = existing.iter().map(|slice| &slice.metadata);
        self.writes.settled(service, metadata, self.context.now()).then_some(existing)
    }

    /// Carries out changes of a Service's slices, all at once. Fails with the first that is refused.
    pub(super) async fn carry_out(&self, service: &Key, ops: Vec<Op>) -> Result<(), Error> {
        try_join_all(ops.into_iter().map(|op| self.act(service, op))).await?;
        Ok(())
    }

    async fn act(&self, service: &Key, op: Op) -> Result<(), Error> {
        let api = self.context.api::<EndpointSlice>(&service.namespace);
        let written = match op {
            Op::Create(slice) => api.create(&PostParams::default(), &slice).await?,
            Op::Update(slice) => api.replace(&slice.name_any(), &PostParams::default(), &slice).await?,
            Op::Delete(name) => {
                ignore_not_found(api.delete(&name, &DeleteParams::default()).await)?;
                return Ok(());
            }
        };
        self.writes.note(service, &written.metadata, self.context.now());
        Ok(())
    }
}
