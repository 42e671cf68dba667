//! The Node object of this machine: registered at start, its status told whenever it changes, a lease in between.

mod lease;
mod object;
mod report;

pub use lease::keep as keep_lease;
pub use object::VERSION;
pub use report::{Reporter, Signals};
