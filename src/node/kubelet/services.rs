//! The Services that Pods' environment variables tell of.

use std::net::Ipv4Addr;

use crate::network::{self, Feed};

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
    feed: Feed,
}

impl Services {
    /// Over the node's view of the cluster.
    pub fn new(feed: Feed) -> Self {
        Self { feed }
    }

    /// Those a Pod of `namespace` is told of, by name. Waits for the first list.
    pub async fn of(&self, namespace: &str) -> Vec<Service> {
        // An error says that the watch has ended with the node: what was seen last is told.
        let _ = self.feed.services().wait_for(|generation| *generation > 0).await;
        let mut all: Vec<Service> = self
            .feed
            .read()
            .services()
            .filter_map(told)
            .filter(|s| s.namespace == namespace || (s.namespace == "default" && s.name == "kubernetes"))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn told(service: &network::Service) -> Option<Service> {
    let ports = service.ports.iter();
    Some(Service {
        namespace: service.key.namespace.clone(),
        name: service.key.name.clone(),
        cluster_ip: service.cluster_ip?,
        ports: ports.map(|p| (p.name.clone(), p.port, p.protocol.lower().to_uppercase())).collect(),
    })
}
