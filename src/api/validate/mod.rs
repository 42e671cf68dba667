//! Field errors with upstream's sentences, checks of names and values, and the rules of object metadata.

mod error;
mod names;
mod object_meta;

pub use error::{FieldError, FieldErrorKind, Path};
pub use names::*;
pub use object_meta::{NameRule, annotations_errors, labels_errors, object_meta, object_meta_update};
