//! The shape of types: one table for decoding, pruning, patching, protobuf, and OpenAPI.
//!
//! The facts of the built-in types stand in `builtin.txt` (see the README beside it), which is read once,
//! when the first type is asked for.

mod decode;
mod types;

pub use decode::FieldValidation;
pub use types::{Field, Kind, ListType, Schema, all, builtin, named};
