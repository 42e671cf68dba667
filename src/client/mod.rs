//! Clients of the API server, built from certificates, tokens or the router itself.

pub mod events;
pub mod informer;
pub mod queue;
pub mod tls;
pub mod typed;
