//! What a policy says of one write.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use serde_json::Value;

use super::compiled::{Compiled, Policy};
use super::environment::{NAMESPACE, REQUEST, place};
use crate::cel::{
    Authorization, Authorize, Budget, CALL_LIMIT, Fault, Map, Members, OBJECT_LIMIT, Question, Val,
};

/// What an expression says is no longer, in bytes.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// What expressions may look at.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub request: &'a Value,
    pub namespace: Option<&'a Value>,
    pub params: Option<&'a Value>,
    pub authorizer: &'a dyn Authorize,
}

/// The variables of one evaluation, and what it may still cost.
pub struct Evaluation<'a> {
    globals: Vec<Option<Val<'a>>>,
    budget: Budget,
}

/// What became of a validation.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    Denied {
        message: String,
        reason: String,
    },
    /// It could not be evaluated; the policy says what that means.
    Failed(String),
}

/// What a policy says of a write.
#[derive(Debug, Default)]
pub struct Decision {
    pub verdicts: Vec<Verdict>,
    pub annotations: Vec<(String, Result<String, String>)>,
}

/// What a mutation asks for.
#[derive(Debug, PartialEq)]
pub enum Change {
    Apply(Value),
    Patch(json_patch::Patch),
}

impl<'a> Evaluation<'a> {
    /// The variables of a write, without those of a policy.
    pub fn new(inputs: Inputs<'a>) -> Self {
        let dynamic = |value: Option<&'a Value>| Some(value.map_or(Val::Null, Val::dynamic));
        let declared = |value: Option<&'a Value>, as_is| match value {
            Some(value) => Val::declared(value, Some(as_is)).ok(),
            None => Some(Val::Null),
        };
        let mut globals = vec![None; place::COUNT];
        globals[place::OBJECT] = dynamic(inputs.object);
        globals[place::OLD] = dynamic(inputs.old);
        globals[place::REQUEST] = declared(Some(inputs.request), &**REQUEST);
        globals[place::NAMESPACE] = declared(inputs.namespace, &**NAMESPACE);
        globals[place::PARAMS] = dynamic(inputs.params);
        globals[place::AUTHORIZER] = Some(Authorization::authorizer(inputs.authorizer));
        globals[place::RESOURCE] = Some(Authorization::resource(inputs.authorizer, asked(inputs.request)));
        Self { globals, budget: Budget::new(OBJECT_LIMIT) }
    }

    pub(super) fn globals(&self) -> &[Option<Val<'a>>] {
        &self.globals
    }

    /// Gives the variables of a policy.
    #[must_use]
    pub fn with(mut self, policy: &'a Policy) -> Self {
        if !policy.variables.is_empty() {
            let lazy = Rc::new_cyclic(|own| Variables {
                policy,
                globals: self.globals.clone(),
                made: RefCell::default(),
                own: Weak::clone(own),
            });
            self.globals[place::VARIABLES] = Some(Val::Map(Map::Lazy(lazy)));
        }
        self
    }

    fn run(&mut self, program: &'a Compiled, text: &str) -> Result<Val<'a>, String> {
        let program = program.as_ref().map_err(|why| format!("compilation error: {why}"))?;
        program.run(&self.globals, &mut self.budget).map_err(|fault| match fault {
            Fault::Exhausted if self.budget.left() < CALL_LIMIT => {
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .to_owned()
            }
            fault => format!("expression '{text}' resulted in error: {fault}"),
        })
    }

    /// What the policy's validations and annotations say.
    pub fn decide(&mut self, policy: &'a Policy) -> Decision {
        let mut decision = Decision::default();
        for validation in &policy.validations {
            let verdict = match self.run(&validation.program, &validation.text) {
                Err(why) => Verdict::Failed(why),
                Ok(Val::Bool(true)) => Verdict::Admitted,
                Ok(_) => {
                    let said = validation.message_program.as_ref();
                    let said = said.and_then(|said| line(&self.run(said, "").ok()?));
                    let own = validation.message.trim();
                    let message = said.unwrap_or_else(|| match own {
                        "" => format!("failed expression: {}", validation.text.trim()),
                        own => own.to_owned(),
                    });
                    Verdict::Denied { message, reason: validation.reason.clone() }
                }
            };
            decision.verdicts.push(verdict);
        }
        self.budget = Budget::new(OBJECT_LIMIT);
        for annotation in &policy.annotations {
            let value = match self.run(&annotation.program, &annotation.text) {
                Err(why) => Err(why),
                Ok(Val::Null) => continue,
                Ok(Val::Str(text)) if text.trim().is_empty() => continue,
                Ok(Val::Str(text)) => Ok(text.trim().to_owned()),
                Ok(other) => Err(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    annotation.text,
                    other.type_name()
                )),
            };
            decision.annotations.push((annotation.key.clone(), value));
        }
        decision
    }

    /// What a mutation of the policy asks for. Fails as its evaluation does, or when its answer is no change of an object.
    pub fn change(&mut self, policy: &'a Policy, at: usize) -> Result<Change, String> {
        let mutation = &policy.mutations[at];
        let made = self.run(&mutation.program, &mutation.text)?;
        let json = made.to_json().map_err(|fault| fault.to_string())?;
        match mutation.patches {
            false => Ok(Change::Apply(json)),
            true => serde_json::from_value(json)
                .map(Change::Patch)
                .map_err(|error| format!("invalid JSON patch: {error}")),
        }
    }
}

/// A message that is one line.
fn line(value: &Val<'_>) -> Option<String> {
    let Val::Str(text) = value else { return None };
    let text = text.trim();
    (!text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n')).then(|| text.to_owned())
}

/// The question whether the user may do something with what the request is about.
fn asked(request: &Value) -> Question {
    let text =
        |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Question {
        group: text("/resource/group"),
        resource: text("/resource/resource"),
        subresource: text("/subResource"),
        namespace: text("/namespace"),
        name: text("/name"),
        ..Question::default()
    }
}

/// The variables of a policy, each evaluated when it is first asked for.
struct Variables<'a> {
    policy: &'a Policy,
    globals: Vec<Option<Val<'a>>>,
    made: RefCell<BTreeMap<String, Result<Val<'a>, Fault>>>,
    own: Weak<Variables<'a>>,
}

impl std::fmt::Debug for Variables<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.policy.variables.iter().map(|(name, _)| name)).finish()
    }
}

impl<'a> Members<'a> for Variables<'a> {
    fn member(&self, name: &str, budget: &mut Budget) -> Result<Option<Val<'a>>, Fault> {
        if let Some(made) = self.made.borrow().get(name) {
            return made.clone().map(Some);
        }
        let Some((_, program)) = self.policy.variables.iter().find(|(own, _)| own == name) else {
            return Ok(None);
        };
        let failed =
            |why: String| Fault::new(format!("composited variable {name:?} fails to evaluate: {why}"));
        let made = match program {
            Err(why) => Err(Fault::new(format!("composited variable {name:?} fails to compile: {why}"))),
            Ok(program) => {
                let mut globals = self.globals.clone();
                globals[place::VARIABLES] = self.own.upgrade().map(|own| Val::Map(Map::Lazy(own)));
                program.run(&globals, budget).map_err(|fault| match fault {
                    Fault::Exhausted => Fault::Exhausted,
                    Fault::Error(why) => failed(why.into_owned()),
                })
            }
        };
        self.made.borrow_mut().insert(name.to_owned(), made.clone());
        made.map(Some)
    }
}
