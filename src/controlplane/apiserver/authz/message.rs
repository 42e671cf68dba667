//! What a refusal says.

use crate::rbac::Action;

/// What upstream says about an action that is not allowed: `User "jane" cannot list resource "pods" in API group "" in
/// the namespace "default"`.
pub fn sentence(user: &str, action: &Action<'_>) -> String {
    if !action.is_resource {
        return format!("User {user:?} cannot {} path {:?}", action.verb, action.path);
    }
    let separator = if action.subresource.is_empty() { "" } else { "/" };
    let resource = format!("{}{separator}{}", action.resource, action.subresource);
    let Action { verb, group, namespace, .. } = action;
    let place = match *namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_upstreams() {
        let on = Action::on("list", "apps", "deployments", "default", "");
        assert_eq!(
            sentence("x", &on),
            r#"User "x" cannot list resource "deployments" in API group "apps" in the namespace "default""#
        );
        let exec = Action { subresource: "exec", ..Action::on("create", "", "pods", "", "p") };
        assert_eq!(
            sentence("x", &exec),
            r#"User "x" cannot create resource "pods/exec" in API group "" at the cluster scope"#
        );
        let path = Action { verb: "get", path: "/metrics", ..Action::default() };
        assert_eq!(sentence("x", &path), r#"User "x" cannot get path "/metrics""#);
    }
}
