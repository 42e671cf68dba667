//! The kubelet's own server on port 10250: logs, exec, attach, port-forward, for whom the API server knows
//! and allows.

mod access;
mod files;
mod listen;
mod logs;
mod routes;
mod splice;

pub use access::Access;
pub use listen::{ServerError, serve};
pub use routes::Routes;
