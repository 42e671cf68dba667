//! What an object of one namespace may name, and whether it is there.

use std::sync::Arc;

use super::attach::{Route, RouteKind};
use super::types::{BackendRef, GROUP, Gateway, ObjectRef, ReferenceGrant};
use crate::typed::SecretKey;

/// The reason that a condition ResolvedRefs gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefReason {
    InvalidKind,
    RefNotPermitted,
    BackendNotFound,
    InvalidCertificateRef,
    UnsupportedProtocol,
}

impl RefReason {
    /// The API's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::InvalidKind => "InvalidKind",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::BackendNotFound => "BackendNotFound",
            Self::InvalidCertificateRef => "InvalidCertificateRef",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

/// A reference that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefError {
    pub reason: RefReason,
    pub message: String,
}

impl RefError {
    fn new(reason: RefReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub namespace: String,
    pub service: String,
    pub port: u16,
}

/// What is there beside the objects of the Gateway API.
pub trait World {
    /// Whether a Service has this port.
    fn has_port(&self, namespace: &str, service: &str, port: u16) -> bool;
    /// Whether a Secret holds a certificate and its key; why not.
    fn certificate(&self, key: &SecretKey) -> Result<(), String>;
    /// Whether the labels of a namespace match.
    fn namespace_matches(
        &self,
        name: &str,
        selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    ) -> bool;
}

/// Whether a grant lets objects of a kind and namespace name this.
fn granted(
    grants: &[Arc<ReferenceGrant>],
    from: (&str, &str),
    namespace: &str,
    to: (&str, &str, &str),
) -> bool {
    let (kind, other) = from;
    let (group, target, name) = to;
    grants.iter().filter(|grant| grant.metadata.namespace.as_deref() == Some(namespace)).any(|grant| {
        let may = grant.spec.from.iter();
        let what = grant.spec.to.iter();
        may.into_iter().any(|from| from.group == GROUP && from.kind == kind && from.namespace == other)
            && what.into_iter().any(|to| {
                to.group.as_deref().unwrap_or_default() == group
                    && to.kind.as_deref() == Some(target)
                    && (to.name.is_empty() || to.name == name)
            })
    })
}

/// The Service that a route names.
pub(super) fn backend(
    route: &Route,
    reference: &BackendRef,
    grants: &[Arc<ReferenceGrant>],
    world: &dyn World,
) -> Result<Backend, RefError> {
    let kind = reference.kind.as_deref().unwrap_or("Service");
    let group = reference.group.as_deref().unwrap_or_default();
    if !group.is_empty() || kind != "Service" {
        return Err(RefError::new(RefReason::InvalidKind, format!("{kind} {group} is no Service")));
    }
    let own = route.key.namespace.as_str();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let name = reference.name.as_str();
    if namespace != own && !granted(grants, (route.key.kind.word(), own), namespace, ("", "Service", name)) {
        let message = format!("no ReferenceGrant in {namespace} lets {own} name Service {name}");
        return Err(RefError::new(RefReason::RefNotPermitted, message));
    }
    let Some(port) = reference.port else {
        let message = format!("the reference to Service {namespace}/{name} has no port");
        return Err(RefError::new(RefReason::BackendNotFound, message));
    };
    if !world.has_port(namespace, name, port) {
        let message = format!("there is no Service {namespace}/{name} with port {port}");
        return Err(RefError::new(RefReason::BackendNotFound, message));
    }
    Ok(Backend { namespace: namespace.to_owned(), service: name.to_owned(), port })
}

/// The Secret that a listener names, and whether it can be used.
pub(super) fn certificate(
    gateway: &Gateway,
    reference: &ObjectRef,
    grants: &[Arc<ReferenceGrant>],
    world: &dyn World,
) -> Result<SecretKey, RefError> {
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    let group = reference.group.as_deref().unwrap_or_default();
    if !group.is_empty() || kind != "Secret" {
        let message = format!("{kind} {group} is no Secret");
        return Err(RefError::new(RefReason::InvalidCertificateRef, message));
    }
    let own = gateway.metadata.namespace.as_deref().unwrap_or_default();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let name = reference.name.as_str();
    if namespace != own && !granted(grants, ("Gateway", own), namespace, ("", "Secret", name)) {
        let message = format!("no ReferenceGrant in {namespace} lets {own} name Secret {name}");
        return Err(RefError::new(RefReason::RefNotPermitted, message));
    }
    let key = SecretKey::new(namespace, name);
    match world.certificate(&key) {
        Ok(()) => Ok(key),
        Err(why) => Err(RefError::new(RefReason::InvalidCertificateRef, format!("Secret {key}: {why}"))),
    }
}

/// The first of a route's references that leads nowhere.
pub(super) fn unresolved(
    route: &Route,
    grants: &[Arc<ReferenceGrant>],
    world: &dyn World,
) -> Option<RefError> {
    for rule in &route.spec.rules {
        let filters =
            || rule.filters.iter().chain(rule.backend_refs.iter().flat_map(|reference| &reference.filters));
        let mirrors = filters().filter_map(|filter| Some(&filter.request_mirror.as_ref()?.backend_ref));
        for reference in rule.backend_refs.iter().chain(mirrors) {
            if let Err(error) = backend(route, reference, grants, world) {
                return Some(error);
            }
        }
        if let Some(extension) = filters().find_map(|filter| filter.extension_ref.as_ref()) {
            let kind = extension.kind.as_deref().unwrap_or_default();
            return Some(RefError::new(RefReason::InvalidKind, format!("no filter is known of kind {kind}")));
        }
    }
    None
}

impl RouteKind {
    /// The kind's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
        }
    }
}
