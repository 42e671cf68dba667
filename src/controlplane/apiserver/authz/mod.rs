//! Who may do what: RBAC and the nodes' rules, evaluated over an index in memory.
//!
//! ```text
//! system:masters -> node rules -> RBAC (ClusterRoleBindings, then the namespace's RoleBindings) -> denied
//! ```

mod authorizer;
mod message;
mod node;

pub use super::rbac::{Action, Rbac, RbacKind, RoleRef, Rule, quoted, rules};
pub use authorizer::Authorizer;
pub use message::sentence;

use super::index::Known;
use super::user::UserInfo;

/// The answer to "may they".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Why; for a denial, what the forbidden message says behind the sentence itself. Often empty.
    pub reason: String,
}

impl Decision {
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { allowed: true, reason: reason.into() }
    }

    pub fn deny(reason: impl Into<String>) -> Self {
        Self { allowed: false, reason: reason.into() }
    }
}

/// Decides from the index alone.
pub fn decide(known: &Known, user: &UserInfo, action: &Action<'_>) -> Decision {
    if user.in_group(UserInfo::MASTERS) || node::allows(&known.nodes, user, action) {
        return Decision::allow("");
    }
    match known.rbac.find(user, action) {
        Ok(reason) => Decision::allow(reason),
        Err(missing) => Decision::deny(missing_reason(missing)),
    }
}

/// Every rule that applies to the user in the namespace (empty: cluster scope), whoever grants it.
pub fn rules_for(rbac: &Rbac, user: &UserInfo, namespace: &str) -> Vec<Rule> {
    let mut all = Vec::new();
    if user.in_group(UserInfo::MASTERS) {
        let every = || vec!["*".to_owned()];
        all.push(Rule { verbs: every(), api_groups: every(), resources: every(), ..Rule::default() });
        all.push(Rule { verbs: every(), non_resource_urls: every(), ..Rule::default() });
    }
    if user.node().is_some() {
        all.extend(node::rules());
    }
    for rule in rbac.rules_for(user, namespace) {
        // Several bindings may give the same.
        if !all.contains(&rule) {
            all.push(rule);
        }
    }
    all
}

fn missing_reason(mut missing: Vec<String>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    missing.retain(|what| seen.insert(what.clone()));
    match &missing[..] {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}
