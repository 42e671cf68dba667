//! Field errors with upstream's sentences, checks of names and values, and the rules of object metadata.

mod address;
mod check;
mod client_config;
mod error;
mod names;
mod object_meta;
mod selector;

pub use address::{load_balancer, special_address};
pub use check::{Check, IMMUTABLE, NOT_NEGATIVE, Rule, check, check_at, same};
pub use client_config::client_config;
pub use error::{FieldError, FieldErrorKind, Path};
pub use names::*;
pub use object_meta::{
    NameRule, annotations_errors, finalizers_of_somebody, labels_errors, object_meta, object_meta_update,
};
pub use selector::{amount, is_empty_selector, is_readable_selector, is_zero_amount, label_selector};
