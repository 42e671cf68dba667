//! An audit policy (`audit.k8s.io/v1`): which requests are told of, and how much.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::request::RequestInfo;
use crate::user::UserInfo;

/// Why a policy cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the audit policy cannot be read: {0}")]
    Syntax(String),
    #[error("the audit policy is wrong: {0}")]
    Invalid(String),
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde_json::Value,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What is wanted of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy, and checks it as upstream does (`ValidatePolicy`).
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self =
            serde_yaml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        let wrong = |why: String| Err(PolicyError::Invalid(why));
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return wrong(format!("{} {} is no audit.k8s.io/v1 Policy", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return wrong("it has no rules: nothing would be told".to_owned());
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if of_resources && !rule.non_resource_urls.is_empty() {
                return wrong(format!(
                    "rules[{at}]: rules cannot apply to both regular resources and non-resource URLs"
                ));
            }
            let bad = |url: &&String| {
                *url != "*" && (!url.starts_with('/') || url.trim_end_matches('*').contains('*'))
            };
            if let Some(url) = rule.non_resource_urls.iter().find(bad) {
                return wrong(format!(
                    "rules[{at}].nonResourceURLs: {url:?}: must begin with a '/', and '*' may only be its end"
                ));
            }
            if rule.resources.iter().any(|one| !one.resource_names.is_empty() && one.resources.is_empty()) {
                return wrong(format!(
                    "rules[{at}].resources: using resourceNames requires at least one resource"
                ));
            }
        }
        Ok(policy)
    }

    /// What the first rule that matches says; `None`: nothing is told.
    pub(super) fn wants(&self, info: &RequestInfo, user: &UserInfo) -> Option<Wanted> {
        let rule = self.rules.iter().find(|rule| rule.matches(info, user))?;
        if rule.level == Level::None {
            return None;
        }
        let omit_stages = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Some(Wanted { level: rule.level, omit_stages, omit_managed_fields })
    }
}

impl Rule {
    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let any = |list: &[String], one: &str| list.is_empty() || list.iter().any(|wanted| wanted == one);
        if !any(&self.users, &user.name) || !any(&self.verbs, info.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.in_group(group)) {
            return false;
        }
        if info.is_resource {
            // A rule of paths is about nothing else.
            return self.non_resource_urls.is_empty()
                && any(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.matches(info)));
        }
        if !self.non_resource_urls.is_empty() {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(start) => info.path.starts_with(start),
                None => *url == info.path,
            });
        }
        self.resources.is_empty() && self.namespaces.is_empty()
    }
}

impl Resources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let path = info.resource_path();
        named
            && self.resources.iter().any(|wanted| {
                wanted == "*"
                    || *wanted == path
                    || wanted.strip_suffix("/*").is_some_and(|resource| resource == info.resource)
                    || wanted.strip_prefix("*/").is_some_and(|sub| !sub.is_empty() && sub == info.subresource)
            })
    }
}
