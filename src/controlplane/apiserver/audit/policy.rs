//! An audit policy (`audit.k8s.io/v1`): which requests are told of, and how much.

use std::path::{Path as FilePath, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::validate::{FieldError, Path, dns1123_subdomain};

/// Why a policy cannot be followed, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("loading audit policy file: failed to read file path {path:?}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the audit log {}: {source}", path.display())]
    Log { path: PathBuf, source: std::io::Error },
    #[error("loading audit policy file: {why}: from file {}", path.display())]
    Wrong { path: PathBuf, why: String },
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    /// All there are, with their words.
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("None", Self::None),
        ("Metadata", Self::Metadata),
        ("Request", Self::Request),
        ("RequestResponse", Self::RequestResponse),
    ];
}

/// When it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [(&'static str, Self); 4] = [
        ("RequestReceived", Self::RequestReceived),
        ("ResponseStarted", Self::ResponseStarted),
        ("ResponseComplete", Self::ResponseComplete),
        ("Panic", Self::Panic),
    ];
}

fn named<T: Copy>(all: &[(&'static str, T)], word: &str) -> Option<T> {
    all.iter().find(|(name, _)| *name == word).map(|(_, named)| *named)
}

/// A policy as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Written {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: Value,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
    rules: Vec<WrittenRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct WrittenRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// A policy that can be followed.
#[derive(Debug)]
pub(super) struct Policy(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    wanted: Wanted,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    non_resource_urls: Vec<String>,
}

/// What is wanted of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads the policy in a file. Fails for one that is wrong, or says something that is not known: upstream would
    /// pass over the latter, and tell of something else than was asked for.
    pub(super) fn read(path: &FilePath, text: &str) -> Result<Self, PolicyError> {
        Self::parse(text).map_err(|why| PolicyError::Wrong { path: path.to_owned(), why })
    }

    /// Rule: `LoadPolicyFromBytes` and `ValidatePolicy`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let written: Written =
            serde_yaml::from_str(text).map_err(|error| format!("failed decoding: {error}"))?;
        let Written { api_version, kind, .. } = &written;
        if api_version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(format!(
                "failed decoding: no kind {kind:?} is registered for version {api_version:?}"
            ));
        }
        let errors = written.check();
        match &errors[..] {
            [] if written.rules.is_empty() => Err("loaded illegal policy with 0 rules".to_owned()),
            [] => Ok(written.into_policy()),
            [only] => Err(only.to_string()),
            _ => {
                let all: Vec<String> = errors.iter().map(FieldError::to_string).collect();
                Err(format!("[{}]", all.join(", ")))
            }
        }
    }

    /// What the first rule that matches says.
    pub(super) fn wants(&self, info: &RequestInfo, user: &UserInfo) -> Wanted {
        let rule = self.0.iter().find(|rule| rule.matches(info, user));
        rule.map(|rule| rule.wanted.clone()).unwrap_or_default()
    }
}

impl Written {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = check_stages(&self.omit_stages, &Path::new("omitStages"));
        let rules = Path::new("rules");
        for (at, rule) in self.rules.iter().enumerate() {
            errors.extend(rule.check(&rules.index(at)));
        }
        errors
    }

    fn into_policy(self) -> Policy {
        let rules = self.rules.into_iter().map(|rule| {
            let stages = self.omit_stages.iter().chain(&rule.omit_stages);
            let wanted = Wanted {
                level: named(&Level::ALL, &rule.level).unwrap_or_default(),
                omit_stages: stages.filter_map(|stage| named(&Stage::ALL, stage)).collect(),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            };
            let WrittenRule { users, user_groups, verbs, resources, namespaces, non_resource_urls, .. } =
                rule;
            Rule { wanted, users, user_groups, verbs, resources, namespaces, non_resource_urls }
        });
        Policy(rules.collect())
    }
}

impl WrittenRule {
    fn check(&self, path: &Path) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let level = path.child("level");
        if self.level.is_empty() {
            errors.push(FieldError::required(level, ""));
        } else if named(&Level::ALL, &self.level).is_none() {
            let words = Level::ALL.map(|(word, _)| word);
            errors.push(FieldError::not_supported(level, self.level.as_str(), &words));
        }
        let urls = path.child("nonResourceURLs");
        for (at, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            let mut wrong = |why: &str| errors.push(FieldError::invalid(urls.index(at), url.as_str(), why));
            if !url.starts_with('/') {
                wrong("non-resource URL rules must begin with a '/' character");
            }
            let mut all_but_last = url.chars();
            all_but_last.next_back();
            if all_but_last.as_str().contains('*') {
                wrong("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        errors.extend(self.resources.iter().flat_map(|one| one.check(&path.child("resources"))));
        errors.extend(check_stages(&self.omit_stages, &path.child("omitStages")));
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(urls, self.non_resource_urls.clone(), why));
        }
        errors
    }
}

fn check_stages(stages: &[String], path: &Path) -> Vec<FieldError> {
    let wrong = stages.iter().enumerate().filter(|(_, stage)| named(&Stage::ALL, stage).is_none());
    let allowed = format!("allowed stages are {}", Stage::ALL.map(|(word, _)| word).join(","));
    wrong.map(|(at, stage)| FieldError::invalid(path.index(at), stage.as_str(), allowed.as_str())).collect()
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
    fn check(&self, path: &Path) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !self.group.is_empty() && self.group != "*" {
            let flaws = dns1123_subdomain(&self.group);
            if !flaws.is_empty() {
                errors.push(FieldError::invalid(path.child("group"), self.group.as_str(), flaws.join(",")));
            }
        }
        if !self.resource_names.is_empty() && self.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(path.child("resourceNames"), self.resource_names.clone(), why));
        }
        errors
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != info.group && self.group != "*" {
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
