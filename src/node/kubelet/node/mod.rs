//! The Node object of this machine: registered at start, its status told whenever it changes, a lease in between.

mod lease;
mod object;
mod report;

pub use report::{Reporter, Signals};
