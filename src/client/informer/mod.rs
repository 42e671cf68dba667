//! Shared views of the API: one watch per type feeds one indexed store, and everybody who asks for
//! that type reads the same objects.
//!
//! ```text
//! empty --first list complete--> synced --watch events, relists--> synced
//! ```

mod cache;
mod names;
mod raw;
mod shared;

pub use cache::{Cache, Change, Key, Object};
pub use names::Names;
pub use shared::Informers;
