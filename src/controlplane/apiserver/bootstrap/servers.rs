//! Which servers answer for the Service `kubernetes`, where several share a store.
//!
//! Each keeps an entry there that ends by itself, as upstream's API servers keep their master leases, and all of them see to it
//! that the endpoints are those whose entries stand.
//!
//! ```text
//! start: own entry --> endpoints | every few seconds: own entry again | an entry comes or goes: endpoints | leaving: own entry goes
//! ```

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::{BootstrapError, Written, ensure, objects};
use crate::key::name_of;
use api::resources::{Table, builtin};
use config::NodeConfig;
use rt::Stop;
use storage::{EventKind, ListQuery, Payload, StorageError, Store, Watch};

/// Upstream's keys behind its prefix are `/masterleases/ADDRESS`.
const PREFIX: &str = "/core/masterleases/";
/// A server that was silent for so long is no endpoint any more: upstream's.
const TERM: Duration = Duration::from_secs(15);
/// A server that is paused, or short of time, misses one of them without harm.
const RENEW: Duration = Duration::from_secs(7);
/// Whoever leaves has no more time than this for saying so; their entry ends by itself.
const LEAVE: Duration = Duration::from_secs(2);
/// How often a write is tried again because another server was first.
const ATTEMPTS: usize = 5;

/// The servers that share a store, as one of them sees to it.
pub(crate) struct Servers {
    store: Arc<dyn Store>,
    router: Router,
    own: Ipv4Addr,
    port: u16,
}

impl Servers {
    pub(crate) fn new(store: Arc<dyn Store>, router: Router, config: &NodeConfig) -> Self {
        Self { store, router, own: config.server_ip, port: config.server_port }
    }

    /// Makes this server an endpoint. Fails where nothing can be written.
    pub(crate) async fn enter(&self) -> Result<(), BootstrapError> {
        self.renew().await?;
        self.tell().await
    }

    /// Keeps this server an endpoint until it leaves, and others as long as they are there.
    pub(crate) async fn run(self, leaving: Stop) {
        let Ok(mut entries) = self.watch() else { return };
        let mut renewals = tokio::time::interval(RENEW);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was seen before the watch began is told with the first renewal.
        let mut told = false;
        loop {
            tokio::select! {
                () = leaving.cancelled() => {
                    let left = tokio::time::timeout(LEAVE, self.leave()).await;
                    if !matches!(left, Ok(Ok(()))) {
                        tracing::debug!("this server stays an endpoint until its entry ends");
                    }
                    return;
                }
                _ = renewals.tick() => {
                    if let Err(error) = self.renew().await {
                        tracing::warn!(%error, "this server may be no endpoint of the Service kubernetes for a while");
                    } else if told {
                        continue;
                    }
                }
                batch = entries.next() => match batch {
                    Ok(batch) if !batch.events.iter().any(comes_or_goes) => continue,
                    Ok(_) => {}
                    Err(StorageError::Compacted { .. }) => match self.watch() {
                        Ok(again) => entries = again,
                        Err(_) => return,
                    },
                    // The store is at its end, and with it this process.
                    Err(_) => return,
                }
            }
            told = match self.tell().await {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(%error, "the endpoints of the Service kubernetes are not written yet");
                    false
                }
            };
        }
    }

    fn watch(&self) -> Result<Box<dyn Watch>, StorageError> {
        self.store.watch(PREFIX.to_owned(), self.store.revision())
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.own)
    }

    async fn renew(&self) -> Result<(), StorageError> {
        let data = objects::kubernetes_endpoints(&[self.own], self.port).to_string();
        for _ in 0..ATTEMPTS {
            let payload = Payload { data: data.clone().into(), ttl: Some(TERM), ..Payload::default() };
            let written = match self.store.seen(&self.key()) {
                Some(entry) => self.store.update_if(self.key(), entry.revision, payload).await,
                None => self.store.create(self.key(), payload).await,
            };
            // It may just have ended, or a former life of this server has written it.
            match written {
                Err(StorageError::Conflict(_) | StorageError::Exists(_)) => {}
                written => return written.map(drop),
            }
        }
        Ok(())
    }

    /// Writes who the servers are, where that is not what is written.
    async fn tell(&self) -> Result<(), BootstrapError> {
        let builtin = Table::new(builtin());
        for _ in 0..ATTEMPTS {
            let servers = self.servers().await?;
            let mut written = Written::Stands;
            for object in endpoints(&servers, self.port) {
                let done = ensure(&self.router, self.store.as_ref(), &builtin, object).await?;
                if done == Written::AnotherFirst {
                    written = done;
                }
            }
            if written == Written::Stands {
                break;
            }
        }
        Ok(())
    }

    /// Those whose entries stand, in order.
    async fn servers(&self) -> Result<Vec<Ipv4Addr>, StorageError> {
        let entries =
            self.store.list(ListQuery { prefix: PREFIX.to_owned(), ..ListQuery::default() }).await?;
        let names = entries.entries.iter().map(|entry| name_of(&entry.key));
        let mut servers: Vec<Ipv4Addr> = names.filter_map(|name| name.parse().ok()).collect();
        servers.sort_unstable();
        Ok(servers)
    }

    async fn leave(&self) -> Result<(), BootstrapError> {
        if let Some(entry) = self.store.get(&self.key()).await? {
            self.store.delete_if(self.key(), entry.revision).await?;
        }
        self.tell().await
    }
}

/// Whether an entry was not there before, or is not any more: renewals change nothing.
fn comes_or_goes(event: &Arc<storage::Event>) -> bool {
    event.kind == EventKind::Delete || event.entry.created == event.entry.revision
}

/// The objects that say who the servers are.
pub(super) fn endpoints(servers: &[Ipv4Addr], port: u16) -> [Value; 2] {
    [objects::kubernetes_endpoints(servers, port), slice(servers, port)]
}

fn slice(servers: &[Ipv4Addr], port: u16) -> Value {
    let endpoint = |ip: &Ipv4Addr| json!({"addresses": [ip], "conditions": {"ready": true}});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": servers.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
}
