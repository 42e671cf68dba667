//! What a node knows beside the objects of the Gateway API.

use std::cell::RefCell;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rustls::sign::CertifiedKey;

use crate::secrets::Look;
use client::gateway::World;
use client::informer::Cache;
use client::typed::{SecretKey, selects};

/// Namespaces, and the Secrets that are followed.
pub struct NodeWorld<'a> {
    namespaces: &'a Cache<Namespace>,
    look: RefCell<&'a mut Look>,
}

impl<'a> NodeWorld<'a> {
    /// Secrets that are asked for are followed from then on.
    pub fn new(namespaces: &'a Cache<Namespace>, look: &'a mut Look) -> Self {
        Self { namespaces, look: RefCell::new(look) }
    }

    pub(super) fn certified(&self, key: &SecretKey) -> Option<Arc<CertifiedKey>> {
        self.look.borrow_mut().certificate(key)
    }
}

impl World for NodeWorld<'_> {
    /// Which ports there are is looked up for each request: Services come and go more often than routes.
    fn has_port(&self, _: &str, _: &str, _: u16) -> bool {
        true
    }

    fn certificate(&self, key: &SecretKey) -> Result<(), String> {
        self.certified(key).map(|_| ()).ok_or_else(|| "no certificate that can be used".to_owned())
    }

    fn namespace_matches(&self, name: &str, selector: &LabelSelector) -> bool {
        let namespace = self.namespaces.named("", name);
        namespace.is_some_and(|namespace| selects(selector, namespace.metadata.labels.as_ref()))
    }
}
