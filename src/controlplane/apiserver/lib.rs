//! One generic REST engine over the resource table.
//!
//! ```text
//! request -> who (auth) -> may they (authz) -> decode, default -> mutate -> validate -> admit -> one storage transaction -> answer
//! ```
//!
//! No resource has a handler of its own: the verbs read its descriptor from the table.

pub mod admission;
mod aggregation;
pub mod allocate;
mod audit;
pub mod auth;
pub mod authz;
pub mod bootstrap;
mod client;
mod context;
mod conversion;
mod convert;
mod fairness;
mod gate;
mod hook_call;
pub mod index;
mod key;
mod measured;
mod observe;
mod projection;
pub mod proxy;
pub mod rbac;
pub mod registry;
pub mod request;
mod reservation;
pub mod reviews;
mod root;
mod selection;
pub mod serve;
mod server;
mod special;
mod start;
mod user;
mod verbs;
mod wire;

pub use aggregation::Aggregator;
pub use allocate::held_names;
pub use key::upstream_path;
pub use request::RequestInfo;
pub use server::{ApiServer, Options};
pub use start::{StartError, is_of_one_cluster, start};
pub use user::UserInfo;

#[cfg(test)]
mod tests;
