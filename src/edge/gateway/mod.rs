//! Gateways, for the proxy.
//!
//! ```text
//! Resolved (client::gateway) --routes::ports()--> ports: listeners are sites, attached routes their rules
//! ```

mod filters;
mod routes;
mod world;

pub use routes::ports;
pub use world::NodeWorld;
