//! What is wrong with the expressions of policies and webhooks, said when they are written.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compiled::{Compiled, compile, given, mutation_member, variables};
use super::environment::Given;
use crate::cel::Type;
use crate::meta::ObjectExt;
use crate::validate::FieldError;

/// Compiles the expression at a path, which must answer one of these types. Fails to say so.
fn must_be(path: &str, text: &str, given: &Given, wanted: &[Type]) -> Option<FieldError> {
    if text.trim().is_empty() {
        return None;
    }
    let why = match compile(text, given) {
        Err(why) => why,
        Ok(program) if wanted.is_empty() || wanted.contains(&program.ty) => return None,
        Ok(program) => match wanted {
            [only] => format!("must evaluate to {only} but got {}", program.ty),
            all => {
                let words: Vec<String> = all.iter().map(ToString::to_string).collect();
                format!("must evaluate to one of [{}] but got {}", words.join(" "), program.ty)
            }
        },
    };
    Some(FieldError::invalid(path, text, why))
}

/// Everything wrong with the conditions of `owner`, which stands at `path`.
fn conditions(owner: &Value, path: &str, given: &Given, errors: &mut Vec<FieldError>) {
    for (at, condition) in owner.array_at("/matchConditions").iter().enumerate() {
        let text = condition.text("expression").unwrap_or_default();
        let path = format!("{path}.matchConditions[{at}].expression");
        errors.extend(must_be(&path, text, given, &[Type::Bool]));
    }
}

/// Everything wrong with the conditions of a configuration's webhooks. What an update leaves as it was is not looked at.
pub fn condition_problems(configuration: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let known: BTreeSet<&str> = old
        .into_iter()
        .flat_map(|old| old.array_at("/webhooks"))
        .flat_map(|hook| hook.array_at("/matchConditions"))
        .filter_map(|condition| condition.text("expression"))
        .collect();
    let given = Given { authorizer: true, ..Given::default() };
    let mut errors = Vec::new();
    for (at, hook) in configuration.array_at("/webhooks").iter().enumerate() {
        let fresh =
            |condition: &&Value| condition.text("expression").is_none_or(|text| !known.contains(text));
        if hook.array_at("/matchConditions").iter().any(|condition| fresh(&condition)) {
            conditions(hook, &format!("webhooks[{at}]"), &given, &mut errors);
        }
    }
    errors
}

/// Everything wrong with the expressions of a policy.
pub fn policy_problems(policy: &Value, old: Option<&Value>, mutating: bool) -> Vec<FieldError> {
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    if old.is_some_and(|old| old.get("spec") == Some(spec)) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let mut given = given(spec, mutating);
    conditions(spec, "spec", &Given { makes: false, ..given.clone() }, &mut errors);
    for (at, (_, program)) in variables(spec, &mut given).iter().enumerate() {
        let text = spec.array_at("/variables")[at].text("expression").unwrap_or_default();
        if let (Err(why), false) = (program as &Compiled, text.trim().is_empty()) {
            errors.push(FieldError::invalid(format!("spec.variables[{at}].expression"), text, why.clone()));
        }
    }
    let quiet = Given { authorizer: false, ..given.clone() };
    let mut check = |path: String, text: Option<&str>, given: &Given, wanted: &[Type]| {
        errors.extend(must_be(&path, text.unwrap_or_default(), given, wanted));
    };
    for (at, validation) in spec.array_at("/validations").iter().enumerate() {
        let path = format!("spec.validations[{at}]");
        check(format!("{path}.expression"), validation.text("expression"), &given, &[Type::Bool]);
        let said = validation.text("messageExpression");
        check(format!("{path}.messageExpression"), said, &quiet, &[Type::String]);
    }
    for (at, annotation) in spec.array_at("/auditAnnotations").iter().enumerate() {
        let path = format!("spec.auditAnnotations[{at}].valueExpression");
        check(path, annotation.text("valueExpression"), &quiet, &[Type::String, Type::Null]);
    }
    for (at, mutation) in spec.array_at("/mutations").iter().enumerate() {
        let (member, patches) = mutation_member(mutation);
        let text = mutation.get(member).and_then(|body| body.text("expression"));
        let path = format!("spec.mutations[{at}].{member}.expression");
        let named = |name: &str| Type::object(name, []);
        let wanted = if patches { Type::list(named("JSONPatch")) } else { named("Object") };
        check(path, text, &given, &[wanted]);
    }
    errors
}
