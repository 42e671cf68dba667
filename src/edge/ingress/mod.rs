//! Ingresses, for the proxy.
//!
//! ```text
//! Ingresses, classes --routes::ports()--> port 80, port 443
//! annotations --Treatment--> filters and settings
//! ```

mod routes;
mod treatment;

pub use routes::{Ports, ports};
