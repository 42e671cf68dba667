//! The loop that keeps the kernel as the policies say, and the kubelet's question whether they hold for a new Pod.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use tokio::sync::watch;

use super::observed::{Member, Observed};
use super::plan::plan;
use super::text::{TABLE, table};
use crate::network::{Feed, Protocol};
use client::informer::{Cache, Informers, Object};
use client::typed::{INGRESS_SERVICE, Labels};
use rt::{Backoff, Tasks};
use sys::exec::{Exec, ExecError};
use sys::nftables::{Guard, Known, Nftables, TOOL, Transaction};

const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(30) };

/// What the enforcer works with.
#[derive(Clone)]
pub struct Options {
    /// Speaks to the API as this node.
    pub client: Client,
    /// Whose nodes the proxy of Ingresses and Gateways runs on.
    pub feed: Feed,
    pub node: String,
    /// Where names are asked for: to policies, a Pod of kube-system labelled `k8s-app: kube-dns`, since every node answers
    /// here itself.
    pub dns_ip: Ipv4Addr,
    pub exec: Arc<dyn Exec>,
}

/// The enforcer as the kubelet sees it. Cloning shares it.
#[derive(Clone)]
pub struct Policies(Option<Arc<Shared>>);

struct Shared {
    options: Options,
    policies: Cache<NetworkPolicy>,
    /// Of all Pods and namespaces, once there is a policy.
    others: Mutex<Option<(Cache<Pod>, Cache<Namespace>)>>,
    /// Pods of this node whose address the API does not know yet, by uid.
    admitted: Mutex<BTreeMap<String, Member>>,
    /// Moves on whenever something has changed.
    wanted: watch::Sender<u64>,
    /// What `wanted` was when the rules in the kernel were planned.
    applied: watch::Sender<u64>,
}

/// Starts following policies. Until the first one comes, only policies are watched and the kernel is left alone.
pub fn run(options: Options, tasks: &Tasks) -> Policies {
    let informers = Informers::new(options.client.clone(), tasks);
    let shared = Arc::new(Shared {
        policies: informers.cache::<NetworkPolicy>(),
        others: Mutex::default(),
        admitted: Mutex::default(),
        wanted: watch::Sender::new(0),
        applied: watch::Sender::new(0),
        options,
    });
    shared.wake_on_change(&shared.policies);
    tasks.spawn_until_stop(follow_nodes(shared.clone()));
    tasks.spawn_until_stop(follow(shared.clone(), informers));
    Policies(Some(shared))
}

impl Policies {
    /// Nobody enforces, and nobody waits.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether there is any policy, as far as the API has said. Waits for the first list.
    pub async fn any(&self) -> bool {
        let Some(shared) = &self.0 else { return false };
        shared.policies.synced().await;
        !shared.policies.is_empty()
    }

    /// Returns once everything that policies say of `pod` holds for `ip`, which the API may not know yet. Fails when the
    /// rules are not in place within `bound`: then the Pod must not start.
    pub async fn admit(&self, pod: &Pod, ip: Ipv4Addr, bound: Duration) -> Result<(), NotInForce> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let Some(member) = Member::of(pod, &shared.options.node, Some(ip)) else { return Ok(()) };
        shared.admitted().insert(member.uid.clone(), member);
        let mut applied = shared.applied.subscribe();
        let generation = shared.wake();
        let holds = applied.wait_for(|applied| *applied >= generation);
        // The sender lives as long as `self`.
        tokio::time::timeout(bound, holds).await.map(drop).map_err(|_| NotInForce { bound })
    }
}

/// A Pod's network policies are not in force.
#[derive(Debug, thiserror::Error)]
#[error("network policies are not in force after {bound:?}; the node's log says why")]
pub struct NotInForce {
    bound: Duration,
}

impl Shared {
    fn wake(&self) -> u64 {
        let mut now = 0;
        self.wanted.send_modify(|generation| {
            *generation += 1;
            now = *generation;
        });
        now
    }

    fn wake_on_change<K: Object>(self: &Arc<Self>, cache: &Cache<K>) {
        let shared = Arc::downgrade(self);
        cache.on_change(move |_| {
            if let Some(shared) = shared.upgrade() {
                shared.wake();
            }
        });
    }

    fn admitted(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Member>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first policy makes Pods and namespaces interesting.
    async fn others(self: &Arc<Self>, informers: &Informers) -> (Cache<Pod>, Cache<Namespace>) {
        let known = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (pods, namespaces) = match known {
            Some(known) => known,
            None => {
                let caches = (informers.cache::<Pod>(), informers.cache::<Namespace>());
                self.follow_pods(&caches.0);
                self.wake_on_change(&caches.1);
                *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(caches.clone());
                caches
            }
        };
        pods.synced().await;
        namespaces.synced().await;
        (pods, namespaces)
    }

    fn follow_pods(self: &Arc<Self>, pods: &Cache<Pod>) {
        let shared = Arc::downgrade(self);
        let node = self.options.node.clone();
        pods.on_change(move |change| {
            let Some(shared) = shared.upgrade() else { return };
            let seen = |pod: Option<&Arc<Pod>>| pod.and_then(|pod| Member::of(pod, &node, None));
            let (old, new) = (seen(change.old), seen(change.new));
            // From here on the API's word counts, and a Pod that is gone is forgotten.
            let uid = change.latest().and_then(|pod| pod.metadata.uid.as_deref()).unwrap_or_default();
            if new.is_some() || change.new.is_none() {
                shared.admitted().remove(uid);
            }
            if old != new {
                shared.wake();
            }
        });
    }

    fn observe(&self, pods: &Cache<Pod>, namespaces: &Cache<Namespace>) -> Observed {
        let node = &self.options.node;
        let mut observed = Observed { policies: self.policies.list(), ..Observed::default() };
        observed.pods.extend(self.admitted().values().cloned());
        observed.pods.extend(pods.list().iter().filter_map(|pod| Member::of(pod, node, None)));
        observed.pods.push(name_server(self.options.dns_ip));
        let nodes = self.options.feed.read();
        observed.pods.extend(nodes.nodes().filter_map(|node| node.internal_ip).map(ingress_proxy));
        drop(nodes);
        namespaces.list().iter().for_each(|namespace| observed.put_namespace(namespace));
        observed
    }
}

fn name_server(ip: Ipv4Addr) -> Member {
    let port = |name: &str, protocol| (name.to_owned(), protocol, 53);
    Member {
        uid: "kube-dns".into(),
        namespace: "kube-system".into(),
        labels: Labels::from([("k8s-app".into(), "kube-dns".into())]),
        ip,
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        local: false,
    }
}

/// The proxy of Ingresses and Gateways, which asks endpoints from the address of the node that it runs on: to policies, a
/// Pod of its Service's namespace with a label that says so. (A Pod's own node is never kept from it, whatever policies say.)
fn ingress_proxy(ip: Ipv4Addr) -> Member {
    let (namespace, name) = INGRESS_SERVICE;
    Member {
        uid: format!("{name}/{ip}"),
        namespace: namespace.into(),
        labels: Labels::from([("app.kubernetes.io/name".into(), name.into())]),
        ip,
        ports: Vec::new(),
        local: false,
    }
}

/// The proxy has the addresses that nodes have.
async fn follow_nodes(shared: Arc<Shared>) {
    let mut nodes = shared.options.feed.nodes();
    while nodes.changed().await.is_ok() {
        if !shared.policies.is_empty() {
            shared.wake();
        }
    }
}

async fn follow(shared: Arc<Shared>, informers: Informers) {
    let mut wanted = shared.wanted.subscribe();
    shared.policies.synced().await;
    let tool = Nftables::new(shared.options.exec.clone());
    let mut guard = None;
    let mut known = Known::default();
    let mut failures = 0;
    loop {
        let generation = *wanted.borrow_and_update();
        if guard.is_some() || !shared.policies.is_empty() {
            let guard = guard.get_or_insert_with(Guard::open);
            let (pods, namespaces) = shared.others(&informers).await;
            let table = table(&plan(&shared.observe(&pods, &namespaces)));
            match apply(&tool, &mut known, guard, &table).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "network policies not applied; trying again");
                }
            }
        }
        if failures == 0 {
            shared.applied.send_replace(generation);
        }
        let tampered = async {
            match &mut guard {
                Some(guard) => guard.tampered(concerns).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tampered => {
                tracing::warn!("network policy rules were deleted by somebody else; writing them again");
                known = Known::default();
            }
            () = tokio::time::sleep(RETRY.delay(failures)), if failures > 0 => {}
        }
    }
}

fn concerns(transaction: &Transaction) -> bool {
    transaction.deleted.iter().any(|deleted| deleted.table == TABLE)
}

async fn apply(
    tool: &Nftables,
    known: &mut Known,
    guard: &mut Guard,
    table: &sys::nftables::Table,
) -> Result<(), ExecError> {
    let (batch, next) = std::mem::take(known).batch(table);
    let transactions = usize::from(!batch.is_empty());
    if transactions > 0 {
        tool.apply(batch).await?;
    }
    guard.settle(TOOL, transactions, concerns);
    *known = next;
    Ok(())
}
