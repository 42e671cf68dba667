//! Gives every namespace the ServiceAccount `default`.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};

use super::context::{Context, Error, ignore_exists};
use crate::client::informer::Key;
use crate::client::queue::Queue;

const DEFAULT: &str = "default";

/// True when the namespace lacks what it should have.
pub(super) fn wants_content(namespace: Option<&Namespace>) -> bool {
    namespace.is_some_and(|namespace| {
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
        namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
    })
}

pub(super) fn start(context: &Context) {
    let queue = Queue::<String>::default();
    let (namespaces, accounts) = (context.cache::<Namespace>(), context.cache::<ServiceAccount>());
    let changed = queue.clone();
    namespaces.on_change(move |change| {
        if let Some(namespace) = change.new {
            changed.add(namespace.name_any());
        }
    });
    let removed = queue.clone();
    accounts.on_change(move |change| {
        if let (None, Some(old)) = (change.new, change.old)
            && old.name_any() == DEFAULT
        {
            removed.add(old.namespace().unwrap_or_default());
        }
    });
    let ready = {
        let (namespaces, accounts) = (namespaces.clone(), accounts.clone());
        async move {
            namespaces.synced().await;
            accounts.synced().await;
        }
    };
    let context = context.clone();
    context.clone().work(&queue, 2, ready, move |name| {
        let wanted = wants_content(namespaces.get(&Key::cluster(&name)).as_deref())
            && accounts.named(&name, DEFAULT).is_none();
        let api = context.api::<ServiceAccount>(&name);
        async move { if wanted { create(&api).await } else { Ok(()) } }
    });
}

async fn create(api: &kube::Api<ServiceAccount>) -> Result<(), Error> {
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    ignore_exists(api.create(&PostParams::default(), &account).await)?;
    Ok(())
}
