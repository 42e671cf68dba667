//! What the objects of the Gateway API mean together: which routes are attached to which listeners, what they may refer
//! to, and what their statuses say. Known to the controller that writes statuses and to the proxy that serves; no I/O.
//!
//! ```text
//! classes, Gateways, routes, grants, namespaces --Resolved::of()--> Gateways: listeners, each with its routes
//!                                                             \--> routes: conditions by parent
//! ```

mod attach;
mod caches;
mod listeners;
mod references;
mod types;

use std::time::Duration;

pub use attach::{Attached, Objects, Parent, Resolved, Route, RouteKey, RouteKind};
pub use caches::Caches;
pub use listeners::{GatewayState, ListenerState, Tls};
pub use references::{Backend, RefError, RefReason, World};
pub use types::*;

/// The controller name of GatewayClasses that are served.
pub const GATEWAY_CONTROLLER: &str = "minik.dev/gateway";
/// The class that is made at the start.
pub const GATEWAY_CLASS: &str = "minik";
/// Says of which Gateway a Service is.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Which proxy the Services of Gateways are left to.
pub const GATEWAY_PROXY: &str = "minik-gateway";

/// The longest name a Service may have.
const LONGEST: usize = 63;

/// The name of the Service of a Gateway: that of the Gateway and its class, shortened where it is too long.
pub fn service_name(gateway: &str) -> String {
    let whole = format!("{gateway}-{GATEWAY_CLASS}").replace('.', "-");
    if whole.len() <= LONGEST && gateway.bytes().next().is_some_and(|first| first.is_ascii_lowercase()) {
        return whole;
    }
    let sum = ring::digest::digest(&ring::digest::SHA256, gateway.as_bytes());
    let sum = hex::encode(&sum.as_ref()[..5]);
    let kept: String = whole.chars().take(LONGEST - sum.len() - 4).collect();
    format!("gw-{kept}-{sum}")
}

/// A duration as the Gateway API writes it: `1h30m`, `500ms`; up to four parts.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let millis = match &after[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum += Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?);
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

/// A condition of a status, without the time of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    /// It is so.
    pub fn yes(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, status: true, reason, message: String::new() }
    }

    /// It is not so: why.
    pub fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: false, reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_names_of_their_own() {
        assert_eq!(service_name("web"), "web-minik");
        let long = "a".repeat(63);
        for name in [long.as_str(), "1st", "a.b"] {
            let service = service_name(name);
            assert!(
                service.len() <= LONGEST && service.starts_with(|c: char| c.is_ascii_lowercase()),
                "{service}"
            );
        }
        for (text, expect) in
            [("1h2m3s4ms", Some(3_723_004)), ("0s", Some(0)), ("10", None), ("", None), ("1d", None)]
        {
            assert_eq!(duration(text), expect.map(Duration::from_millis), "{text}");
        }
        assert_ne!(service_name(&long), service_name(&"a".repeat(62)));
    }
}
