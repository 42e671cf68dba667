//! Access reviews: may somebody do something.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Reviews;
use crate::authz::{Action, Rule};
use crate::user::UserInfo;
use api::meta::ObjectExt;
use api::status::ApiError;
use api::validate::FieldError;

const GROUP: &str = "authorization.k8s.io";

/// Whom a review by somebody else is about.
pub(super) fn subject(kind: &str, review: &Value) -> Result<UserInfo, ApiError> {
    let strings = |field: &str| -> Vec<String> {
        review.array_at(field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |field: &str| review.str_at(field).unwrap_or_default().to_owned();
    let extra = review.pointer("/spec/extra").cloned().unwrap_or_default();
    let user = UserInfo {
        name: text("/spec/user"),
        uid: text("/spec/uid"),
        groups: strings("/spec/groups"),
        extra: serde_json::from_value::<BTreeMap<String, Vec<String>>>(extra).unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(ApiError::invalid(GROUP, kind, "", vec![FieldError::invalid("spec.user", "", why)]));
    }
    Ok(user)
}

/// A local review is about its own namespace.
pub(super) fn check_namespace(review: &Value, namespace: &str) -> Result<(), ApiError> {
    let asked = review.str_at("/spec/resourceAttributes/namespace").unwrap_or_default();
    if asked == namespace {
        return Ok(());
    }
    let why = "must match metadata.namespace";
    let error = FieldError::invalid("spec.resourceAttributes.namespace", asked, why);
    Err(ApiError::invalid(GROUP, "LocalSubjectAccessReview", "", vec![error]))
}

/// What is wrong with the selectors of a review. The rules do not look at them: what a user may do without, they may do with one.
/// Rule: `ValidateFieldSelectorRequirement` and its like.
fn selector_errors(review: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for kind in ["fieldSelector", "labelSelector"] {
        let Some(selector) = review.map_at(&format!("/spec/resourceAttributes/{kind}")) else { continue };
        let path = format!("spec.resourceAttributes.{kind}");
        let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or_default();
        let requirements = selector.get("requirements").and_then(Value::as_array);
        let requirements = requirements.map(Vec::as_slice).unwrap_or_default();
        match (raw.is_empty(), requirements.is_empty()) {
            (true, true) => {
                let why = format!("when {path} is specified, requirements or rawSelector is required");
                errors.push(FieldError::required(format!("{path}.requirements"), &why));
            }
            (false, false) => {
                let why = "may not specified at the same time as requirements";
                errors.push(FieldError::invalid(format!("{path}.rawSelector"), raw, why));
            }
            _ => {}
        }
        for (at, requirement) in requirements.iter().enumerate() {
            requirement_errors(&format!("{path}.requirements[{at}]"), requirement, &mut errors);
        }
    }
    errors
}

fn requirement_errors(path: &str, requirement: &Value, errors: &mut Vec<FieldError>) {
    if requirement.str_at("/key").unwrap_or_default().is_empty() {
        errors.push(FieldError::required(format!("{path}.key"), "must be specified"));
    }
    let values = format!("{path}.values");
    let none = requirement.array_at("/values").is_empty();
    match requirement.str_at("/operator").unwrap_or_default() {
        operator @ ("In" | "NotIn") if none => {
            let why = format!("must be specified when `operator` is '{operator}'");
            errors.push(FieldError::required(values, &why));
        }
        operator @ ("Exists" | "DoesNotExist") if !none => {
            let why = format!("may not be specified when `operator` is '{operator}'");
            errors.push(FieldError::forbidden(values, &why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            let why = "not a valid selector operator";
            errors.push(FieldError::invalid(format!("{path}.operator"), other, why));
        }
    }
}

/// What a review asks about.
fn action(review: &Value) -> Option<Action<'_>> {
    let text = |field: &str| review.str_at(field).unwrap_or_default();
    match (review.map_at("/spec/resourceAttributes"), review.map_at("/spec/nonResourceAttributes")) {
        (Some(_), None) => Some(Action {
            verb: text("/spec/resourceAttributes/verb"),
            group: text("/spec/resourceAttributes/group"),
            resource: text("/spec/resourceAttributes/resource"),
            subresource: text("/spec/resourceAttributes/subresource"),
            namespace: text("/spec/resourceAttributes/namespace"),
            name: text("/spec/resourceAttributes/name"),
            path: "",
            is_resource: true,
        }),
        (None, Some(_)) => Some(Action {
            verb: text("/spec/nonResourceAttributes/verb"),
            path: text("/spec/nonResourceAttributes/path"),
            ..Action::default()
        }),
        _ => None,
    }
}

impl Reviews {
    /// May `user` do what the review asks about?
    pub(super) async fn access_review(&self, user: UserInfo, mut review: Value) -> Result<Value, ApiError> {
        let Some(action) = action(&review) else {
            let error = match review.pointer("/spec/nonResourceAttributes").filter(|said| !said.is_null()) {
                Some(both) => FieldError::invalid(
                    "spec.nonResourceAttributes",
                    both.clone(),
                    "cannot be specified in combination with resourceAttributes",
                ),
                None => FieldError::invalid(
                    "spec.resourceAttributes",
                    Value::Null,
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified",
                ),
            };
            let kind = review.str_at("/kind").unwrap_or_default();
            return Err(ApiError::invalid(GROUP, kind, "", vec![error]));
        };
        let errors = selector_errors(&review);
        if !errors.is_empty() {
            return Err(ApiError::invalid(GROUP, review.str_at("/kind").unwrap_or_default(), "", errors));
        }
        let decision = self.authorizer.decide(&user, &action).await;
        let mut status = json!({"allowed": decision.allowed});
        if !decision.reason.is_empty() {
            status["reason"] = decision.reason.into();
        }
        review["status"] = status;
        Ok(review)
    }

    /// What may `user` do in a namespace?
    pub(super) async fn rules_review(&self, user: &UserInfo, mut review: Value) -> Result<Value, ApiError> {
        let namespace = review.str_at("/spec/namespace").unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let rules = self.authorizer.rules(user, namespace).await;
        let (paths, resources): (Vec<Rule>, Vec<Rule>) =
            rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let resources: Vec<Value> = resources
            .into_iter()
            .map(|rule| {
                let mut value =
                    json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
                if !rule.resource_names.is_empty() {
                    value["resourceNames"] = json!(rule.resource_names);
                }
                value
            })
            .collect();
        let paths: Vec<Value> = paths
            .into_iter()
            .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
            .collect();
        review["status"] =
            json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
        Ok(review)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_is_about_one_thing() {
        let on =
            json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}}});
        assert_eq!(action(&on), Some(Action::on("get", "", "pods", "a", "")));
        let both = json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}});
        assert_eq!(action(&both), None);
        let selecting = |selector: Value| {
            let review = json!({"spec": {"resourceAttributes": {"labelSelector": selector}}});
            selector_errors(&review).len()
        };
        assert_eq!(selecting(json!({"rawSelector": "a=b"})), 0);
        assert_eq!(selecting(json!({"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]})), 0);
        assert_eq!(selecting(json!({})), 1);
        let wrong = json!({"requirements": [{"operator": "Exists", "values": ["b"]}, {"key": "a", "operator": "Gt"}]});
        assert_eq!(selecting(wrong), 3);
        assert!(check_namespace(&on, "a").is_ok() && check_namespace(&on, "b").is_err());
        assert!(subject("SubjectAccessReview", &on).is_err());
    }
}
