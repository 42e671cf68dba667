//! Serves Ingresses and Gateways whenever this node answers for their addresses. What no address here needs is not watched.
//!
//! ```text
//! addresses announced here --first of a kind--> watches --any change--> ports by address --> Server::replace()
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Client;
use tokio::sync::{Notify, watch};

use super::gateway::{self, NodeWorld};
use super::ingress;
use super::proxy::{Certificates, Forwarder, Names, Port, Server, Services, StandInError, stand_in};
use super::secrets::{Look, Secrets};
use client::gateway::{Caches, Resolved};
use client::informer::{Cache, Informers, Key, Object};
use client::typed::{Front, INGRESS_SERVICE};
use rt::Tasks;

/// Where HTTP and HTTPS of Ingresses are served.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// What the proxy works with.
#[derive(Clone)]
pub struct Options {
    /// Speaks to the API as this node.
    pub client: Client,
    /// What is served at which address, while this node answers for it.
    pub fronts: watch::Receiver<BTreeMap<Ipv4Addr, Front>>,
    pub services: Services,
    /// Looks up the names of ExternalName Services.
    pub names: Names,
}

/// Serves until `tasks` stops.
pub fn run(options: Options, tasks: &Tasks) {
    let own = tasks.clone();
    tasks.spawn_until_stop(async move {
        if let Err(error) = follow(options, own).await {
            tracing::error!(%error, "Ingresses and Gateways cannot be served");
        }
    });
}

fn wakes<K: Object>(cache: &Cache<K>, changed: &Arc<Notify>) {
    let changed = changed.clone();
    cache.on_change(move |_| changed.notify_one());
}

type Ports = BTreeMap<SocketAddr, Arc<Port>>;

/// Ingresses and their classes, as they are now.
struct Ingresses {
    all: Cache<Ingress>,
    classes: Cache<IngressClass>,
    certificates: Certificates,
}

impl Ingresses {
    async fn start(informers: &Informers, changed: &Arc<Notify>) -> Result<Self, StandInError> {
        let (all, classes) = (informers.cache::<Ingress>(), informers.cache::<IngressClass>());
        wakes(&all, changed);
        wakes(&classes, changed);
        all.synced().await;
        classes.synced().await;
        let certificates = Certificates { stand_in: Some(stand_in()?), ..Certificates::default() };
        Ok(Self { all, classes, certificates })
    }

    fn ports(&self, address: Ipv4Addr, look: &mut Look, ports: &mut Ports) {
        let served = ingress::ports(&self.all.list(), &self.classes.list(), look, self.certificates.clone());
        ports.insert((address, HTTP).into(), served.http);
        ports.insert((address, HTTPS).into(), served.https);
    }
}

/// The objects of the Gateway API, as they are now.
struct Gateways {
    caches: Caches,
    namespaces: Cache<Namespace>,
    /// Everything has been listed: somebody may have taken the kinds away, and nothing else waits for them.
    complete: Arc<AtomicBool>,
}

impl Gateways {
    fn start(informers: &Informers, changed: &Arc<Notify>, tasks: &Tasks) -> Self {
        let (caches, namespaces) = (Caches::start(informers), informers.cache::<Namespace>());
        let wake = changed.clone();
        caches.on_change(move || wake.notify_one());
        wakes(&namespaces, changed);
        let complete = Arc::new(AtomicBool::new(false));
        let (listed, known, done, wake) =
            (caches.clone(), namespaces.clone(), complete.clone(), changed.clone());
        tasks.spawn_until_stop(async move {
            listed.synced().await;
            known.synced().await;
            done.store(true, Ordering::Release);
            wake.notify_one();
        });
        Self { caches, namespaces, complete }
    }

    fn ports(&self, fronts: &BTreeMap<Ipv4Addr, Front>, look: &mut Look, ports: &mut Ports) {
        if !self.complete.load(Ordering::Acquire) {
            return;
        }
        let world = NodeWorld::new(&self.namespaces, look);
        let resolved = Resolved::of(&self.caches.objects(), &world);
        for (address, front) in fronts {
            let Some(name) = &front.gateway else { continue };
            let Some(state) = resolved.gateways.get(&Key::new(front.namespace.as_str(), name.as_str()))
            else {
                continue;
            };
            let served = gateway::ports(&resolved, state, &world);
            ports.extend(served.into_iter().map(|(port, served)| ((*address, port).into(), served)));
        }
    }
}

fn is_ingresses(front: &Front) -> bool {
    (front.namespace.as_str(), front.service.as_str()) == INGRESS_SERVICE
}

async fn follow(options: Options, tasks: Tasks) -> Result<(), StandInError> {
    let Options { client, mut fronts, services, names } = options;
    if fronts.wait_for(|fronts| !fronts.is_empty()).await.is_err() {
        return Ok(());
    }
    let changed = Arc::new(Notify::new());
    let informers = Informers::new(client.clone(), &tasks);
    let (mut ingresses, mut gateways) = (None::<Ingresses>, None::<Gateways>);
    let secrets = Secrets::new(changed.clone());
    let server = Server::new(Forwarder::new(services, names, tasks.clone()), &tasks);
    loop {
        let now = fronts.borrow_and_update().clone();
        if ingresses.is_none() && now.values().any(is_ingresses) {
            ingresses = Some(Ingresses::start(&informers, &changed).await?);
        }
        if gateways.is_none() && now.values().any(|front| front.gateway.is_some()) {
            gateways = Some(Gateways::start(&informers, &changed, &tasks));
        }
        let (mut wanted, mut look) = (Ports::new(), secrets.look());
        if let Some(ingresses) = &ingresses {
            for (address, _) in now.iter().filter(|(_, front)| is_ingresses(front)) {
                ingresses.ports(*address, &mut look, &mut wanted);
            }
        }
        if let Some(gateways) = &gateways {
            gateways.ports(&now, &mut look, &mut wanted);
        }
        secrets.follow(&look, &client, &tasks);
        server.replace(wanted);
        tokio::select! {
            () = changed.notified() => {}
            moved = fronts.changed() => if moved.is_err() { return Ok(()) },
        }
    }
}
