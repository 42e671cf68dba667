//! Two servers over one real etcd.

mod allocation;
mod endpoints;
mod history;
mod leading;
mod quotas;

use std::fmt::Debug;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client};
use minik::apiserver::{self, ApiServer, UserInfo};
use minik::client::election::Terms;
use minik::config::NodeConfig;
use minik::controllers;
use minik::pki::ServerPki;
use minik::roles::leading::Leading;
use minik::storage::{self, Config, Engine, Store};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::storage::etcd::Member;
use crate::support::TestApi;

/// Only a failure waits for it.
const LONG: Duration = Duration::from_secs(40);
/// Short, and in whole seconds where a Lease says so.
const TERMS: Terms =
    Terms { lease: Duration::from_secs(4), renew: Duration::from_secs(3), retry: Duration::from_millis(500) };

/// An etcd, and what all servers over it have in common.
struct Shared {
    member: Member,
    pki: TempDir,
}

impl Shared {
    /// None where etcd is not installed.
    fn start() -> Option<Self> {
        let (member, pki) = (Member::start()?, tempfile::tempdir().expect("a folder"));
        // One authority, whoever of them starts first.
        let sans = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        ServerPki::prepare(pki.path(), "test", &sans).expect("certificates");
        Some(Self { member, pki })
    }

    async fn server(&self, name: &str) -> Server {
        self.server_at(name, NodeConfig::example().server_ip).await
    }

    async fn server_at(&self, name: &str, ip: Ipv4Addr) -> Server {
        let etcd = storage::Etcd {
            spelling: apiserver::upstream_path,
            holds: apiserver::held_names,
            ..self.member.config()
        };
        Server::start(name, ip, etcd, self.pki.path()).await
    }
}

/// A server with threads of its own, which end with it when it is killed.
struct Server {
    runtime: Option<Runtime>,
    api: Option<TestApi>,
    client: Client,
}

impl Server {
    async fn start(name: &str, ip: Ipv4Addr, etcd: storage::Etcd, pki: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (name, pki) = (name.to_owned(), pki.to_owned());
        let starting = runtime.spawn(async move {
            let config = Config { engine: Engine::Etcd(etcd), ..Config::default() };
            let store: Arc<dyn Store> = storage::open(config).await.expect("etcd answers");
            let config = NodeConfig { server_ip: ip, ..TestApi::config(6443) };
            let api = TestApi::start_as(config, store, &pki).await;
            let settings = api.settings(controllers::Settings::NODE_MONITOR_GRACE);
            // It has failed only if what it says is waited for, which is what the role does.
            let _ = Leading::elected(&api.api, settings, &name, TERMS, &api.tasks);
            api
        });
        let api = starting.await.expect("a server");
        let client = api.api.client(UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]));
        Self { runtime: Some(runtime), api: Some(api), client }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn server(&self) -> &ApiServer {
        &self.api.as_ref().expect("it runs").api
    }

    /// Stops it as a container is stopped.
    async fn stop(mut self) {
        let api = self.api.take().expect("it runs");
        api.tasks.drain(LONG).await.expect("everything ends");
    }

    /// Ends it where it stands: nothing of it runs any more, and nothing is given back.
    fn kill(mut self) {
        self.end();
        // Dropped, it would still say goodbye.
        std::mem::forget(self.api.take());
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn parse<T: DeserializeOwned + Debug>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

/// Waits until something holds; returns how long that took.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LONG, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
