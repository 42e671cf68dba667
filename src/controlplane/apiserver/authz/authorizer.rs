//! Authorization over the index, by rules that are never older than the store.

use std::sync::Arc;

use super::{Decision, decide, rules_for, sentence};
use crate::RequestInfo;
use crate::index::Index;
use crate::rbac::{Action, Rule};
use crate::user::UserInfo;
use api::status::ApiError;

/// Decides over the index.
pub struct Authorizer {
    index: Arc<Index>,
}

impl Authorizer {
    pub fn new(index: Arc<Index>) -> Self {
        Self { index }
    }

    /// Whether the user may do what the request asks for.
    pub async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        self.decide(user, &Action::from(request)).await
    }

    /// Whether the user may do it. A refusal is given only by an index that has seen everything durable: who was just
    /// granted a right has it.
    pub async fn decide(&self, user: &UserInfo, action: &Action<'_>) -> Decision {
        let decision = decide(&self.index.read(), user, action);
        if decision.allowed || self.index.is_current() {
            return decision;
        }
        self.index.caught_up().await;
        decide(&self.index.read(), user, action)
    }

    /// Every rule that applies to the user in the namespace.
    pub async fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.index.caught_up().await;
        rules_for(&self.index.read().rbac, user, namespace)
    }

    /// The 403 that tells of a refusal.
    pub fn forbidden(user: &UserInfo, action: &Action<'_>, decision: &Decision) -> ApiError {
        let separator = if decision.reason.is_empty() { "" } else { ": " };
        let why = format!("{}{separator}{}", sentence(&user.name, action), decision.reason);
        ApiError::forbidden(action.group, action.resource, action.name, &why)
    }
}
