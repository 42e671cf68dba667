//! Structural schemas: the shape that a CustomResourceDefinition gives its objects.
//!
//! ```text
//! decoded object -> prune (unknown fields go) -> default -> check (types and values)
//! ```
//!
//! Everything here works on a compiled [`Structural`] and JSON values, and knows no resource.

mod check;
mod compile;
mod fill;
mod json_path;
mod problems;

pub use check::check;
pub use compile::{Additional, JsonType, Structural};
pub use fill::{default, prune};
pub use json_path::{JsonPath, text_of};
pub use problems::problems;
