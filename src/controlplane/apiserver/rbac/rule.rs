//! One rule of a role, and the action that it may allow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One rule of a Role or ClusterRole (`rbac.authorization.k8s.io/v1` PolicyRule).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn nullable<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What somebody wants to do: the attributes that authorisation decides on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    pub is_resource: bool,
}

impl<'a> From<&'a crate::RequestInfo> for Action<'a> {
    fn from(info: &'a crate::RequestInfo) -> Self {
        Self {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            is_resource: info.is_resource,
        }
    }
}

impl Action<'_> {
    /// An action on a resource.
    pub fn on<'a>(
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Action<'a> {
        Action { verb, group, resource, namespace, name, is_resource: true, ..Action::default() }
    }
}

const ALL: &str = "*";

impl Rule {
    /// Whether the rule allows the action. Semantics of upstream's `RuleAllows`: `*` anywhere, `*/scale` for a
    /// subresource of everything, a path may end in `*`, and names restrict only where there are any.
    pub fn allows(&self, action: &Action<'_>) -> bool {
        if !matches(&self.verbs, action.verb) {
            return false;
        }
        if !action.is_resource {
            return self.non_resource_urls.iter().any(|pattern| url_matches(pattern, action.path));
        }
        matches(&self.api_groups, action.group)
            && self.resources.iter().any(|r| resource_matches(r, action.resource, action.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == action.name))
    }

    /// The rule taken apart into rules of one verb, one group, one resource, one name each.
    pub fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            let verbs = vec![verb.clone()];
            for url in &self.non_resource_urls {
                let non_resource_urls = vec![url.clone()];
                atoms.push(Rule { verbs: verbs.clone(), non_resource_urls, ..Rule::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let mut atom = Rule {
                        verbs: verbs.clone(),
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                        continue;
                    }
                    for name in &self.resource_names {
                        atom.resource_names = vec![name.clone()];
                        atoms.push(atom.clone());
                    }
                }
            }
        }
        atoms
    }

    /// Whether everything that `atom` allows is allowed by this rule.
    pub fn covers(&self, atom: &Rule) -> bool {
        let in_all = |own: &[String], asked: &[String]| {
            own.iter().any(|o| o == ALL) || asked.iter().all(|a| own.contains(a))
        };
        let resource_in = |asked: &String| {
            let (resource, subresource) = asked.split_once('/').unwrap_or((asked, ""));
            self.resources.iter().any(|own| own == asked || resource_matches(own, resource, subresource))
        };
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|name| self.resource_names.contains(name)));
        let url_in = |asked: &String| self.non_resource_urls.iter().any(|own| url_covers(own, asked));
        in_all(&self.verbs, &atom.verbs)
            && in_all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(resource_in)
            && names
            && atom.non_resource_urls.iter().all(url_in)
    }
}

/// As upstream prints rules in messages: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown = fields.iter().filter(|(_, values)| !values.is_empty());
        let shown: Vec<String> = shown.map(|(name, values)| format!("{name}:{}", quoted(values))).collect();
        write!(f, "{{{}}}", shown.join(", "))
    }
}

/// A list of strings as Go's `%q` prints it.
pub fn quoted(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn matches(own: &[String], asked: &str) -> bool {
    own.iter().any(|value| value == ALL || value == asked)
}

fn resource_matches(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    match own.split_once('/') {
        None => subresource.is_empty() && own == resource,
        Some((ALL, sub)) => !subresource.is_empty() && sub == subresource,
        Some((main, sub)) => !subresource.is_empty() && main == resource && sub == subresource,
    }
}

fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn url_covers(own: &str, asked: &str) -> bool {
    own == asked || (own.ends_with('*') && url_matches(own, asked.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(text: serde_json::Value) -> Rule {
        serde_json::from_value(text).unwrap()
    }

    fn check(rule: &Rule, action: &str, expect: bool) {
        let words: Vec<&str> = action.split(' ').collect();
        let action_of = match words[..] {
            [verb, path] => Action { verb, path, ..Action::default() },
            [verb, group, resource, name] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let group = group.trim_matches('-');
                Action { subresource, ..Action::on(verb, group, resource, "default", name.trim_matches('-')) }
            }
            _ => panic!("verb path, or verb group resource name"),
        };
        assert_eq!(rule.allows(&action_of), expect, "{rule} on {action}");
    }

    #[test]
    fn rules_match_as_upstream_does() {
        let pods =
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
        check(&pods, "get - pods web", true);
        check(&pods, "get - pods/log web", true);
        check(&pods, "get - pods/exec web", false);
        check(&pods, "delete - pods web", false);
        check(&pods, "get apps pods web", false);
        let named =
            rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]}));
        check(&named, "get apps deployments a", true);
        check(&named, "get apps deployments b", false);
        check(&named, "list apps deployments -", false);
        check(&named, "update apps deployments/scale a", true);
        let scales = rule(json!({"verbs": ["update"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        check(&scales, "update apps deployments/scale a", true);
        check(&scales, "update apps deployments a", false);
        let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/metrics/*"]}));
        check(&urls, "get /healthz", true);
        check(&urls, "get /metrics/pods", true);
        check(&urls, "get /metrics", false);
        check(&urls, "post /healthz", false);
    }

    #[test]
    fn covering_goes_by_atoms() {
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let wanted = rule(
            json!({"verbs": ["get", "watch"], "apiGroups": ["", "apps"], "resources": ["pods", "pods/log"], "resourceNames": ["x"]}),
        );
        assert_eq!(wanted.atoms().len(), 8);
        assert!(wanted.atoms().iter().all(|atom| all.covers(atom)));
        let some = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        assert_eq!(wanted.atoms().iter().filter(|atom| some.covers(atom)).count(), 1);
        assert!(!some.covers(&all.atoms()[0]));
        assert_eq!(some.to_string(), r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#);
    }
}
