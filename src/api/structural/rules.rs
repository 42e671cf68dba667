//! The rules of a schema, and whether an object keeps them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::check::earlier;
use super::compile::{Additional, Structural};
use super::declare::declare;
use super::rule::Rule;
use crate::cel::{Budget, Declared, Fault, OBJECT_LIMIT, Val};
use crate::validate::{FieldError, FieldErrorKind};

/// What an expression says of an object is no longer, in bytes.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// The rules at one place of a schema, and of the places below it.
#[derive(Debug, Default)]
pub struct Rules {
    declared: Option<Arc<Declared>>,
    /// Whether values are objects or lists, which errors do not show.
    large: bool,
    word: &'static str,
    own: Vec<Rule>,
    /// Rules that cannot be compiled; definitions are checked before, so this is of one that was stored by another release.
    broken: Vec<String>,
    properties: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    /// Rules of the same value that stand below `allOf`.
    all_of: Vec<Rules>,
}

/// What rules say of an object.
#[derive(Debug, Default)]
pub struct Outcome {
    pub errors: Vec<FieldError>,
    /// What is wrong with parts that are as they were.
    pub warnings: Vec<String>,
}

/// A value, and what stood there before.
#[derive(Clone, Copy)]
struct Spot<'v> {
    value: &'v Value,
    old: Option<&'v Value>,
    /// Of the nearest value above that has a counterpart before: whether it changed.
    unchanged: bool,
}

impl<'v> Spot<'v> {
    fn below(self, value: &'v Value, old: Option<&'v Value>) -> Self {
        let unchanged = match self.old {
            Some(before) => before == self.value,
            None => self.unchanged,
        };
        Spot { value, old, unchanged }
    }

    /// Whether it is as it was, so that it may be as wrong as it was.
    fn is_kept(self) -> bool {
        self.old.map_or(self.unchanged, |old| old == self.value)
    }
}

/// The path of the object itself has no words.
fn shown_path(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

struct Run {
    budget: Budget,
    outcome: Outcome,
}

impl Rules {
    /// The rules of a schema; `None` if it has none.
    pub fn of(schema: &Structural) -> Option<Self> {
        if !schema.has_rules() {
            return None;
        }
        let declared = declare(schema, true, "self")?;
        let rules = Self::at(schema, schema, Some(&declared));
        rules.has_any().then_some(rules)
    }

    /// `says`: the schema whose rules these are; `schema`: the one of the values. They differ below `allOf`.
    fn at(says: &Structural, schema: &Structural, declared: Option<&Declared>) -> Self {
        let mut rules = Self {
            large: matches!(schema.kind, Some(super::JsonType::Object | super::JsonType::Array)),
            word: schema.kind.map_or("", super::JsonType::word),
            ..Self::default()
        };
        let Some(declared) = declared else { return rules };
        if !says.rules.is_empty() {
            let declared = Arc::new(declared.clone());
            for rule in &says.rules {
                match Rule::compile(rule, schema, &declared) {
                    Ok(rule) => rules.own.extend(rule),
                    Err(error) => rules.broken.push(error.why),
                }
            }
            rules.declared = Some(declared);
        }
        for (name, inner) in says.properties.iter().filter(|(_, inner)| inner.has_rules()) {
            let Some(below) = schema.properties.get(name) else { continue };
            let known = crate::cel::escape(name).and_then(|name| declared.fields.get(&name));
            let whole = || declare(below, below.embedded, name);
            let known = known.map(|(_, known)| known.clone()).or_else(whole);
            let inner = Self::at(inner, below, known.as_ref());
            if inner.has_any() {
                rules.properties.insert(name.clone(), inner);
            }
        }
        let inner = declared.inner.as_deref();
        if let (Additional::Of(says), Additional::Of(below)) = (&says.additional, &schema.additional) {
            rules.values = Some(Box::new(Self::at(says, below, inner))).filter(|rules| rules.has_any());
        }
        if let (Some(says), Some(below)) = (&says.items, &schema.items) {
            rules.items = Some(Box::new(Self::at(says, below, inner))).filter(|rules| rules.has_any());
        }
        let all_of = says.all_of.iter().map(|says| Self::at(says, schema, Some(declared)));
        rules.all_of = all_of.filter(Self::has_any).collect();
        rules
    }

    fn has_any(&self) -> bool {
        !self.own.is_empty()
            || !self.broken.is_empty()
            || !self.properties.is_empty()
            || self.values.is_some()
            || self.items.is_some()
            || !self.all_of.is_empty()
    }

    /// Whether an object keeps the rules; `old`: what it replaces. `schema` is the one they are of.
    pub fn check(&self, schema: &Structural, new: &Value, old: Option<&Value>) -> Outcome {
        let mut run = Run { budget: Budget::new(OBJECT_LIMIT), outcome: Outcome::default() };
        let spot = Spot { value: new, old, unchanged: false };
        // Too costly: what was found until then stands.
        let _ = self.visit(schema, spot, "", &mut run);
        run.outcome
    }

    /// Fails when what evaluation may cost is used up.
    fn visit(&self, schema: &Structural, spot: Spot<'_>, path: &str, run: &mut Run) -> Result<(), Fault> {
        if spot.value.is_null() {
            return Ok(());
        }
        self.own_rules(spot, path, run)?;
        for rules in &self.all_of {
            rules.visit(schema, Spot { old: None, ..spot }, path, run)?;
        }
        match spot.value {
            Value::Object(map) => {
                for (name, value) in map {
                    let old = spot.old.and_then(|old| old.get(name));
                    if let (Some(rules), Some(below)) =
                        (self.properties.get(name), schema.properties.get(name))
                    {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        rules.visit(below, spot.below(value, old), &path, run)?;
                    } else if let (Some(rules), Additional::Of(below)) = (&self.values, &schema.additional) {
                        rules.visit(below, spot.below(value, old), &format!("{path}[{name}]"), run)?;
                    }
                }
            }
            Value::Array(items) => {
                let (Some(rules), Some(below)) = (&self.items, &schema.items) else { return Ok(()) };
                for (at, item) in items.iter().enumerate() {
                    let old = earlier(schema, spot.old, item);
                    rules.visit(below, spot.below(item, old), &format!("{path}[{at}]"), run)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn own_rules<'a>(&'a self, spot: Spot<'a>, path: &str, run: &mut Run) -> Result<(), Fault> {
        for why in &self.broken {
            let why = format!("rule compile error: {why}");
            run.outcome.errors.push(FieldError::invalid(shown_path(path), self.word, why));
        }
        if self.own.is_empty() {
            return Ok(());
        }
        let declared = self.declared.as_deref();
        let seen = |value| Val::declared(value, declared);
        let (own, old) = match (seen(spot.value), spot.old.filter(|old| !old.is_null()).map(seen).transpose())
        {
            (Ok(own), Ok(old)) => (own, old),
            // Its schema says what is wrong with it.
            (Err(_), _) | (_, Err(_)) => return Ok(()),
        };
        for rule in &self.own {
            if rule.is_transition() && old.is_none() && !rule.optional_old {
                continue;
            }
            let old = match rule.optional_old {
                true => Some(Val::Optional(old.clone().map(Rc::new))),
                false => old.clone(),
            };
            self.one(rule, [Some(own.clone()), old], spot, path, run)?;
        }
        Ok(())
    }

    fn one<'a>(
        &self,
        rule: &'a Rule,
        globals: [Option<Val<'a>>; 2],
        spot: Spot<'_>,
        path: &str,
        run: &mut Run,
    ) -> Result<(), Fault> {
        let shown = &rule.shown;
        let why = match rule.program.run(&globals, &mut run.budget) {
            Ok(Val::Bool(true)) => return Ok(()),
            Ok(_) => None,
            Err(Fault::Exhausted) => {
                let why = match run.budget.left() {
                    0 => "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
                    _ => format!("'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"),
                };
                run.outcome.errors.push(FieldError::invalid(shown_path(path), self.word, why));
                return Err(Fault::Exhausted);
            }
            Err(fault) if fault == Fault::no_overload() => Some(format!(
                "'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
            )),
            Err(fault) => Some(format!("{fault} evaluating rule: {shown}")),
        };
        if let Some(why) = why {
            run.outcome.errors.push(FieldError::invalid(shown_path(path), self.word, why));
            return Ok(());
        }
        let said = rule.message_program.as_ref().and_then(|program| {
            let said = program.run(&globals, &mut run.budget).ok()?;
            let Val::Str(text) = said else { return None };
            let text = text.trim();
            (!text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n'))
                .then(|| text.to_owned())
        });
        let at = match (path, rule.field.as_str()) {
            (path, "") => shown_path(path).to_owned(),
            ("", field) => field.to_owned(),
            (path, field) if field.starts_with('[') => format!("{path}{field}"),
            (path, field) => format!("{path}.{field}"),
        };
        let error = self.refusal(rule, at, spot.value, said.unwrap_or_else(|| rule.message.clone()));
        if !rule.is_transition() && spot.is_kept() {
            run.outcome.warnings.push(error.to_string());
        } else {
            run.outcome.errors.push(error);
        }
        Ok(())
    }

    fn refusal(&self, rule: &Rule, field: String, value: &Value, detail: String) -> FieldError {
        let value = (!self.large).then(|| value.clone());
        match rule.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(field, detail),
            Some("FieldValueRequired") => FieldError::required(field, detail),
            Some("FieldValueDuplicate") => {
                FieldError { kind: FieldErrorKind::Duplicate, field, value, detail: String::new() }
            }
            _ => FieldError { kind: FieldErrorKind::Invalid, field, value, detail },
        }
    }
}
