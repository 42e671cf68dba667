//! Structural schemas: the shape that a CustomResourceDefinition gives its objects.
//!
//! ```text
//! decoded object -> prune (unknown fields go) -> default -> check (types and values) -> rules (in CEL)
//! ```
//!
//! Everything here works on a compiled [`Structural`] and JSON values, and knows no resource.

mod check;
mod compile;
mod declare;
mod embedded;
mod field_path;
mod fill;
mod json_path;
mod problems;
mod rule;
mod rule_problems;
mod rules;
#[cfg(test)]
mod rules_tests;

pub use check::{check, check_update};
pub use compile::{Additional, JsonType, Structural};
pub use declare::declare;
pub use embedded::check_embedded;
pub use fill::{default, prune};
pub use json_path::{JsonPath, text_of};
pub use problems::problems;
pub use rule_problems::rule_problems;
pub use rules::{Outcome, Rules};
