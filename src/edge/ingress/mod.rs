//! Ingresses, served by a proxy in the agent of the node that answers for the address of Service
//! `kube-system/minik-ingress`.
//!
//! ```text
//! Ingresses, classes --Table::of()--> Table --+
//! Secrets ------------> Certificates ---------+--> connection --route--> endpoint of a Service
//! ```
//!
//! Table and certificates are replaced whole while connections go on: no change of configuration ends one.

mod body;
mod certificates;
mod forward;
mod routes;
mod serve;
mod settings;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch as channel;

use crate::rt::Tasks;

pub use certificates::{CertificateError, Certificates};
pub use forward::Forwarder;
pub use routes::{Backend, PortRef, Table};
pub use serve::{Shared, serve};
pub use settings::Settings;

/// Where HTTP and HTTPS are served.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// Finds the endpoints of a Service's port that take connections now.
pub type Resolve = Arc<dyn Fn(&Backend) -> Vec<SocketAddr> + Send + Sync>;

/// What the proxy works with.
#[derive(Clone)]
pub struct Options {
    /// Speaks to the API as this node.
    pub client: Client,
    /// The address that this node answers for, while it does.
    pub address: channel::Receiver<Option<Ipv4Addr>>,
    pub resolve: Resolve,
}

/// Serves Ingresses whenever this node answers for their address, until `tasks` stops. Nothing is watched on other nodes.
pub fn run(options: Options, tasks: &Tasks) {
    let tasks = tasks.clone();
    let own = tasks.clone();
    tasks.spawn_until_stop(async move { follow(options, own).await });
}

fn start(options: &Options, tasks: &Tasks) -> Result<Arc<Shared>, CertificateError> {
    let forwarder = Forwarder::new(options.resolve.clone(), tasks.clone());
    let shared = Arc::new(Shared::new(forwarder, Certificates::new()?));
    watch::start(options.client.clone(), shared.clone(), tasks);
    Ok(shared)
}

async fn follow(mut options: Options, tasks: Tasks) {
    let mut shared = None::<Arc<Shared>>;
    loop {
        let Ok(address) = options.address.wait_for(Option::is_some).await.map(|address| *address) else {
            return;
        };
        let Some(address) = address else { continue };
        let shared = match &shared {
            Some(shared) => shared,
            None => match start(&options, &tasks) {
                Ok(started) => shared.insert(started),
                Err(error) => return tracing::error!(%error, "Ingresses cannot be served"),
            },
        };
        tracing::info!(%address, "serving Ingresses");
        let listening = async {
            tokio::join!(
                serve::listen(SocketAddr::from((address, HTTP)), false, shared.clone(), &tasks),
                serve::listen(SocketAddr::from((address, HTTPS)), true, shared.clone(), &tasks),
            )
        };
        let mut changes = options.address.clone();
        let moved = changes.wait_for(|now| *now != Some(address));
        tokio::select! {
            _ = listening => {}
            _ = moved => tracing::info!(%address, "no longer serving Ingresses"),
        }
    }
}
