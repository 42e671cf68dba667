//! Admission policies written as expressions: what they may name, how they are compiled, and what they say of a write.
//!
//! ```text
//! policy -> compile (once for each version) -> Policy
//! Policy + inputs of one write -> matches? -> decisions and annotations, or patches
//! ```
//!
//! Functions over data alone. Rules: `k8s.io/apiserver/pkg/admission/plugin/{cel,policy}`.

mod builtin;
mod compiled;
mod conditions;
mod environment;
mod evaluate;
mod problems;
#[cfg(test)]
mod tests;
mod types;

pub use builtin::declare_builtin;
pub use compiled::{Mutation, Policy};
pub use conditions::{Conditions, Matched};
pub use environment::{Given, environment};
pub use evaluate::{Change, Decision, Evaluation, Inputs, Verdict};
pub use problems::{condition_problems, policy_problems};
pub use types::warnings;
