//! The kubelet's own server on port 10250: logs, exec, attach, port-forward, for whoever the cluster's authority vouches for.

mod listen;
mod logs;
mod routes;
mod splice;

pub use listen::{ServerError, serve};
pub use routes::Routes;
