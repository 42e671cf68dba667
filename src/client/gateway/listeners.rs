//! Gateways and their listeners: what is valid by itself, before any route attaches.

use std::sync::Arc;

use super::Condition;
use super::attach::{Attached, RouteKind};
use super::references::{World, certificate};
use super::types::{GROUP, Gateway, Listener, ReferenceGrant};
use crate::informer::Key;
use crate::typed::SecretKey;

/// What a listener does with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// There is none.
    None,
    /// It ends here.
    Terminate,
    /// It goes on unread.
    Passthrough,
}

/// A listener, and the routes that are attached to it.
#[derive(Clone, Debug)]
pub struct ListenerState {
    pub name: String,
    pub port: u16,
    /// Empty for every host.
    pub hostname: String,
    pub tls: Tls,
    pub kinds: Vec<RouteKind>,
    /// Those that can be used.
    pub certificates: Vec<SecretKey>,
    pub attached: Vec<Attached>,
    pub conditions: Vec<Condition>,
    /// Nothing is wrong with it that would keep it from being served.
    pub usable: bool,
    accepted: bool,
    family: Option<Family>,
}

/// Protocols that can share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Plain,
    Encrypted,
}

/// A Gateway of ours.
#[derive(Clone, Debug)]
pub struct GatewayState {
    pub key: Key,
    pub gateway: Arc<Gateway>,
    pub accepted: Condition,
    pub listeners: Vec<ListenerState>,
}

impl GatewayState {
    pub(super) fn of(gateway: &Arc<Gateway>, grants: &[Arc<ReferenceGrant>], world: &dyn World) -> Self {
        let all = &gateway.spec.listeners;
        let refused = unsupported(gateway);
        let served = refused.is_none();
        let listeners: Vec<ListenerState> = all
            .iter()
            .map(|listener| {
                let conflict = conflict(listener, all);
                state(gateway, listener, conflict, served, grants, world)
            })
            .collect();
        let accepted = refused.unwrap_or_else(|| {
            let good = listeners.iter().filter(|listener| listener.accepted).count();
            let message =
                format!("{} of {} listeners are not valid", listeners.len() - good, listeners.len());
            match good {
                0 => Condition::no("Accepted", "ListenersNotValid", message),
                _ if good < listeners.len() => {
                    Condition { message, ..Condition::yes("Accepted", "ListenersNotValid") }
                }
                _ => Condition::yes("Accepted", "Accepted"),
            }
        });
        Self { key: Key::of(&gateway.metadata), gateway: gateway.clone(), accepted, listeners }
    }
}

/// What a Gateway asks for that is not done: it is not served then.
fn unsupported(gateway: &Gateway) -> Option<Condition> {
    let spec = &gateway.spec;
    let no = |reason, message: &str| Some(Condition::no("Accepted", reason, message));
    if spec.infrastructure.parameters_ref.is_some() {
        return no(
            "InvalidParameters",
            "infrastructure.parametersRef is not supported: this class has no parameters",
        );
    }
    if spec.addresses.iter().any(|address| address.r#type.as_deref().is_some_and(|kind| kind != "IPAddress"))
    {
        return no("UnsupportedAddress", "only addresses of type IPAddress are supported");
    }
    if spec.tls.is_some() {
        return no(
            "Invalid",
            "spec.tls is not supported: clients' certificates are not checked, and none is shown to backends",
        );
    }
    None
}

fn family(listener: &Listener) -> Option<Family> {
    match listener.protocol.as_str() {
        "HTTP" => Some(Family::Plain),
        "HTTPS" | "TLS" => Some(Family::Encrypted),
        _ => None,
    }
}

/// Listeners of one port must be told apart: by the host, and by whether they begin with TLS.
fn conflict(listener: &Listener, all: &[Listener]) -> Option<&'static str> {
    let own = family(listener)?;
    let host = |listener: &Listener| listener.hostname.clone().unwrap_or_default();
    let others = all.iter().filter(|other| other.name != listener.name && other.port == listener.port);
    let mut others = others.filter_map(|other| Some((other, family(other)?)));
    others.find_map(|(other, family)| match family == own {
        false => Some("ProtocolConflict"),
        true if host(other) == host(listener) => Some("HostnameConflict"),
        true => None,
    })
}

/// The kinds that may attach, and whether kinds were asked for that cannot.
fn kinds(listener: &Listener) -> (Vec<RouteKind>, bool) {
    let possible: &[RouteKind] = match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => &[RouteKind::Http, RouteKind::Grpc],
        "TLS" => &[RouteKind::Tls],
        _ => &[],
    };
    let asked = listener.allowed_routes.as_ref().map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
    if asked.is_empty() {
        return (possible.to_vec(), false);
    }
    let find = |kind: &super::types::RouteGroupKind| {
        let ours = kind.group.as_deref().is_none_or(|group| group == GROUP);
        possible.iter().copied().find(|known| ours && known.word() == kind.kind)
    };
    let found: Vec<RouteKind> = asked.iter().filter_map(find).collect();
    let wrong = found.len() < asked.len();
    (found, wrong)
}

fn state(
    gateway: &Gateway,
    listener: &Listener,
    conflict: Option<&'static str>,
    served: bool,
    grants: &[Arc<ReferenceGrant>],
    world: &dyn World,
) -> ListenerState {
    let (kinds, wrong_kinds) = kinds(listener);
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    let tls = match (listener.protocol.as_str(), mode) {
        ("TLS", "Passthrough") => Tls::Passthrough,
        ("HTTPS" | "TLS", _) => Tls::Terminate,
        _ => Tls::None,
    };
    let known = family(listener).is_some();
    let mut resolved = Condition::yes("ResolvedRefs", "ResolvedRefs");
    let mut certificates = Vec::new();
    if tls == Tls::Terminate {
        let references = listener.tls.as_ref().map(|tls| tls.certificate_refs.as_slice()).unwrap_or_default();
        if references.is_empty() {
            resolved = Condition::no("ResolvedRefs", "InvalidCertificateRef", "tls.certificateRefs is empty");
        }
        for reference in references {
            match certificate(gateway, reference, grants, world) {
                Ok(key) => certificates.push(key),
                Err(error) => resolved = Condition::no("ResolvedRefs", error.reason.word(), error.message),
            }
        }
    }
    if wrong_kinds {
        let message = "allowedRoutes.kinds names kinds that this protocol does not have";
        resolved = Condition::no("ResolvedRefs", "InvalidRouteKinds", message);
    }
    let accepted = match conflict {
        _ if !known => {
            let message = format!("{} is not supported: HTTP, HTTPS and TLS are", listener.protocol);
            Condition::no("Accepted", "UnsupportedProtocol", message)
        }
        Some(reason) => {
            Condition::no("Accepted", reason, "another listener of this port cannot be told from this one")
        }
        None => Condition::yes("Accepted", "Accepted"),
    };
    let ready = accepted.status && (tls != Tls::Terminate || !certificates.is_empty());
    let usable = ready && served;
    let programmed = match usable {
        true => Condition::yes("Programmed", "Programmed"),
        false => Condition::no("Programmed", "Invalid", "this listener is not served"),
    };
    let conflicted = match conflict {
        Some(reason) => {
            Condition { message: accepted.message.clone(), ..Condition::yes("Conflicted", reason) }
        }
        None => Condition { status: false, ..Condition::yes("Conflicted", "NoConflicts") },
    };
    ListenerState {
        name: listener.name.clone(),
        port: listener.port,
        hostname: listener.hostname.clone().unwrap_or_default().to_ascii_lowercase(),
        tls,
        kinds: if known { kinds } else { Vec::new() },
        certificates,
        attached: Vec::new(),
        accepted: accepted.status,
        conditions: vec![accepted, conflicted, programmed, resolved],
        usable,
        family: family(listener),
    }
}

impl ListenerState {
    /// Whether routes may attach at all.
    pub(super) fn takes_routes(&self) -> bool {
        self.accepted && self.family.is_some()
    }
}
