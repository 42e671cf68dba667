//! Custom resources: the kind CustomResourceDefinition, and the rows that one definition brings.

mod definition;
mod rows;
mod strategy;

pub use definition::Definition;
pub use rows::{condition, rows};
