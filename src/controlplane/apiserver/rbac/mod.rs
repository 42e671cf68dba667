//! Role-based access control as data: rules, and the roles and bindings that grant them, compiled for evaluation.

mod policy;
mod rule;

pub use policy::{Rbac, RbacKind, RoleRef, rules};
pub use rule::{Action, Rule, quoted};
