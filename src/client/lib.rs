//! Clients of the API server, built from certificates, tokens or the router itself.

mod connect;
pub mod election;
pub mod events;
pub mod gateway;
pub mod informer;
pub mod queue;
pub mod stream;
pub mod tls;
pub mod typed;

pub use connect::{ConnectError, Identified, connect};
