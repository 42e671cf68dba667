//! Nobody grants rights that they do not have.

use serde_json::Value;

use super::{Attributes, Context, Operation, Plugin};
use crate::authz::{self, Action, RoleRef, Rule};
use crate::user::UserInfo;
use api::meta::ObjectExt;
use api::status::ApiError;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Nobody grants what they do not have: writing a role needs all its rights or `escalate`, writing a binding all rights
/// of the role or `bind`. (Upstream has this in the storage of these resources.)
pub(super) struct RbacEscalation;

impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !write || attributes.group != GROUP || attributes.user.in_group(UserInfo::MASTERS) {
            return Ok(());
        }
        let Some(object) = &attributes.object else { return Ok(()) };
        match attributes.resource {
            "roles" | "clusterroles" => check_role(attributes, context, object),
            "rolebindings" | "clusterrolebindings" => check_binding(attributes, context, object),
            _ => Ok(()),
        }
    }
}

fn check_role(attributes: &Attributes<'_>, context: &Context<'_>, role: &Value) -> Result<(), ApiError> {
    let same = |field: &str| attributes.old.is_some_and(|old| old.get(field) == role.get(field));
    if same("rules") && same("aggregationRule") {
        return Ok(());
    }
    let (user, namespace) = (attributes.user, attributes.namespace);
    let escalate = Action::on("escalate", GROUP, attributes.resource, namespace, attributes.object_name());
    if context.may(user, &escalate) {
        return Ok(());
    }
    let mut wanted = authz::rules(role).to_vec();
    if role.get("aggregationRule").is_some_and(|rule| !rule.is_null()) && !same("aggregationRule") {
        // What an aggregate will collect is not known yet, so its author must have everything.
        let every = || vec!["*".to_owned()];
        wanted.push(Rule { verbs: every(), api_groups: every(), resources: every(), ..Rule::default() });
        wanted.push(Rule { verbs: every(), non_resource_urls: every(), ..Rule::default() });
    }
    confirm(attributes, context, namespace, &wanted)
}

fn check_binding(
    attributes: &Attributes<'_>,
    context: &Context<'_>,
    binding: &Value,
) -> Result<(), ApiError> {
    let same = |field: &str| attributes.old.is_some_and(|old| old.get(field) == binding.get(field));
    if same("roleRef") && same("subjects") {
        return Ok(());
    }
    let reference = binding.get("roleRef").cloned().unwrap_or_default();
    let role: RoleRef = serde_json::from_value(reference).unwrap_or_default();
    let (user, namespace) = (attributes.user, attributes.namespace);
    let roles = if role.kind == "Role" { "roles" } else { "clusterroles" };
    if context.may(user, &Action::on("bind", GROUP, roles, namespace, &role.name)) {
        return Ok(());
    }
    let Some(wanted) = context.known.rbac.role_rules(&role, namespace) else {
        return Err(ApiError::not_found(GROUP, roles, &role.name));
    };
    confirm(attributes, context, namespace, wanted)
}

/// Refuses unless the user's own rules cover every atom of `wanted`.
fn confirm(
    attributes: &Attributes<'_>,
    context: &Context<'_>,
    namespace: &str,
    wanted: &[Rule],
) -> Result<(), ApiError> {
    let user = attributes.user;
    let own = authz::rules_for(&context.known.rbac, user, namespace);
    let atoms = wanted.iter().flat_map(Rule::atoms);
    let missing: Vec<Rule> = atoms.filter(|atom| !own.iter().any(|rule| rule.covers(atom))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = compact(missing).iter().map(Rule::to_string).collect();
    lines.sort();
    let why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        authz::quoted(&user.groups),
        lines.join("\n")
    );
    let name = attributes.object.as_ref().map(|object| object.name()).unwrap_or_default();
    Err(ApiError::forbidden(attributes.group, attributes.resource, name, &why))
}

/// Atoms on the same things put together again, so that each thing is said once with all its verbs.
fn compact(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for atom in atoms {
        let same = |rule: &Rule| {
            Rule { verbs: Vec::new(), ..rule.clone() } == Rule { verbs: Vec::new(), ..atom.clone() }
        };
        match rules.iter_mut().find(|rule| same(rule)) {
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => rules.push(atom),
        }
    }
    rules
}
