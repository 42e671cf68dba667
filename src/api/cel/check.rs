//! Whether an expression makes sense, what type it has, and what it may cost; it becomes ready to be evaluated.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Environment;
use super::ast::{Expr, Kind, Literal};
use super::declared::Declared;
use super::estimate::{self, Argument, Range};
use super::issue::Issue;
use super::library::{self, Function};
use super::node::{Matching, Node};
use super::types::{Substitution, Type};

/// A checked part.
pub struct Typed<'e> {
    pub node: Node,
    pub ty: Type,
    pub cost: Range,
    /// How large it is, if that follows from the expression.
    pub size: Option<Range>,
    /// How large its items are, if that follows from the expression.
    pub entry: Option<Range>,
    /// What is declared of it, if it is a part of a variable.
    pub declared: Option<&'e Declared>,
}

pub struct Local<'e> {
    pub name: String,
    pub ty: Type,
    pub size: Option<Range>,
    pub declared: Option<&'e Declared>,
}

pub struct Checker<'e> {
    pub env: &'e Environment,
    pub issues: Vec<Issue>,
    pub known: Substitution,
    pub locals: Vec<Local<'e>>,
    /// Variables of the environment that the expression names.
    pub used: BTreeSet<usize>,
}

impl<'e> Typed<'e> {
    pub fn new(node: Node, ty: Type, cost: Range) -> Self {
        Self { node, ty, cost, size: None, entry: None, declared: None }
    }

    pub fn sized(mut self, size: Option<Range>) -> Self {
        self.size = size;
        self
    }

    /// How large it may be.
    pub fn extent(&self) -> Range {
        if let Some(size) = self.size {
            return size;
        }
        if self.ty.is_scalar() {
            return Range::fixed(1);
        }
        self.declared.map_or(estimate::UNKNOWN, |declared| Range::up_to(declared.most))
    }

    /// How large its items or values may be.
    pub fn entry_extent(&self) -> Range {
        let declared = || self.declared?.inner.as_ref().map(|inner| Range::up_to(inner.most));
        self.entry.or_else(declared).unwrap_or(estimate::UNKNOWN)
    }
}

impl<'e> Checker<'e> {
    pub fn wrong(&mut self, at: usize, message: impl Into<String>) {
        self.issues.push(Issue { at, message: message.into() });
    }

    /// What stands for a part that was refused.
    pub fn refused(&self) -> Typed<'e> {
        Typed::new(Node::Const(Literal::Null), Type::Error, Range::default())
    }

    pub fn shown(&self, ty: &Type) -> Type {
        self.known.apply(ty, true)
    }

    pub fn check(&mut self, expr: &Expr) -> Typed<'e> {
        let at = expr.at;
        match &expr.kind {
            Kind::Literal(literal) => Self::literal(literal),
            Kind::Ident(name) => self.ident(at, name),
            Kind::Select { operand, field, optional } => self.select(expr, operand, field, *optional),
            Kind::Has { operand, field } => {
                let operand = self.check(operand);
                let (_, _) = self.member(at, &operand, field);
                let cost = operand.cost;
                let node = Node::Has { operand: Box::new(operand.node), field: field.clone() };
                Typed::new(node, Type::Bool, cost)
            }
            Kind::Index { operand, index, optional } => self.index(at, operand, index, *optional),
            Kind::Call { name, target, args } => self.call(at, name, target.as_deref(), args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.make(at, name, fields),
            Kind::And(all) => self.logic(all, Node::And),
            Kind::Or(all) => self.logic(all, Node::Or),
            Kind::Conditional(parts) => self.conditional(at, parts),
            Kind::Fold(fold) => self.fold(at, fold),
            Kind::Bind { name, init, body } => self.bind(name, init, body),
            Kind::OptMap { target, name, body, flat } => self.opt_map(at, target, name, body, *flat),
        }
    }

    fn literal(literal: &Literal) -> Typed<'e> {
        let (ty, size) = match literal {
            Literal::Null => (Type::Null, 1),
            Literal::Bool(_) => (Type::Bool, 1),
            Literal::Int(_) => (Type::Int, 1),
            Literal::Uint(_) => (Type::Uint, 1),
            Literal::Double(_) => (Type::Double, 1),
            Literal::String(text) => (Type::String, text.chars().count() as u64),
            Literal::Bytes(bytes) => (Type::Bytes, bytes.len() as u64),
        };
        Typed::new(Node::Const(literal.clone()), ty, Range::default()).sized(Some(Range::fixed(size)))
    }

    fn ident(&mut self, at: usize, name: &str) -> Typed<'e> {
        if let Some(place) = self.locals.iter().rposition(|local| local.name == name) {
            let local = &self.locals[place];
            let mut typed =
                Typed::new(Node::Local(place), local.ty.clone(), Range::fixed(1)).sized(local.size);
            typed.declared = local.declared;
            return typed;
        }
        let env = self.env;
        if let Some((place, variable)) = env.variable(name) {
            self.used.insert(place);
            let mut typed = Typed::new(Node::Global(place), variable.ty.clone(), Range::fixed(1));
            typed.declared = variable.declared.as_deref();
            return typed;
        }
        if let Some(ty) = Type::named(name) {
            return Typed::new(Node::Type(name.into()), Type::TypeOf(Arc::new(ty)), Range::fixed(1));
        }
        self.wrong(at, format!("undeclared reference to '{name}' (in container '')"));
        self.refused()
    }

    /// Whether a name is a variable.
    fn is_variable(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local.name == name) || self.env.variable(name).is_some()
    }

    /// The type of a member, and what is declared of it.
    fn member(&mut self, at: usize, operand: &Typed<'e>, field: &str) -> (Type, Option<&'e Declared>) {
        let ty = self.known.apply(&operand.ty, false);
        let (target, optional) = ty.unwrapped();
        let declared = operand.declared.and_then(|declared| match declared.fields.get(field) {
            Some((_, inner)) => Some(inner),
            None => declared.inner.as_deref(),
        });
        let found = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(ty) => ty.clone(),
                None if object.open => Type::Dyn,
                None => {
                    self.wrong(at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.known.assign(&Type::Dyn, target);
                Type::Dyn
            }
            target if target.is_dynamic() => Type::Dyn,
            target => {
                let message = format!("type '{target}' does not support field selection");
                self.wrong(at, message);
                Type::Error
            }
        };
        (if optional { Type::optional(found) } else { found }, declared)
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Typed<'e> {
        if let Some(name) = expr.qualified()
            && !self.locals.iter().any(|local| name.split('.').next() == Some(local.name.as_str()))
            && let Some((place, variable)) = self.env.variable(&name)
        {
            self.used.insert(place);
            return Typed::new(Node::Global(place), variable.ty.clone(), Range::fixed(1));
        }
        if let Some(name) = expr.qualified()
            && !self.is_variable(name.split('.').next().unwrap_or_default())
            && let Some(ty) = Type::named(&name)
        {
            return Typed::new(Node::Type(name.into()), Type::TypeOf(Arc::new(ty)), Range::fixed(1));
        }
        let operand = self.check(operand);
        let (ty, declared) = self.member(expr.at, &operand, field);
        let ty = match ty {
            Type::Optional(_) => ty,
            ty if optional => Type::optional(ty),
            ty => ty,
        };
        let entry = if matches!(operand.ty, Type::Map(..)) { operand.entry } else { None };
        let known = matches!(operand.ty, Type::Map(..) | Type::Object(_) | Type::Param(_));
        let cost = operand.cost.add(Range::fixed(u64::from(known)));
        let node = Node::Select { operand: Box::new(operand.node), field: field.to_owned(), optional };
        let mut typed = Typed::new(node, ty, cost).sized(entry);
        typed.declared = declared;
        typed
    }

    fn index(&mut self, at: usize, operand: &Expr, index: &Expr, optional: bool) -> Typed<'e> {
        let (operand, index) = (self.check(operand), self.check(index));
        let (declared, entry) =
            (operand.declared.and_then(|declared| declared.inner.as_deref()), operand.entry);
        let function = library::function(if optional { "_[?_]" } else { "_[_]" });
        let mut typed = match function {
            Some(function) => self.apply(at, function, vec![operand, index], false),
            None => self.refused(),
        };
        typed.declared = declared;
        typed.size = entry;
        typed
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, args: &[Expr]) -> Typed<'e> {
        let prefix = target.and_then(Expr::qualified);
        let namespaced = prefix.and_then(|prefix| library::function(&format!("{prefix}.{name}")));
        if let Some(function) = namespaced {
            let args = args.iter().map(|arg| self.check(arg)).collect();
            return self.apply(at, function, args, false);
        }
        let mut checked: Vec<Typed<'e>> = args.iter().map(|arg| self.check(arg)).collect();
        if let Some(target) = target {
            checked.insert(0, self.check(target));
        }
        let Some(function) = library::function(name) else {
            self.wrong(at, format!("undeclared reference to '{name}' (in container '')"));
            return self.refused();
        };
        self.apply(at, function, checked, target.is_some())
    }

    /// A call of a function; the arguments begin with the target of a `member`.
    fn apply(
        &mut self,
        at: usize,
        function: &'static Function,
        args: Vec<Typed<'e>>,
        member: bool,
    ) -> Typed<'e> {
        let given: Vec<Type> = args.iter().map(|arg| arg.ty.clone()).collect();
        let mut result: Option<Type> = None;
        for overload in function.overloads.iter().filter(|overload| overload.member == member) {
            let fresh: Vec<Type> = (0..overload.params).map(|_| self.known.fresh()).collect();
            let wanted: Vec<Type> =
                overload.args.iter().map(|ty| Substitution::instantiate(ty, &fresh)).collect();
            if !self.known.assign_all(&given, &wanted) {
                continue;
            }
            let made = self.known.apply(&Substitution::instantiate(&overload.result, &fresh), false);
            result = Some(match result {
                None => made,
                Some(before) if before == made || before == Type::Dyn => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(ty) = result else {
            let mut words: Vec<String> = given.iter().map(|ty| self.shown(ty).to_string()).collect();
            let target = if member { format!("{}.", words.remove(0)) } else { String::new() };
            let name = function.name;
            let signature = format!("{target}({})", words.join(", "));
            self.wrong(at, format!("found no matching overload for '{name}' applied to '{signature}'"));
            return self.refused();
        };
        let sizes: Vec<Argument> = args.iter().map(|arg| self.argument(arg)).collect();
        let (own, size) = estimate::call(function.name, &sizes);
        let cost = args.iter().fold(own, |sum, arg| sum.add(arg.cost));
        let (declared, entry) = carried(function.name, &args);
        let node = self.ready(at, function, args);
        let mut typed = Typed::new(node, ty, cost).sized(size);
        typed.declared = declared;
        typed.entry = entry;
        typed
    }

    fn argument(&self, arg: &Typed<'e>) -> Argument {
        let number = match &arg.node {
            Node::Const(Literal::Int(number)) => Some(*number),
            _ => None,
        };
        Argument { ty: self.shown(&arg.ty), size: arg.extent(), entry: arg.entry_extent(), number }
    }

    /// A call ready to be made: what is known of its arguments beforehand is looked at once.
    fn ready(&mut self, at: usize, function: &'static Function, args: Vec<Typed<'e>>) -> Node {
        let nodes: Vec<Node> = args.into_iter().map(|arg| arg.node).collect();
        let text = |place: usize| match nodes.get(place) {
            Some(Node::Const(Literal::String(text))) => Some(text.as_str()),
            _ => None,
        };
        let how = match function.name {
            "matches" => Some(Matching::Matches),
            "find" => Some(Matching::Find),
            "findAll" => Some(Matching::FindAll),
            _ => None,
        };
        if let (Some(how), Some(pattern)) = (how, text(1)) {
            match library::pattern(pattern) {
                Ok(pattern) => return Node::Match { how, pattern, args: nodes },
                Err(_) => self.wrong(at, format!("invalid {} argument", function.name)),
            }
        }
        let invalid = match (function.name, text(0)) {
            ("duration", Some(text)) => library::parse_duration(text).is_none(),
            ("timestamp", Some(text)) => text.parse::<jiff::Timestamp>().is_err(),
            _ => false,
        };
        if invalid {
            self.wrong(at, format!("invalid {} argument", function.name));
        }
        Node::Call { run: function.run, args: nodes }
    }
}

/// What is declared of a call's result, and the size of its items, where they are its target's.
fn carried<'e>(name: &str, args: &[Typed<'e>]) -> (Option<&'e Declared>, Option<Range>) {
    let Some(target) = args.first() else { return (None, None) };
    match name {
        "orValue" | "or" | "value" | "optional.of" | "optional.ofNonZeroValue" | "dyn" => {
            (target.declared, target.entry)
        }
        "sort" | "distinct" | "slice" | "reverse" | "@sortByAssociatedKeys" => {
            (None, Some(target.entry_extent()))
        }
        "first" | "last" | "min" | "max" => {
            (target.declared.and_then(|declared| declared.inner.as_deref()), None)
        }
        "_+_" => match args.get(1) {
            Some(other) => (None, Some(target.entry_extent().either(other.entry_extent()))),
            None => (None, None),
        },
        "split" => (None, Some(Range::up_to(target.extent().most))),
        _ => (None, None),
    }
}
