//! Conditions under which a webhook or policy looks at a write. Rule: `matchconditions.Matcher`.

use serde_json::Value;

use super::environment::{Given, environment};
use super::evaluate::Evaluation;
use crate::cel::{Budget, Program, Val};
use crate::meta::ObjectExt;

/// All conditions of one may cost so much together. Rule: `RuntimeCELCostBudgetMatchConditions`.
const LIMIT: u64 = 2_500_000;

/// Whether conditions hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched {
    Yes,
    /// The first that does not, by its name.
    No(String),
    Failed(String),
}

/// The conditions of a webhook or policy.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    name: String,
    text: String,
    program: Result<Program, String>,
}

impl Conditions {
    /// Compiles what stands in `matchConditions` of `owner`.
    pub fn of(owner: &Value, given: &Given) -> Self {
        let conditions = owner.array_at("/matchConditions");
        if conditions.is_empty() {
            return Self::default();
        }
        let environment = environment(given);
        let compiled = conditions.iter().map(|condition| {
            let text = condition.text("expression").unwrap_or_default().to_owned();
            let program =
                environment.compile(&text).map_err(|issues| format!("compilation failed: {issues}"));
            Condition { name: condition.text("name").unwrap_or_default().to_owned(), text, program }
        });
        Self(compiled.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not decides, even if others cannot be evaluated.
    pub fn hold<'a>(&'a self, evaluation: &Evaluation<'a>) -> Matched {
        let mut budget = Budget::new(LIMIT);
        let mut failed = Vec::new();
        for Condition { name, text, program } in &self.0 {
            let value = match program {
                Ok(program) => {
                    program.run(evaluation.globals(), &mut budget).map_err(|fault| fault.to_string())
                }
                Err(why) => Err(why.clone()),
            };
            match value {
                Ok(Val::Bool(true)) => {}
                Ok(_) => return Matched::No(name.clone()),
                Err(why) => failed.push(format!("expression '{text}' resulted in error: {why}")),
            }
        }
        match failed.len() {
            0 => Matched::Yes,
            1 => Matched::Failed(failed.remove(0)),
            _ => Matched::Failed(format!("[{}]", failed.join(", "))),
        }
    }
}
