//! Who a request acts for: what authentication finds out, and authorization and admission decide on.

use std::collections::BTreeMap;

/// The user of a request, as authentication found it. In-process clients put it into the request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    /// Empty if not known.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Group of everybody who proved who they are.
    pub const AUTHENTICATED: &'static str = "system:authenticated";
    /// Group of everybody who did not.
    pub const UNAUTHENTICATED: &'static str = "system:unauthenticated";
    /// Group that may do everything, whatever the rules say.
    pub const MASTERS: &'static str = "system:masters";
    /// Group of the nodes' identities.
    pub const NODES: &'static str = "system:nodes";

    /// An authenticated user in `groups` (and in `system:authenticated`).
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push(Self::AUTHENTICATED.to_owned());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The user of a request without credentials.
    pub fn anonymous() -> Self {
        let groups = vec![Self::UNAUTHENTICATED.to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }

    /// The API server's own identity, for what it does on nobody's behalf.
    pub fn api_server() -> Self {
        Self::new("system:apiserver", &[Self::MASTERS])
    }

    /// A ServiceAccount's user.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let mut user = Self::new(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &of_namespace],
        );
        uid.clone_into(&mut user.uid);
        user
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node whose kubelet this is.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|_| self.in_group(Self::NODES))
    }

    /// Namespace and name, if this is a ServiceAccount.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_tell_what_they_are() {
        assert_eq!(UserInfo::new("system:node:n1", &["system:nodes"]).node(), Some("n1"));
        assert_eq!(UserInfo::new("system:node:n1", &[]).node(), None);
        let account = UserInfo::service_account("default", "robot", "u-1");
        assert_eq!(account.as_service_account(), Some(("default", "robot")));
        assert_eq!(
            account.groups,
            ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
        );
    }
}
