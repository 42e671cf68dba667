//! Whether the nodes that answer for load balancers' addresses are still there. The Node's own Lease says so only after
//! most of a minute; clients of an address want to know within a second.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::context::Context;
use client::informer::{Cache, Key};
use client::queue::Queue;
use client::typed::ANNOUNCED_BY;

/// Between two rounds of connections.
const INTERVAL: Duration = Duration::from_millis(150);
/// How long a connection may take: the node's kernel answers, however busy the node is.
const PATIENCE: Duration = Duration::from_millis(250);
/// So many rounds without an answer, and the node counts as silent: 800 ms after it has gone, at most.
const MISSES: u32 = 2;

/// What is known of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beat {
    /// It has been reached at least once: one that never was tells nothing by not being reached now.
    answered: bool,
    missed: u32,
}

impl Beat {
    fn next(self, answered: bool) -> Self {
        if answered { Self { answered: true, missed: 0 } } else { Self { missed: self.missed + 1, ..self } }
    }

    fn silent(self) -> bool {
        self.answered && self.missed >= MISSES
    }
}

/// Which announcing nodes are silent.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    beats: Mutex<BTreeMap<String, Beat>>,
}

impl Heartbeats {
    /// Starts to connect to the kubelets of nodes that announce something, for as long as there are such. Services whose
    /// node falls silent, or comes back, are put into `queue`.
    pub(super) fn start(
        context: &Context,
        services: &Cache<Service>,
        nodes: &Cache<Node>,
        queue: Queue<Key>,
    ) -> Arc<Self> {
        let heartbeats = Arc::<Self>::default();
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        services.on_change(move |_| wake.notify_one());
        let (own, services, nodes) = (Arc::clone(&heartbeats), services.clone(), nodes.clone());
        context.tasks.spawn_until_stop(async move {
            loop {
                let targets = targets(&services, &nodes);
                if targets.is_empty() {
                    own.beats().clear();
                    changed.notified().await;
                    continue;
                }
                let turned = own.round(targets).await;
                for service in services.list() {
                    if announcer(&service).is_some_and(|node| turned.contains(node)) {
                        queue.add(Key::of(&service.metadata));
                    }
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        heartbeats
    }

    /// Whether a node that announced something has stopped to answer.
    pub(super) fn is_silent(&self, node: &str) -> bool {
        self.beats().get(node).is_some_and(|beat| beat.silent())
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<String, Beat>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries all targets at once; returns the nodes that fell silent or came back. A silent node stays known while it
    /// announces nothing, until it answers.
    async fn round(&self, targets: BTreeMap<String, SocketAddr>) -> BTreeSet<String> {
        let answers = join_all(targets.iter().map(|(node, address)| async move {
            let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
            (node.clone(), matches!(connected, Ok(Ok(_))))
        }))
        .await;
        let mut beats = self.beats();
        let mut turned = BTreeSet::new();
        for (node, answered) in answers {
            let beat = beats.entry(node.clone()).or_default();
            let next = beat.next(answered);
            if next.silent() != beat.silent() {
                tracing::info!(node, silent = next.silent(), "a node that announces load balancer addresses");
                turned.insert(node.clone());
            }
            *beat = next;
        }
        turned
    }
}

fn announcer(service: &Service) -> Option<&String> {
    service.annotations().get(ANNOUNCED_BY)
}

/// The kubelets of all nodes, once any of them announces something: those that may have to take over are known to
/// answer before they do.
fn targets(services: &Cache<Service>, nodes: &Cache<Node>) -> BTreeMap<String, SocketAddr> {
    let nodes = nodes.list();
    if nodes.len() < 2 || !services.list().iter().any(|service| announcer(service).is_some()) {
        return BTreeMap::new();
    }
    nodes.iter().filter_map(|node| Some((node.name_any(), kubelet(node)?))).collect()
}

fn kubelet(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    let mut addresses = status.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
    let ip: IpAddr = addresses.find_map(|address| address.address.parse().ok())?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_answered_can_fall_silent() {
        let after =
            |answers: &[bool]| answers.iter().fold(Beat::default(), |beat, one| beat.next(*one)).silent();
        assert!(!after(&[false; 9]));
        assert!(!after(&[true, false]));
        assert!(after(&[true, false, false]));
        assert!(!after(&[true, false, false, true]));
    }

    #[tokio::test]
    async fn a_node_that_ends_is_told_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heartbeats = Heartbeats::default();
        let targets = || BTreeMap::from([("n1".to_owned(), address)]);
        assert!(heartbeats.round(targets()).await.is_empty());
        drop(listener);
        let mut told = Vec::new();
        for _ in 0..5 {
            told.extend(heartbeats.round(targets()).await);
        }
        assert_eq!(told, ["n1"]);
        assert!(heartbeats.is_silent("n1"));
    }
}
