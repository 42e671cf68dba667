//! One rule of a schema, compiled. Rule: `x-kubernetes-validations`.

use std::sync::Arc;

use serde_json::Value;

use super::compile::Structural;
use super::field_path::field_path;
use crate::cel::{Declared, Environment, Program, Type, Variable};
use crate::meta::ObjectExt;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    pub program: Program,
    /// What says why it does not hold.
    pub message_program: Option<Program>,
    /// The text of the message, or else of the rule.
    pub shown: String,
    /// What is said if no expression says it.
    pub message: String,
    pub reason: Option<String>,
    /// The field it is about, relative to the schema's own path.
    pub field: String,
    /// Whether it is evaluated though nothing stood before.
    pub optional_old: bool,
}

/// Why a rule cannot be compiled: which of its members is wrong, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleError {
    pub member: &'static str,
    pub why: String,
}

impl Rule {
    /// Compiles a rule of a schema of which `declared` is known; `None` for one that says nothing.
    pub fn compile(
        rule: &Value,
        schema: &Structural,
        declared: &Arc<Declared>,
    ) -> Result<Option<Self>, RuleError> {
        let text = rule.text("rule").unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(None);
        }
        let optional_old = rule.bool_at("/optionalOldSelf") == Some(true);
        let own = Variable::declared("self", Arc::clone(declared));
        let old = match optional_old {
            true => Variable::optional("oldSelf", Arc::clone(declared)),
            false => Variable::declared("oldSelf", Arc::clone(declared)),
        };
        let environment = Environment::new(vec![own, old]);
        let refused = |why: String| RuleError { member: "rule", why };
        let program =
            environment.compile(text).map_err(|issues| refused(format!("compilation failed: {issues}")))?;
        if program.ty != Type::Bool {
            return Err(refused("cel expression must evaluate to a bool".to_owned()));
        }
        let message_program = match rule.text("messageExpression").unwrap_or_default() {
            "" => None,
            text => {
                let refused = |why: String| RuleError { member: "messageExpression", why };
                let compiled = environment.compile(text);
                let compiled = compiled
                    .map_err(|issues| refused(format!("messageExpression compilation failed: {issues}")))?;
                if compiled.ty != Type::String {
                    return Err(refused("messageExpression must evaluate to a string".to_owned()));
                }
                Some(compiled)
            }
        };
        let said = rule.text("message").unwrap_or_default().trim();
        let shown = if said.is_empty() { text.trim() } else { said }.to_owned();
        let message = if said.is_empty() { format!("failed rule: {shown}") } else { said.to_owned() };
        let field = field_path(rule.text("fieldPath").unwrap_or_default(), schema).unwrap_or_default();
        let reason = rule.text("reason").map(str::to_owned);
        Ok(Some(Self { program, message_program, shown, message, reason, field, optional_old }))
    }

    /// Whether it compares with what stood before.
    pub fn is_transition(&self) -> bool {
        self.program.uses("oldSelf")
    }
}
