use std::net::Ipv4Addr;

use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::rt::Tasks;

/// A Service as far as a Pod's environment tells of it. Headless Services have no variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: Ipv4Addr,
    /// Name (may be empty), port, protocol.
    pub ports: Vec<(String, u16, String)>,
}

/// The cluster's Services, for Pods' environment variables.
#[derive(Clone)]
pub struct Services {
    store: Store<core::Service>,
}

impl Services {
    /// Starts watching. Only what variables need is kept.
    pub fn watch(client: Client, tasks: &Tasks) -> Self {
        let (store, writer) = reflector::store();
        let stream = watcher(Api::<core::Service>::all(client), watcher::Config::default())
            .default_backoff()
            .modify(|service| {
                service.metadata.managed_fields = None;
                service.metadata.annotations = None;
                service.status = None;
            })
            .reflect(writer);
        tasks.spawn_until_stop(async move {
            let mut stream = Box::pin(stream);
            while let Some(event) = stream.next().await {
                if let Err(error) = event {
                    tracing::debug!(%error, "Services cannot be watched at the moment");
                }
            }
        });
        Self { store }
    }

    /// Those a Pod of `namespace` is told of, by name. Waits for the first list.
    pub async fn of(&self, namespace: &str) -> Vec<Service> {
        let _ = self.store.wait_until_ready().await;
        let mut all: Vec<Service> = self
            .store
            .state()
            .iter()
            .filter_map(|service| read(service))
            .filter(|s| s.namespace == namespace || (s.namespace == "default" && s.name == "kubernetes"))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn read(service: &core::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (port.name.clone().unwrap_or_default(), u16::try_from(port.port).unwrap_or(0), protocol)
    });
    Some(Service {
        namespace: service.metadata.namespace.clone()?,
        name: service.metadata.name.clone()?,
        cluster_ip: spec.cluster_ip.as_deref()?.parse().ok()?,
        ports: ports.collect(),
    })
}
