//! The shape of types: one table for decoding, pruning, patching, protobuf, and OpenAPI.
//!
//! The facts of the built-in types stand in `builtin.txt` (see the README beside it), which is read once,
//! when the first type is asked for. What is to be said of them in sentences is made when this program is built.

mod decode;
mod descriptions;
mod types;

pub use decode::FieldValidation;
pub use descriptions::Descriptions;
pub use types::{Field, Kind, ListType, Schema, all, builtin, named};
