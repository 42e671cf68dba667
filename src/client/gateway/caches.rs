//! The objects of the Gateway API, watched.

use super::attach::Objects;
use super::types::{GRPCRoute, Gateway, GatewayClass, HTTPRoute, ReferenceGrant, TLSRoute};
use crate::informer::{Cache, Informers, Object};

/// One cache per kind.
#[derive(Clone, Debug)]
pub struct Caches {
    pub classes: Cache<GatewayClass>,
    pub gateways: Cache<Gateway>,
    pub http: Cache<HTTPRoute>,
    pub grpc: Cache<GRPCRoute>,
    pub tls: Cache<TLSRoute>,
    pub grants: Cache<ReferenceGrant>,
}

impl Caches {
    /// Starts to watch all kinds.
    pub fn start(informers: &Informers) -> Self {
        Self {
            classes: informers.cache(),
            gateways: informers.cache(),
            http: informers.cache(),
            grpc: informers.cache(),
            tls: informers.cache(),
            grants: informers.cache(),
        }
    }

    /// Calls `told` for every change of any kind.
    pub fn on_change(&self, told: impl Fn() + Clone + Send + Sync + 'static) {
        fn tell<K: Object>(cache: &Cache<K>, told: impl Fn() + Send + Sync + 'static) {
            cache.on_change(move |_| told());
        }
        tell(&self.classes, told.clone());
        tell(&self.gateways, told.clone());
        tell(&self.http, told.clone());
        tell(&self.grpc, told.clone());
        tell(&self.tls, told.clone());
        tell(&self.grants, told);
    }

    /// Waits until all kinds have been listed.
    pub async fn synced(&self) {
        self.classes.synced().await;
        self.gateways.synced().await;
        self.http.synced().await;
        self.grpc.synced().await;
        self.tls.synced().await;
        self.grants.synced().await;
    }

    /// What is there now.
    pub fn objects(&self) -> Objects {
        Objects {
            classes: self.classes.list(),
            gateways: self.gateways.list(),
            http: self.http.list(),
            grpc: self.grpc.list(),
            tls: self.tls.list(),
            grants: self.grants.list(),
        }
    }
}
