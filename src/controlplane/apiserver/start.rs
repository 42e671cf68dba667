//! The API server of a cluster, put together from a node's configuration.

use std::path::Path;
use std::sync::Arc;

use super::allocate::NODE_PORTS;
use super::audit::{Audit, PolicyError};
use super::bootstrap::{self, BootstrapError};
use super::key::collections;
use super::proxy::Streams;
use super::{ApiServer, Options};
use config::{BuildInfo, NodeConfig};
use pki::{Key, PkiError, ServerPki};
use rt::{Clock, Tasks};
use storage::{StorageError, Store};

/// Why the API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Audit(#[from] PolicyError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(
        "the store holds the state of another cluster, whose certificates this one did not sign: begin with an empty store \
         (etcdctl del /registry/ --prefix empties an etcd)"
    )]
    Foreign,
}

/// Builds the server and makes the cluster's first objects; when it returns, the server is ready for requests. It listens
/// to nobody yet: see [`super::serve`].
pub async fn start(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    pki: &ServerPki,
    config: &NodeConfig,
    build: BuildInfo,
    tasks: &Tasks,
) -> Result<ApiServer, StartError> {
    if is_foreign(store.as_ref(), pki.authority.certificate_pem()).await? {
        return Err(StartError::Foreign);
    }
    let now = clock.now();
    let options = Options {
        clock: clock.clone(),
        service_cidr: config.service_cidr,
        reserved: vec![bootstrap::api_cluster_ip(config), config.dns_ip],
        node_ports: config.settings.arguments.node_ports().unwrap_or(NODE_PORTS),
        audit: Audit::open(
            Path::new(NodeConfig::AUDIT_POLICY),
            Path::new(NodeConfig::AUDIT_LOG),
            clock.clone(),
            tasks,
        )?,
        front_proxy: Some(pki.front_proxy_client.clone()),
        build,
        streams: Some(Streams::new(store.clone(), pki, tasks.clone())?),
        ..Options::new(store.clone(), Key::from_pem(&pki.service_account_key.pem())?, tasks.clone())
    };
    let server = ApiServer::build(options).await?;
    let router = server.router();
    bootstrap::run(&router, store.as_ref(), config, pki, now).await?;
    if !store.alone() {
        let servers = bootstrap::Servers::new(store, router.clone(), config);
        servers.enter().await?;
        tasks.spawn(servers.run(server.leaving()));
    }
    tasks.spawn_until_stop(server.aggregator().clone().run(router, clock));
    Ok(server)
}

/// Whether what stands at `key` is of one cluster alone, and made anew where another one begins with its state: its Nodes, and
/// who signs for it.
pub fn is_of_one_cluster(key: &str) -> bool {
    collections::NODES.holds(key) || key == authentication()
}

fn authentication() -> String {
    collections::CONFIG_MAPS.key("kube-system", bootstrap::AUTHENTICATION)
}

/// Whether somebody with another authority has written to the store: their nodes could not join here, and their objects
/// say of Pods that run that are nowhere.
async fn is_foreign(store: &dyn Store, authority_pem: &str) -> Result<bool, StorageError> {
    let Some(entry) = store.get(&authentication()).await? else { return Ok(false) };
    let object: serde_json::Value = serde_json::from_slice(&entry.data).unwrap_or_default();
    Ok(object["data"]["client-ca-file"].as_str().is_some_and(|theirs| theirs != authority_pem))
}

#[cfg(test)]
mod tests;
