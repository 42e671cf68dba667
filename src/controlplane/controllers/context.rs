//! What every controller works with.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use kube::{Api, Client};

use super::metrics::Metrics;
use client::events::Recorder;
use client::informer::{Cache, Informers, Object};
use pki::Authority;
use rt::{Clock, Tasks};

/// What the controllers are told about the cluster.
#[derive(Clone)]
pub struct Settings {
    /// All Pod addresses; every node gets a /24 of it.
    pub pod_cidr: Ipv4Net,
    /// Addresses for LoadBalancer Services, first and last.
    pub lb_first: Ipv4Addr,
    pub lb_last: Ipv4Addr,
    /// Signs approved certificate requests; its certificate is what Pods trust.
    pub authority: Arc<Authority>,
    /// How long a node may be silent before it counts as unreachable.
    pub node_monitor_grace: Duration,
    /// Ended Pods above this number are deleted, oldest first; 0 keeps all.
    pub terminated_pod_threshold: usize,
    /// Names of controllers that do not run: what they do is left to somebody else.
    pub without: Vec<&'static str>,
    pub clock: Arc<dyn Clock>,
}

impl Settings {
    /// Upstream's `--node-monitor-grace-period`, as it is since 1.32.
    pub const NODE_MONITOR_GRACE: Duration = Duration::from_secs(50);
    /// Upstream's `--terminated-pod-gc-threshold`.
    pub const TERMINATED_POD_THRESHOLD: usize = 12_500;
}

/// Why a key could not be brought to its desired state; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// True for what a moment later may be different by itself: somebody else wrote first.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }
}

/// Treats "it is not there" as done.
pub(super) fn ignore_not_found<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    ignore(result, "NotFound")
}

/// Treats "it is there already" as done.
pub(super) fn ignore_exists<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    ignore(result, "AlreadyExists")
}

fn ignore<T>(result: Result<T, kube::Error>, reason: &str) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.reason == reason => Ok(None),
        Err(error) => Err(error),
    }
}

/// What every controller starts with.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub informers: Informers,
    pub settings: Arc<Settings>,
    pub tasks: Tasks,
    pub recorder: Recorder,
    pub(super) metrics: Metrics,
    name: &'static str,
}

impl Context {
    pub(super) fn new(client: Client, informers: Informers, settings: Arc<Settings>, tasks: Tasks) -> Self {
        let clock = Arc::clone(&settings.clock);
        let recorder = Recorder::start(client.clone(), "controller-manager", "", clock, &tasks);
        Self {
            client,
            informers,
            settings,
            tasks,
            recorder,
            metrics: Metrics::default(),
            name: "controller-manager",
        }
    }

    pub(super) fn named(&self, name: &'static str) -> Self {
        Self { name, recorder: self.recorder.component(name), ..self.clone() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    pub(super) fn cache<K: Object>(&self) -> Cache<K> {
        self.informers.cache()
    }

    pub(super) fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub(super) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}
