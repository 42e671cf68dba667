//! Follows Ingresses, classes and the Secrets that they name, and hands what they mean to the proxy.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use tokio::sync::Notify;

use super::certificates::certified;
use super::routes::Table;
use super::serve::Shared;
use crate::client::informer::Informers;
use crate::client::typed::SecretKey;
use crate::rt::{Stop, Tasks};

/// The Secrets that are followed, and what the last word on each was.
#[derive(Default)]
struct Secrets {
    followed: Mutex<BTreeMap<SecretKey, (Stop, Option<Secret>)>>,
    changed: Notify,
}

/// Starts to follow; the proxy is told of every change.
pub(super) fn start(client: Client, shared: Arc<Shared>, tasks: &Tasks) {
    let informers = Informers::new(client.clone(), tasks);
    let (ingresses, classes) = (informers.cache::<Ingress>(), informers.cache::<IngressClass>());
    let secrets = Arc::new(Secrets::default());
    let wake = secrets.clone();
    ingresses.on_change(move |_| wake.changed.notify_one());
    let wake = secrets.clone();
    classes.on_change(move |_| wake.changed.notify_one());
    let own = tasks.clone();
    tasks.spawn_until_stop(async move {
        ingresses.synced().await;
        classes.synced().await;
        loop {
            let table = Table::of(&ingresses.list(), &classes.list());
            secrets.follow(&table, &client, &own);
            shared.certificates.replace(secrets.certificates(&table));
            shared.replace(table);
            secrets.changed.notified().await;
        }
    });
}

impl Secrets {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SecretKey, (Stop, Option<Secret>)>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One watch per Secret, as kubelets have it: a node may not list them all.
    fn follow(self: &Arc<Self>, table: &Table, client: &Client, tasks: &Tasks) {
        let wanted = table.secrets();
        let mut followed = self.lock();
        followed.retain(|key, (stop, _)| {
            let stays = wanted.contains(key);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for key in wanted {
            let own = self.clone();
            let client = client.clone();
            followed.entry(key).or_insert_with_key(|key| {
                let (stop, key) = (tasks.stop().child_token(), key.clone());
                let until = stop.clone();
                tasks.spawn(async move { until.run_until_cancelled(watch_secret(own, key, client)).await });
                (stop, None)
            });
        }
    }

    fn put(&self, key: &SecretKey, secret: Option<Secret>) {
        if let Some((_, known)) = self.lock().get_mut(key) {
            *known = secret;
            self.changed.notify_one();
        }
    }

    /// Certificates by host. One that cannot be used is said, and its hosts get the stand-in.
    fn certificates(&self, table: &Table) -> BTreeMap<String, Arc<rustls::sign::CertifiedKey>> {
        let followed = self.lock();
        let mut by_host = BTreeMap::new();
        for (key, hosts) in &table.certificates {
            let Some((_, Some(secret))) = followed.get(key) else { continue };
            let part = |name: &str| {
                secret.data.as_ref().and_then(|data| data.get(name)).map(|part| part.0.as_slice())
            };
            let (chain, private) = (part("tls.crt").unwrap_or_default(), part("tls.key").unwrap_or_default());
            match certified(chain, private) {
                Ok(certified) => {
                    for host in hosts {
                        by_host.entry(host.clone()).or_insert_with(|| certified.clone());
                    }
                }
                Err(error) => tracing::warn!(secret = %key, %error, "the certificate of an Ingress"),
            }
        }
        by_host
    }
}

async fn watch_secret(secrets: Arc<Secrets>, key: SecretKey, client: Client) {
    let api = Api::<Secret>::namespaced(client, &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let mut events = pin!(watch_objects(api, config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(secret)) => listed = Some(secret),
            Ok(Event::InitDone) => secrets.put(&key, listed.take()),
            Ok(Event::Apply(secret)) => secrets.put(&key, Some(secret)),
            Ok(Event::Delete(_)) => secrets.put(&key, None),
            Err(error) => tracing::warn!(secret = %key, %error, "the certificate of an Ingress"),
        }
    }
}
