//! One generic REST engine over the resource table.
//!
//! ```text
//! request -> who (auth) -> may they (authz) -> decode, default -> mutate -> validate -> admit -> one storage transaction -> answer
//! ```
//!
//! No resource has a handler of its own: the verbs read its descriptor from the table.

pub mod admission;
pub mod allocate;
pub mod auth;
pub mod authz;
pub mod bootstrap;
pub mod index;
pub mod request;

pub use request::RequestInfo;
