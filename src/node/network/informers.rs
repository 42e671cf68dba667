//! One watch each for Services, EndpointSlices and Nodes, feeding one shared view.

use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::runtime::utils::Backoff as StreamBackoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::model::{Node, Service, ServiceKey, Slice};
use super::view::{Change, View};
use rt::{Backoff, Tasks};

/// The shared view and what wakes its readers. A generation of 0 says that the first list is not here yet.
#[derive(Clone, Debug)]
pub struct Feed {
    view: Arc<RwLock<View>>,
    services: watch::Receiver<u64>,
    nodes: watch::Receiver<u64>,
}

impl Feed {
    /// The view as it is now; hold the guard briefly and across no await.
    pub fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on whenever Services, endpoints or nodes (whose zones endpoints are meant for) change, once Services and
    /// endpoints have been listed.
    pub fn services(&self) -> watch::Receiver<u64> {
        self.services.clone()
    }

    /// Moves on whenever nodes change, once they have been listed.
    pub fn nodes(&self) -> watch::Receiver<u64> {
        self.nodes.clone()
    }
}

/// The writing side of a feed.
#[derive(Debug)]
pub struct Source {
    view: Arc<RwLock<View>>,
    services: watch::Sender<u64>,
    nodes: watch::Sender<u64>,
    listed: RwLock<Listed>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    services: bool,
    slices: bool,
    nodes: bool,
}

impl Source {
    /// A feed and its source: nothing is listed yet.
    pub fn new() -> (Self, Feed) {
        let (services, services_seen) = watch::channel(0);
        let (nodes, nodes_seen) = watch::channel(0);
        let view = Arc::<RwLock<View>>::default();
        let feed = Feed { view: view.clone(), services: services_seen, nodes: nodes_seen };
        (Self { view, services, nodes, listed: RwLock::default() }, feed)
    }

    /// Replaces everything, as if all three lists had just come.
    pub fn replace(&self, mut view: View) {
        let mut known = self.view.write().unwrap_or_else(PoisonError::into_inner);
        view.succeed(&known);
        *known = view;
        drop(known);
        let all = Listed { services: true, slices: true, nodes: true };
        self.listed(Change::Services, |listed| *listed = all);
        self.tell(Change::Nodes);
    }

    /// Changes the view and wakes whom that concerns.
    pub fn edit(&self, edit: impl FnOnce(&mut View) -> Change) {
        let change = edit(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
        self.tell(change);
    }

    fn listed(&self, change: Change, mark: impl FnOnce(&mut Listed)) {
        mark(&mut self.listed.write().unwrap_or_else(PoisonError::into_inner));
        self.tell(change);
    }

    fn tell(&self, change: Change) {
        let listed = *self.listed.read().unwrap_or_else(PoisonError::into_inner);
        if change == Change::Nodes && listed.nodes {
            self.nodes.send_modify(|g| *g += 1);
        }
        if change != Change::Nothing && listed.services && listed.slices {
            self.services.send_modify(|g| *g += 1);
        }
    }
}

/// Starts the three watches. They go on through API outages: the view stays as it was last seen.
pub fn feed(client: &Client, tasks: &Tasks) -> Feed {
    let (source, feed) = Source::new();
    let source = Arc::new(source);
    tasks.spawn_until_stop(follow(Api::<core::Service>::all(client.clone()), ServiceInto(source.clone())));
    tasks.spawn_until_stop(follow(
        Api::<discovery::EndpointSlice>::all(client.clone()),
        SliceInto(source.clone()),
    ));
    tasks.spawn_until_stop(follow(Api::<core::Node>::all(client.clone()), NodeInto(source)));
    feed
}

/// A node whose view is old sends traffic to Pods that are gone: it asks again soon, however long the outage was.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(3) };

/// `RETRY` as watches want it.
#[derive(Default)]
struct Retry {
    failures: u32,
}

impl Iterator for Retry {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        Some(RETRY.delay(self.failures))
    }
}

impl StreamBackoff for Retry {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Where the events of one watch go.
trait Target: Send + Sync {
    type Object;
    type Small: Send;
    fn small(&self, object: &Self::Object) -> Option<Self::Small>;
    fn put(&self, small: Self::Small);
    fn remove(&self, object: &Self::Object);
    fn replace(&self, all: Vec<Self::Small>);
}

async fn follow<K, T>(api: Api<K>, target: T)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Target<Object = K>,
{
    let events = watch_objects(api, watcher::Config::default()).backoff(Retry::default());
    let mut events = std::pin::pin!(events);
    let mut listing = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => listing.extend(target.small(&object)),
            Ok(Event::InitDone) => target.replace(std::mem::take(&mut listing)),
            Ok(Event::Apply(object)) => match target.small(&object) {
                Some(small) => target.put(small),
                None => target.remove(&object),
            },
            Ok(Event::Delete(object)) => target.remove(&object),
            Err(error) => tracing::warn!(%error, kind = std::any::type_name::<K>(), "watch interrupted"),
        }
    }
}

struct ServiceInto(Arc<Source>);

impl Target for ServiceInto {
    type Object = core::Service;
    type Small = Service;
    fn small(&self, object: &core::Service) -> Option<Service> {
        Some(Service::from_api(object))
    }
    fn put(&self, service: Service) {
        self.0.edit(|view| view.put_service(service));
    }
    fn remove(&self, object: &core::Service) {
        let key = ServiceKey::new(object.namespace().unwrap_or_default(), object.name_any());
        self.0.edit(|view| view.remove_service(&key));
    }
    fn replace(&self, all: Vec<Service>) {
        self.0.edit(|view| {
            view.replace_services(all);
            Change::Nothing
        });
        self.0.listed(Change::Services, |listed| listed.services = true);
    }
}

struct SliceInto(Arc<Source>);

impl Target for SliceInto {
    type Object = discovery::EndpointSlice;
    type Small = Slice;
    fn small(&self, object: &discovery::EndpointSlice) -> Option<Slice> {
        Slice::from_api(object)
    }
    fn put(&self, slice: Slice) {
        self.0.edit(|view| view.put_slice(slice));
    }
    fn remove(&self, object: &discovery::EndpointSlice) {
        let namespace = object.namespace().unwrap_or_default();
        self.0.edit(|view| view.remove_slice(&namespace, &object.name_any()));
    }
    fn replace(&self, all: Vec<Slice>) {
        self.0.edit(|view| {
            view.replace_slices(all);
            Change::Nothing
        });
        self.0.listed(Change::Services, |listed| listed.slices = true);
    }
}

struct NodeInto(Arc<Source>);

impl Target for NodeInto {
    type Object = core::Node;
    type Small = Node;
    fn small(&self, object: &core::Node) -> Option<Node> {
        Some(Node::from_api(object))
    }
    fn put(&self, node: Node) {
        self.0.edit(|view| view.put_node(node));
    }
    fn remove(&self, object: &core::Node) {
        self.0.edit(|view| view.remove_node(&object.name_any()));
    }
    fn replace(&self, all: Vec<Node>) {
        self.0.edit(|view| {
            view.replace_nodes(all);
            Change::Nothing
        });
        self.0.listed(Change::Nodes, |listed| listed.nodes = true);
    }
}
