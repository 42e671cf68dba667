//! A policy, compiled once for each version of it.

use serde_json::Value;

use super::conditions::Conditions;
use super::environment::{Given, environment};
use crate::cel::{Program, Type};
use crate::meta::ObjectExt;

/// An expression, or why it is none. The server refuses policies with expressions that are none; those that were stored before
/// tell so when they are asked.
pub type Compiled = Result<Program, String>;

/// A validation.
#[derive(Debug)]
pub struct Validation {
    pub text: String,
    pub program: Compiled,
    pub message: String,
    pub message_program: Option<Compiled>,
    pub reason: String,
}

/// An annotation of the audit log.
#[derive(Debug)]
pub struct Annotation {
    pub key: String,
    pub text: String,
    pub program: Compiled,
}

/// A mutation.
#[derive(Debug)]
pub struct Mutation {
    /// Whether it is a list of JSON patches; else a configuration that is applied.
    pub patches: bool,
    pub text: String,
    pub program: Compiled,
}

/// A ValidatingAdmissionPolicy or MutatingAdmissionPolicy.
#[derive(Debug)]
pub struct Policy {
    pub conditions: Conditions,
    pub variables: Vec<(String, Compiled)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<Annotation>,
    pub mutations: Vec<Mutation>,
}

/// Variables in their order, each knowing those before it; the environment of everything else knows all.
pub fn variables(spec: &Value, given: &mut Given) -> Vec<(String, Compiled)> {
    given.variables.get_or_insert_default();
    let mut compiled = Vec::new();
    for variable in spec.array_at("/variables") {
        let name = variable.text("name").unwrap_or_default().to_owned();
        let program = compile(variable.text("expression").unwrap_or_default(), given);
        let ty = program.as_ref().map_or(Type::Dyn, |program| program.ty.clone());
        given.variables.get_or_insert_default().push((name.clone(), ty));
        compiled.push((name, program));
    }
    compiled
}

/// Compiles one expression.
pub fn compile(text: &str, given: &Given) -> Compiled {
    environment(given).compile(text).map_err(|issues| format!("compilation failed: {issues}"))
}

/// What the expressions of a policy may name, its own variables aside.
pub fn given(spec: &Value, mutating: bool) -> Given {
    let params = spec.get("paramKind").is_some_and(Value::is_object);
    Given { params, authorizer: true, makes: mutating, ..Given::default() }
}

/// Where a mutation's expression stands: below which member, and in which language.
pub fn mutation_member(mutation: &Value) -> (&'static str, bool) {
    match mutation.text("patchType") {
        Some("JSONPatch") => ("jsonPatch", true),
        _ => ("applyConfiguration", false),
    }
}

impl Policy {
    /// Compiles a policy.
    pub fn of(policy: &Value, mutating: bool) -> Self {
        let spec = policy.get("spec").unwrap_or(&Value::Null);
        let mut given = given(spec, mutating);
        let conditions = Conditions::of(spec, &Given { makes: false, ..given.clone() });
        let variables = variables(spec, &mut given);
        let own = |member: &Value, key: &str| member.text(key).unwrap_or_default().to_owned();
        // Messages and annotations ask for no rights.
        let quiet = Given { authorizer: false, ..given.clone() };
        let validations = spec.array_at("/validations").iter().map(|validation| {
            let text = own(validation, "expression");
            let said = own(validation, "messageExpression");
            Validation {
                program: compile(&text, &given),
                text,
                message: own(validation, "message"),
                message_program: (!said.is_empty()).then(|| compile(&said, &quiet)),
                reason: own(validation, "reason"),
            }
        });
        let annotations = spec.array_at("/auditAnnotations").iter().map(|annotation| {
            let text = own(annotation, "valueExpression");
            Annotation { key: own(annotation, "key"), program: compile(&text, &quiet), text }
        });
        let mutations = spec.array_at("/mutations").iter().map(|mutation| {
            let (member, patches) = mutation_member(mutation);
            let text = own(mutation.get(member).unwrap_or(&Value::Null), "expression");
            Mutation { patches, program: compile(&text, &given), text }
        });
        Self {
            conditions,
            validations: validations.collect(),
            annotations: annotations.collect(),
            mutations: mutations.collect(),
            variables,
        }
    }
}
