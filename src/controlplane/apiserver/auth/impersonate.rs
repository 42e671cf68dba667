//! Impersonation: the headers by which a user acts as another one.

use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::authz::Action;
use crate::user::UserInfo;

const EXTRA: &str = "impersonate-extra-";

/// Whom a request wants to be taken for (`kubectl --as`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Impersonation {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Impersonation {
    /// Reads the headers; `None` if there are none of these.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut wanted = Self {
            user: text("impersonate-user").to_owned(),
            uid: text("impersonate-uid").to_owned(),
            ..Self::default()
        };
        let groups = headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
        wanted.groups = groups.map(str::to_owned).collect();
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            wanted.extra.entry(key).or_default().push(value.to_str().unwrap_or_default().to_owned());
        }
        (wanted != Self::default()).then_some(wanted)
    }

    /// The rights that are needed for it, each with the plural that the refusal names.
    pub(super) fn actions(&self) -> Vec<Action<'_>> {
        let mut actions = Vec::new();
        match self.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            Some((namespace, name)) => {
                actions.push(Action::on("impersonate", "", "serviceaccounts", namespace, name));
            }
            None => actions.push(Action::on("impersonate", "", "users", "", &self.user)),
        }
        for group in &self.groups {
            actions.push(Action::on("impersonate", "", "groups", "", group));
        }
        const AUTHENTICATION: &str = "authentication.k8s.io";
        if !self.uid.is_empty() {
            actions.push(Action::on("impersonate", AUTHENTICATION, "uids", "", &self.uid));
        }
        for (key, values) in &self.extra {
            for value in values {
                let action = Action::on("impersonate", AUTHENTICATION, "userextras", "", value);
                actions.push(Action { subresource: key, ..action });
            }
        }
        actions
    }

    /// The user that the request goes on as.
    pub(super) fn into_user(self) -> UserInfo {
        let mut groups = self.groups;
        let account = self.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        if let Some((namespace, name)) = account.filter(|_| groups.is_empty()) {
            groups = UserInfo::service_account(namespace, name, "").groups;
        }
        let settled = [UserInfo::AUTHENTICATED, UserInfo::UNAUTHENTICATED];
        if !groups.iter().any(|group| settled.contains(&group.as_str())) {
            let anonymous = self.user == "system:anonymous";
            groups.push(settled[usize::from(anonymous)].to_owned());
        }
        UserInfo { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Option<Impersonation> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Impersonation::from_headers(&headers)
    }

    #[test]
    fn headers_say_who_and_rights_follow() {
        assert_eq!(read(&[("accept", "x")]), None);
        let jane =
            read(&[("impersonate-user", "jane"), ("impersonate-group", "dev"), ("impersonate-group", "ops")])
                .unwrap();
        let asked: Vec<_> =
            jane.actions().iter().map(|a| (a.resource.to_owned(), a.name.to_owned())).collect();
        assert_eq!(
            asked,
            [
                ("users".to_owned(), "jane".to_owned()),
                ("groups".into(), "dev".into()),
                ("groups".into(), "ops".into())
            ]
        );
        assert_eq!(jane.into_user().groups, ["dev", "ops", "system:authenticated"]);
        let robot = read(&[("impersonate-user", "system:serviceaccount:a:b")]).unwrap();
        assert_eq!(robot.actions()[0].resource, "serviceaccounts");
        assert!(robot.into_user().groups.contains(&"system:serviceaccounts:a".to_owned()));
    }
}
