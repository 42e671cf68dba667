//! Who owns which field of an object: `metadata.managedFields`, and server-side apply, which stands on it.
//!
//! ```text
//! write   -> compare old and new   -> changed fields go to the writer, removed ones leave everybody
//! apply   -> merge into the object -> drop what the applier no longer says and nobody owns -> compare -> conflicts, or as a write
//! ```
//!
//! The rules are those of the API concepts ("Server-Side Apply") and of structured-merge-diff, which upstream runs on; the types say
//! which lists are sets or maps, and what is taken as a whole.

mod apply;
mod compare;
mod form;
mod managed;
mod merge;
mod set;

pub use apply::{Applied, Applier, apply};
pub use form::Types;
pub use managed::{Managed, Operation, Writer, track};
pub use merge::merged;
pub use set::FieldSet;
