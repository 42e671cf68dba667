//! CEL, the language of validation rules and admission policies, with the function libraries that Kubernetes adds.
//!
//! ```text
//! text -> parse -> check against an environment (types, estimated cost) -> Program
//! Program + variables + budget -> value
//! ```
//!
//! Everything is pure: values are seen where they stand in JSON, nothing is copied that is not made new, and what an evaluation
//! may cost is bounded beforehand. Rules: the CEL language definition, cel-go's extensions, `k8s.io/apiserver/pkg/cel`.

mod ast;
mod check;
mod declared;
mod estimate;
mod eval;
mod fault;
mod forms;
mod issue;
mod lex;
mod library;
mod macros;
mod node;
mod output;
mod parse;
mod program;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use declared::{Declared, Form, Items, escape};
pub use fault::{Budget, CALL_LIMIT, Fault, OBJECT_LIMIT};
pub use issue::{Issue, Issues};
pub use library::{Authorization, Authorize, Question};
pub use program::{Environment, Program, Variable};
pub use types::Type;
pub use value::{Key, List, Map, Members, Val, same_keys};
