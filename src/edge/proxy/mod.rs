//! The proxy that Ingresses and Gateways share: it knows hosts, rules and endpoints, and no Kubernetes kind.
//!
//! ```text
//! Ingresses --ingress--+
//!                      +--> ports by address --Server--> connection --> site --> rule --> filters --> endpoint
//! Gateways ---gateway--+
//! ```
//!
//! What a port serves is replaced whole while connections go on: no change of configuration ends one.

mod affinity;
mod auth;
mod body;
mod certificates;
mod cors;
mod filters;
mod find;
mod forward;
mod headers;
mod hosts;
mod rules;
mod serve;
mod stream;
mod upstream;

pub use affinity::Affinity;
pub use auth::Users;
pub use certificates::{Certificates, StandInError, stand_in};
pub use cors::Cors;
pub use filters::{Filter, HeaderChanges, PathChange, Redirect, Rewrite};
pub use find::{Found, Names, Services};
pub use forward::{Forwarder, Peer};
pub use hosts::{Hosts, Wildcard};
pub use rules::{
    Action, Asked, Backend, Match, PathMatch, Port, PortRef, Protocol, Rule, ServicePort, Settings, Site,
    Stream, TIMEOUT, ValueMatch,
};
pub use serve::{Server, serve};
