//! What expressions may ask about rights.

use crate::authz::{self, Action};
use crate::index::Index;
use crate::user::UserInfo;
use api::cel::{Authorize, Question};

/// Answers for the user of a request, or for the ServiceAccount that is asked about.
pub(super) struct Rights<'a> {
    pub index: &'a Index,
    pub user: &'a UserInfo,
}

impl std::fmt::Debug for Rights<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rights of {}", self.user.name)
    }
}

impl Authorize for Rights<'_> {
    fn authorize(&self, question: &Question) -> (bool, String) {
        let account = question.service_account.as_ref();
        let account = account.map(|(namespace, name)| UserInfo::service_account(namespace, name, ""));
        let action = Action {
            verb: &question.verb,
            group: &question.group,
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: question.path.as_deref().unwrap_or_default(),
            is_resource: question.path.is_none(),
        };
        let decision = authz::decide(&self.index.read(), account.as_ref().unwrap_or(self.user), &action);
        (decision.allowed, decision.reason)
    }
}
