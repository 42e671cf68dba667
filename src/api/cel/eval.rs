//! Evaluation: a walk over the checked expression, paid for from a budget.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Budget;
use super::ast::{FoldKind, Literal};
use super::fault::Fault;
use super::library::{self, Run};
use super::node::{FoldNode, Node};
use super::value::{Key, Map, Text, Val};

/// A walk: the environment's variables, and those of loops and bindings.
pub struct Machine<'a, 'r> {
    pub globals: &'r [Option<Val<'a>>],
    pub locals: Vec<Val<'a>>,
    pub budget: &'r mut Budget,
}

type Valued<'a> = Result<Val<'a>, Fault>;

/// Once so many items a loop's list grows by the cost of one unit.
const GROWTH: u64 = 1;

impl<'a> Machine<'a, '_> {
    pub fn eval(&mut self, node: &'a Node) -> Valued<'a> {
        match node {
            Node::Const(literal) => Ok(constant(literal)),
            Node::Type(name) => Ok(Val::Type(name.clone())),
            Node::Global(place) => {
                self.budget.charge(1)?;
                let value = self.globals.get(*place).and_then(Option::as_ref);
                value.cloned().ok_or_else(|| Fault::new("no such attribute"))
            }
            Node::Local(place) => {
                self.budget.charge(1)?;
                self.locals.get(*place).cloned().ok_or_else(|| Fault::new("no such attribute"))
            }
            Node::Select { operand, field, optional } => {
                self.budget.charge(1)?;
                let operand = self.eval(operand)?;
                self.select(&operand, field, *optional)
            }
            Node::Has { operand, field } => {
                let operand = self.eval(operand)?;
                self.has(&operand, field)
            }
            Node::Call { run, args } => self.call(*run, args),
            Node::Match { how, pattern, args } => {
                let Some(target) = args.first() else { return Err(Fault::no_overload()) };
                let target = self.eval(target)?;
                let rest = args.get(2).map(|limit| self.eval(limit)).transpose()?;
                library::matched(*how, pattern, &target, rest.as_ref(), self.budget)
            }
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct { name, fields } => self.make(name, fields),
            Node::And(all) => self.logic(all, false),
            Node::Or(all) => self.logic(all, true),
            Node::Conditional(parts) => match self.eval(&parts[0])? {
                Val::Bool(true) => self.eval(&parts[1]),
                Val::Bool(false) => self.eval(&parts[2]),
                _ => Err(Fault::no_overload()),
            },
            Node::Fold(fold) => self.fold(fold),
            Node::Bind { init, body } => {
                let value = self.eval(init)?;
                self.with(value, body)
            }
            Node::OptMap { target, body, flat } => match self.eval(target)? {
                Val::Optional(None) => Ok(Val::Optional(None)),
                Val::Optional(Some(value)) => {
                    let made = self.with((*value).clone(), body)?;
                    Ok(if *flat { made } else { Val::some(made) })
                }
                _ => Err(Fault::no_overload()),
            },
        }
    }

    fn with(&mut self, value: Val<'a>, body: &'a Node) -> Valued<'a> {
        self.locals.push(value);
        let made = self.eval(body);
        self.locals.pop();
        made
    }

    fn select(&mut self, operand: &Val<'a>, field: &str, optional: bool) -> Valued<'a> {
        match operand {
            Val::Map(map) => match (map.field(field, self.budget)?, optional) {
                (Some(value), false) => Ok(value),
                (Some(value), true) => Ok(Val::some(value)),
                (None, true) => Ok(Val::Optional(None)),
                (None, false) => Err(Fault::no_key(field)),
            },
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => match self.select(inner, field, true)? {
                // What is found is optional once, however often it was asked for so.
                Val::Optional(Some(value)) if matches!(&*value, Val::Optional(_)) => Ok((*value).clone()),
                found => Ok(found),
            },
            _ => Err(Fault::no_overload()),
        }
    }

    fn has(&mut self, operand: &Val<'a>, field: &str) -> Valued<'a> {
        match operand {
            Val::Map(map) => Ok(Val::Bool(map.field(field, self.budget)?.is_some())),
            Val::Optional(None) => Ok(Val::Bool(false)),
            Val::Optional(Some(inner)) => {
                let inner = (**inner).clone();
                self.has(&inner, field)
            }
            _ => Err(Fault::no_overload()),
        }
    }

    fn call(&mut self, run: Run, args: &'a [Node]) -> Valued<'a> {
        self.budget.charge(1)?;
        match args {
            [only] => {
                let args = [self.eval(only)?];
                run(self.budget, &args)
            }
            [left, right] => {
                let args = [self.eval(left)?, self.eval(right)?];
                run(self.budget, &args)
            }
            more => {
                let args = more.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>, _>>()?;
                run(self.budget, &args)
            }
        }
    }

    /// `&&` and `||`: one part that decides makes up for others that have no value.
    fn logic(&mut self, all: &'a [Node], decides: bool) -> Valued<'a> {
        let mut failed = None;
        for part in all {
            match self.eval(part) {
                Ok(Val::Bool(value)) if value == decides => return Ok(Val::Bool(value)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Fault::no_overload())),
                Err(Fault::Exhausted) => return Err(Fault::Exhausted),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        failed.map_or(Ok(Val::Bool(!decides)), Err)
    }

    /// The value of an item that may be left out.
    fn maybe(&mut self, node: &'a Node, optional: bool) -> Result<Option<Val<'a>>, Fault> {
        match (self.eval(node)?, optional) {
            (value, false) => Ok(Some(value)),
            (Val::Optional(inner), true) => Ok(inner.map(|inner| (*inner).clone())),
            (_, true) => Err(Fault::no_overload()),
        }
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Valued<'a> {
        self.budget.charge(10)?;
        let mut made = Vec::with_capacity(items.len());
        for (item, optional) in items {
            made.extend(self.maybe(item, *optional)?);
        }
        Ok(Val::list(made))
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Valued<'a> {
        self.budget.charge(30)?;
        let mut made = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let key = Key::of(&key).ok_or_else(|| Fault::new("unsupported key type"))?;
            let Some(value) = self.maybe(value, *optional)? else { continue };
            if made.insert(key, value).is_some() {
                return Err(Fault::new("Failed with repeated key"));
            }
        }
        Ok(Val::map(made))
    }

    fn make(&mut self, name: &str, fields: &'a [(String, Node, bool)]) -> Valued<'a> {
        self.budget.charge(40)?;
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            if let Some(value) = self.maybe(value, *optional)? {
                made.insert(Key::Str(Text::Lent(field)), value);
            }
        }
        Ok(Val::Map(Map::Struct(name.into(), Rc::new(made))))
    }

    fn fold(&mut self, fold: &'a FoldNode) -> Valued<'a> {
        let range = self.eval(&fold.range)?;
        let depth = self.locals.len();
        let done = self.rounds(fold, &range);
        self.locals.truncate(depth);
        done
    }

    fn rounds(&mut self, fold: &'a FoldNode, range: &Val<'a>) -> Valued<'a> {
        let mut made = Made::new(fold.kind);
        match range {
            Val::List(list) => {
                for at in 0..list.len() {
                    let Some(item) = list.get(at)? else { break };
                    let index = || Val::Int(i64::try_from(at).unwrap_or(i64::MAX));
                    let first = if fold.double { index() } else { item.clone() };
                    if self.round(fold, &mut made, first, item)? {
                        break;
                    }
                }
            }
            Val::Map(map) => {
                for (key, value) in map.entries()? {
                    if self.round(fold, &mut made, key.value(), value)? {
                        break;
                    }
                }
            }
            _ => return Err(Fault::no_overload()),
        }
        made.done()
    }

    /// One round; returns whether the result is decided.
    fn round(
        &mut self,
        fold: &'a FoldNode,
        made: &mut Made<'a>,
        first: Val<'a>,
        second: Val<'a>,
    ) -> Result<bool, Fault> {
        self.budget.charge(2)?;
        let depth = self.locals.len();
        let kept = first.clone();
        self.locals.push(first);
        if fold.double {
            self.locals.push(second);
        }
        let holds = match &fold.condition {
            Some(condition) => match self.eval(condition) {
                Ok(Val::Bool(holds)) => Ok(holds),
                Ok(_) => Err(Fault::no_overload()),
                Err(fault) => Err(fault),
            },
            None => Ok(true),
        };
        let decided = match (fold.kind, holds) {
            (_, Err(Fault::Exhausted)) => return Err(Fault::Exhausted),
            (FoldKind::All | FoldKind::Exists, holds) => made.observe(fold.kind == FoldKind::Exists, holds),
            (_, Err(fault)) => return Err(fault),
            (_, Ok(false)) => false,
            (FoldKind::ExistsOne, Ok(true)) => {
                made.count += 1;
                false
            }
            (FoldKind::Filter, Ok(true)) => {
                self.budget.charge(GROWTH)?;
                made.list.push(kept);
                false
            }
            (_, Ok(true)) => {
                let Some(body) = &fold.body else { return Err(Fault::no_overload()) };
                let value = self.eval(body)?;
                self.budget.charge(GROWTH)?;
                made.take(kept, value)?;
                false
            }
        };
        self.locals.truncate(depth);
        Ok(decided)
    }
}

/// What a loop has made so far.
struct Made<'a> {
    kind: FoldKind,
    list: Vec<Val<'a>>,
    map: BTreeMap<Key<'a>, Val<'a>>,
    count: usize,
    decided: bool,
    failed: Option<Fault>,
}

impl<'a> Made<'a> {
    fn new(kind: FoldKind) -> Self {
        Self { kind, list: Vec::new(), map: BTreeMap::new(), count: 0, decided: false, failed: None }
    }

    fn observe(&mut self, decides: bool, holds: Result<bool, Fault>) -> bool {
        match holds {
            Ok(holds) if holds == decides => self.decided = true,
            Ok(_) => {}
            Err(fault) => self.failed = self.failed.take().or(Some(fault)),
        }
        self.decided
    }

    fn take(&mut self, key: Val<'a>, value: Val<'a>) -> Result<(), Fault> {
        match self.kind {
            FoldKind::Map => {
                let key = Key::of(&key).ok_or_else(Fault::no_overload)?;
                self.map.insert(key, value);
            }
            FoldKind::Entries => {
                let Val::Map(map) = value else { return Err(Fault::no_overload()) };
                for (key, value) in map.entries()? {
                    if self.map.contains_key(&key) {
                        return Err(Fault::new("insert failed: key already exists"));
                    }
                    self.map.insert(key, value);
                }
            }
            _ => self.list.push(value),
        }
        Ok(())
    }

    fn done(self) -> Valued<'a> {
        match (self.kind, self.decided, self.failed) {
            (FoldKind::All, true, _) => Ok(Val::Bool(false)),
            (FoldKind::Exists, true, _) => Ok(Val::Bool(true)),
            (_, _, Some(fault)) => Err(fault),
            (FoldKind::All, ..) => Ok(Val::Bool(true)),
            (FoldKind::Exists, ..) => Ok(Val::Bool(false)),
            (FoldKind::ExistsOne, ..) => Ok(Val::Bool(self.count == 1)),
            (FoldKind::Filter | FoldKind::List, ..) => Ok(Val::list(self.list)),
            (FoldKind::Map | FoldKind::Entries, ..) => Ok(Val::map(self.map)),
        }
    }
}

fn constant(literal: &Literal) -> Val<'_> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(value) => Val::Bool(*value),
        Literal::Int(value) => Val::Int(*value),
        Literal::Uint(value) => Val::Uint(*value),
        Literal::Double(value) => Val::Double(*value),
        Literal::String(text) => Val::lent(text),
        Literal::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
    }
}
