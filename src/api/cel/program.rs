//! What an expression may name, and expressions that were found good.

use std::sync::Arc;

use super::check::Checker;
use super::declared::Declared;
use super::eval::Machine;
use super::fault::{Budget, Fault};
use super::issue::{Issue, Issues};
use super::node::Node;
use super::types::{ObjectType, Substitution, Type};
use super::value::Val;

/// A variable.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub ty: Type,
    /// What is declared of its JSON, where that is known.
    pub declared: Option<Arc<Declared>>,
}

impl Variable {
    pub fn new(name: &str, ty: Type) -> Self {
        Self { name: name.to_owned(), ty, declared: None }
    }

    pub fn declared(name: &str, declared: Arc<Declared>) -> Self {
        Self { name: name.to_owned(), ty: declared.ty.clone(), declared: Some(declared) }
    }

    /// One that may have no value.
    pub fn optional(name: &str, declared: Arc<Declared>) -> Self {
        let ty = Type::optional(declared.ty.clone());
        Self { name: name.to_owned(), ty, declared: Some(declared) }
    }
}

/// What expressions may name.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<Variable>,
    /// Whether objects may be made: `Object{…}`, `JSONPatch{…}`.
    makes: bool,
}

impl Environment {
    pub fn new(variables: Vec<Variable>) -> Self {
        Self { variables, makes: false }
    }

    /// Allows objects of the types that mutations are written in.
    #[must_use]
    pub fn making_objects(mut self) -> Self {
        self.makes = true;
        self
    }

    pub(super) fn variable(&self, name: &str) -> Option<(usize, &Variable)> {
        self.variables.iter().enumerate().find(|(_, variable)| variable.name == name)
    }

    /// The type that objects are made of under a name.
    pub(super) fn structure(&self, name: &str) -> Option<Type> {
        if !self.makes {
            return None;
        }
        if name == "JSONPatch" {
            let text = |name: &str| (name.to_owned(), Type::String);
            let fields = [text("op"), text("path"), text("from"), ("value".to_owned(), Type::Dyn)];
            return Some(Type::object(name, fields));
        }
        let open =
            || ObjectType { name: name.to_owned(), fields: std::collections::BTreeMap::new(), open: true };
        (name == "Object" || name.starts_with("Object.")).then(|| Type::Object(Arc::new(open())))
    }

    /// Reads and checks an expression. Fails with everything that is wrong with it.
    pub fn compile(&self, source: &str) -> Result<Program, Issues> {
        let expr = super::parse::parse(source)?;
        let mut checker = Checker {
            env: self,
            issues: Vec::new(),
            known: Substitution::default(),
            locals: Vec::new(),
            used: std::collections::BTreeSet::new(),
        };
        let typed = checker.check(&expr);
        if !checker.issues.is_empty() {
            let mut issues = checker.issues;
            issues.sort_by_key(|issue: &Issue| issue.at);
            return Err(Issues { text: source.to_owned(), issues });
        }
        let ty = checker.known.apply(&typed.ty, true);
        let used = checker.used.iter().map(|place| self.variables[*place].name.clone()).collect();
        Ok(Program { node: typed.node, ty, cost: typed.cost.most, used })
    }
}

/// An expression that may be evaluated.
#[derive(Debug)]
pub struct Program {
    node: Node,
    /// What it answers.
    pub ty: Type,
    /// What it may cost at most.
    pub cost: u64,
    used: Vec<String>,
}

impl Program {
    /// Whether it names a variable of the environment.
    pub fn uses(&self, variable: &str) -> bool {
        self.used.iter().any(|name| name == variable)
    }

    /// Evaluates it; `globals` are the environment's variables in their order. Fails as it does, or when it would cost more than
    /// one expression may, or more than the budget has.
    pub fn run<'a>(&'a self, globals: &[Option<Val<'a>>], budget: &mut Budget) -> Result<Val<'a>, Fault> {
        budget.limited(|budget| Machine { globals, locals: Vec::new(), budget }.eval(&self.node))
    }
}
