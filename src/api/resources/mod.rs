//! The table of resources: for every kind the API serves, its names, its subresources, and its behaviour.
//!
//! One file per kind that behaves in its own way, below its group; the others are rows in their group's
//! `mod.rs`. The REST engine has no other knowledge of kinds.

mod apps;
mod batch;
mod core;
mod custom;
mod descriptor;
mod fill;
mod groups;
mod others;
mod strategy;
mod subresource;
mod table;

pub use self::core::NOT_SOURCES as VOLUME_NOT_SOURCES;
pub use custom::{condition, rows as custom_rows};
pub use descriptor::{Cached, Measure, Resource, ScalePaths, Storage};
pub use strategy::{Plain, Strategy, Verdict};
pub use subresource::{Handler, Part, Review, Stream, Subresource};
pub use table::{Table, builtin};
