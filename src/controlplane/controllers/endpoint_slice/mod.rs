//! EndpointSlices: where a Service's Pods are, in portions of at most a hundred.

mod plan;

use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use self::plan::{MANAGED_BY, MANAGER, Op, SERVICE_NAME, plan};
use super::context::{Context, Error, ignore_not_found};
use super::writes::Writes;
use super::{service_pods, views};
use crate::client::informer::{Cache, Key};
use crate::client::queue::Queue;

const BY_SERVICE: &str = "service";

/// The Service a slice of ours belongs to.
fn service_key(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.labels();
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(Key::new(slice.namespace().unwrap_or_default(), name))
}

struct Loop {
    context: Context,
    services: Cache<Service>,
    pods: Cache<Pod>,
    slices: Cache<EndpointSlice>,
    writes: Writes,
}

pub(super) fn start(context: &Context) {
    let queue = Queue::<Key>::default();
    let (services, pods) = (context.cache::<Service>(), views::pods(context));
    let slices = context.cache::<EndpointSlice>();
    let writes = Writes::default();
    slices.index(BY_SERVICE, |slice| service_key(slice).map(|key| key.to_string()).into_iter().collect());
    service_pods::watch(&services, &pods, &queue);
    let (touched, gone) = (queue.clone(), writes.clone());
    slices.on_change(move |change| {
        for slice in change.both() {
            let Some(key) = service_key(slice) else { continue };
            if change.new.is_none() {
                gone.gone(&key, &Key::of(&slice.metadata));
            }
            touched.add(key);
        }
    });
    let ready = {
        let (services, pods, slices) = (services.clone(), pods.clone(), slices.clone());
        async move {
            services.synced().await;
            pods.synced().await;
            slices.synced().await;
        }
    };
    let shared = Arc::new(Loop { context: context.clone(), services, pods, slices, writes });
    context.work(&queue, 5, ready, move |key| {
        let shared = Arc::clone(&shared);
        async move { shared.reconcile(&key).await }
    });
}

impl Loop {
    async fn reconcile(&self, key: &Key) -> Result<(), Error> {
        let existing = self.slices.find(BY_SERVICE, &key.to_string());
        let now = self.context.now();
        if !self.writes.settled(key, existing.iter().map(|slice| &slice.metadata), now) {
            // The watch brings what was written, and with it this key.
            return Ok(());
        }
        let ops = match self.services.get(key).filter(|s| s.metadata.deletion_timestamp.is_none()) {
            Some(service) if service_pods::selector(&service).is_none() => return Ok(()),
            Some(service) => plan(&service, &service_pods::backends(&service, &self.pods), &existing),
            None => existing.iter().map(|slice| Op::Delete(slice.name_any())).collect(),
        };
        try_join_all(ops.into_iter().map(|op| self.act(key, op))).await?;
        Ok(())
    }

    async fn act(&self, key: &Key, op: Op) -> Result<(), Error> {
        let api = self.context.api::<EndpointSlice>(&key.namespace);
        let written = match op {
            Op::Create(slice) => api.create(&PostParams::default(), &slice).await?,
            Op::Update(slice) => api.replace(&slice.name_any(), &PostParams::default(), &slice).await?,
            Op::Delete(name) => {
                ignore_not_found(api.delete(&name, &DeleteParams::default()).await)?;
                return Ok(());
            }
        };
        self.writes.note(key, &written.metadata, self.context.now());
        Ok(())
    }
}
