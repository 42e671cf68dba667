//! Checking of the language's own forms: literals with parts, logic, loops and bindings.

use super::ast::{Expr, Fold, FoldKind};
use super::check::{Checker, Local, Typed};
use super::declared::Declared;
use super::estimate::{self, Range};
use super::node::{FoldNode, Node};
use super::types::Type;

/// What one round of a loop costs beside its parts, and what is made before it. Rule: what cel-go's macros expand to.
fn overhead(kind: FoldKind, filtered: bool) -> (Range, Range) {
    let fixed = Range::fixed;
    match kind {
        FoldKind::All => (fixed(3), fixed(1)),
        FoldKind::Exists => (fixed(4), fixed(1)),
        FoldKind::ExistsOne => (Range { least: 1, most: 2 }, fixed(2)),
        FoldKind::Filter => (Range { least: 1, most: 13 }, fixed(11)),
        FoldKind::List => (Range { least: if filtered { 1 } else { 12 }, most: 12 }, fixed(11)),
        FoldKind::Map | FoldKind::Entries => (Range { least: 1, most: 32 }, fixed(31)),
    }
}

impl<'e> Checker<'e> {
    fn expect(&mut self, at: usize, wanted: &Type, found: &Type) {
        if !self.known.assign(found, wanted) {
            let message = format!("expected type '{wanted}' but found '{}'", self.shown(found));
            self.wrong(at, message);
        }
    }

    /// The type of all items so far, joined by another one: literals are of one type.
    fn joined(&mut self, at: usize, before: Option<Type>, next: &Type) -> Type {
        let Some(before) = before else { return next.clone() };
        if self.known.assign(next, &before) {
            let before = self.known.apply(&before, false);
            return if before.is_dynamic() || next.is_dynamic() { Type::Dyn } else { before };
        }
        let message = format!("expected type '{}' but found '{}'", self.shown(&before), self.shown(next));
        self.wrong(at, message);
        before
    }

    /// The type that an item marked as optional adds.
    fn unmarked(&mut self, at: usize, ty: &Type, optional: bool) -> Type {
        if !optional {
            return ty.clone();
        }
        let ty = self.known.apply(ty, false);
        match ty.unwrapped() {
            (inner, true) => inner.clone(),
            (other, false) => {
                if !other.is_dynamic() {
                    self.expect(at, &Type::optional(other.clone()), other);
                }
                Type::Dyn
            }
        }
    }

    pub fn list(&mut self, items: &[(Expr, bool)]) -> Typed<'e> {
        let (mut cost, mut entry) = (estimate::LIST, Range::default());
        let (mut of, mut nodes): (Option<Type>, Vec<(Node, bool)>) = (None, Vec::new());
        for (index, (item, optional)) in items.iter().enumerate() {
            let typed = self.check(item);
            cost = cost.add(typed.cost);
            entry = if index == 0 { typed.extent() } else { entry.either(typed.extent()) };
            let ty = self.unmarked(item.at, &typed.ty, *optional);
            of = Some(self.joined(item.at, of, &ty));
            nodes.push((typed.node, *optional));
        }
        let of = of.unwrap_or_else(|| self.known.fresh());
        let mut typed = Typed::new(Node::List(nodes), Type::list(of), cost);
        typed.size = Some(Range::fixed(items.len() as u64));
        typed.entry = Some(entry);
        typed
    }

    pub fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Typed<'e> {
        let (mut cost, mut entry) = (estimate::MAP, Range::default());
        let (mut keys, mut values, mut nodes) = (None, None, Vec::new());
        for (key, value, optional) in entries {
            let (typed_key, typed) = (self.check(key), self.check(value));
            cost = cost.add(typed_key.cost).add(typed.cost);
            entry = entry.either(typed.extent());
            keys = Some(self.joined(key.at, keys, &typed_key.ty));
            let ty = self.unmarked(value.at, &typed.ty, *optional);
            values = Some(self.joined(value.at, values, &ty));
            nodes.push((typed_key.node, typed.node, *optional));
        }
        let keys = keys.unwrap_or_else(|| self.known.fresh());
        let values = values.unwrap_or_else(|| self.known.fresh());
        let mut typed = Typed::new(Node::Map(nodes), Type::map(keys, values), cost);
        typed.size = Some(Range::fixed(entries.len() as u64));
        typed.entry = Some(entry);
        typed
    }

    pub fn make(&mut self, at: usize, name: &str, fields: &[(String, Expr, bool)]) -> Typed<'e> {
        let Some(ty) = self.env.structure(name) else {
            self.wrong(at, format!("undeclared reference to '{name}' (in container '')"));
            return self.refused();
        };
        let (mut cost, mut nodes) = (estimate::STRUCT, Vec::new());
        for (field, value, optional) in fields {
            let typed = self.check(value);
            cost = cost.add(typed.cost);
            let found = self.unmarked(value.at, &typed.ty, *optional);
            let wanted = match &ty {
                Type::Object(object) => {
                    object.fields.get(field).cloned().or(object.open.then_some(Type::Dyn))
                }
                _ => Some(Type::Dyn),
            };
            match wanted {
                None => self.wrong(value.at, format!("undefined field '{field}'")),
                Some(wanted) if !self.known.assign(&found, &wanted) => {
                    let found = self.shown(&found);
                    let message = format!(
                        "expected type of field '{field}' is '{wanted}' but provided type is '{found}'"
                    );
                    self.wrong(value.at, message);
                }
                Some(_) => {}
            }
            nodes.push((field.clone(), typed.node, *optional));
        }
        Typed::new(Node::Struct { name: name.into(), fields: nodes }, ty, cost)
    }

    pub fn logic(&mut self, all: &[Expr], make: fn(Vec<Node>) -> Node) -> Typed<'e> {
        let (mut cost, mut nodes) = (Range::default(), Vec::new());
        for (index, part) in all.iter().enumerate() {
            let typed = self.check(part);
            self.expect(part.at, &Type::Bool, &typed.ty);
            let least = if index == 0 { typed.cost.least } else { 0 };
            cost = cost.add(Range { least, most: typed.cost.most });
            nodes.push(typed.node);
        }
        Typed::new(make(nodes), Type::Bool, cost)
    }

    pub fn conditional(&mut self, at: usize, parts: &[Expr; 3]) -> Typed<'e> {
        let [condition, yes, no] = parts.each_ref().map(|part| self.check(part));
        let fits = self.known.assign(&condition.ty, &Type::Bool) && {
            let of = self.known.fresh();
            self.known.assign_all(&[yes.ty.clone(), no.ty.clone()], &[of.clone(), of])
        };
        if !fits {
            let words: Vec<String> =
                [&condition, &yes, &no].map(|part| self.shown(&part.ty).to_string()).to_vec();
            let signature = format!("({})", words.join(", "));
            self.wrong(at, format!("found no matching overload for '_?_:_' applied to '{signature}'"));
            return self.refused();
        }
        let ty = if no.ty.is_dynamic() || yes.ty == Type::Null { no.ty.clone() } else { yes.ty.clone() };
        let cost = condition.cost.add(yes.cost.either(no.cost));
        let size = yes.extent().either(no.extent());
        let entry = yes.entry_extent().either(no.entry_extent());
        let node = Node::Conditional(Box::new([condition.node, yes.node, no.node]));
        let mut typed = Typed::new(node, ty, cost).sized(Some(size));
        typed.entry = Some(entry);
        typed
    }

    fn with<T>(&mut self, local: Local<'e>, check: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(local);
        let checked = check(self);
        self.locals.pop();
        checked
    }

    pub fn bind(&mut self, name: &str, init: &Expr, body: &Expr) -> Typed<'e> {
        let init = self.check(init);
        let local = Local {
            name: name.to_owned(),
            ty: init.ty.clone(),
            size: Some(init.extent()),
            declared: init.declared,
        };
        let body = self.with(local, |this| this.check(body));
        let cost = init.cost.add(body.cost).add(estimate::LIST);
        let node = Node::Bind { init: Box::new(init.node), body: Box::new(body.node) };
        Typed { node, cost, ..body }
    }

    pub fn opt_map(&mut self, at: usize, target: &Expr, name: &str, body: &Expr, flat: bool) -> Typed<'e> {
        let target = self.check(target);
        let ty = self.known.apply(&target.ty, false);
        let (inner, optional) = ty.unwrapped();
        if !optional && !ty.is_dynamic() {
            let call = if flat { "optFlatMap" } else { "optMap" };
            let message = format!("found no matching overload for '{call}' applied to '{ty}.()'");
            self.wrong(at, message);
            return self.refused();
        }
        let inner = if optional { inner.clone() } else { Type::Dyn };
        let local = Local { name: name.to_owned(), ty: inner, size: target.size, declared: target.declared };
        let body_at = body.at;
        let body = self.with(local, |this| this.check(body));
        if flat {
            let of = self.known.fresh();
            self.expect(body_at, &Type::optional(of), &body.ty);
        }
        let ty = if flat { body.ty.clone() } else { Type::optional(body.ty.clone()) };
        let cost = target.cost.add(body.cost).add(Range::fixed(3));
        let node = Node::OptMap { target: Box::new(target.node), body: Box::new(body.node), flat };
        Typed { node, ty, cost, ..body }
    }

    /// The variables of a loop over something: types, sizes, declarations. Of a list with one variable, the item; of a map, the key.
    fn variables(&mut self, at: usize, fold: &Fold, range: &Typed<'e>) -> Vec<Local<'e>> {
        let ty = self.known.apply(&range.ty, false);
        let double = fold.second.is_some();
        let (key, value, list) = match &ty {
            Type::List(item) => (Type::Int, (**item).clone(), true),
            Type::Map(key, value) => ((**key).clone(), (**value).clone(), false),
            Type::Param(_) => {
                self.known.assign(&Type::Dyn, &ty);
                (Type::Dyn, Type::Dyn, !double)
            }
            other if other.is_dynamic() => (Type::Dyn, Type::Dyn, !double),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(at, message);
                (Type::Error, Type::Error, true)
            }
        };
        let inner = range.declared.and_then(|declared: &'e Declared| declared.inner.as_deref());
        let item = |name: &str, ty| Local { name: name.to_owned(), ty, size: range.entry, declared: inner };
        // Nothing bounds how long the keys of a map are; upstream counts them as empty.
        let size = inner.map(|_| Range::default());
        let index = |name: &str, ty| Local { name: name.to_owned(), ty, size, declared: None };
        match &fold.second {
            Some(second) => vec![index(&fold.first, key), item(second, value)],
            None if list => vec![item(&fold.first, value)],
            None => vec![index(&fold.first, key)],
        }
    }

    pub fn fold(&mut self, at: usize, fold: &Fold) -> Typed<'e> {
        let range = self.check(&fold.range);
        let variables = self.variables(fold.range.at, fold, &range);
        let item = variables.last().map(|local| (local.ty.clone(), local.declared, local.size));
        let depth = self.locals.len();
        self.locals.extend(variables);
        let condition = fold.condition.as_ref().map(|condition| {
            let typed = self.check(condition);
            self.expect(condition.at, &Type::Bool, &typed.ty);
            typed
        });
        let body = fold.body.as_ref().map(|body| self.check(body));
        self.locals.truncate(depth);
        let (round, before) = overhead(fold.kind, condition.is_some());
        let mut each = round;
        for part in condition.iter().chain(&body) {
            let least =
                if matches!(fold.kind, FoldKind::All | FoldKind::Exists) { 0 } else { part.cost.least };
            each = each.add(Range { least, most: part.cost.most });
        }
        let count = range.extent();
        let cost = range.cost.add(before).add(count.times(each));
        let body_type = body.as_ref().map_or(Type::Dyn, |body| body.ty.clone());
        let ty = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::Filter => Type::list(item.as_ref().map_or(Type::Dyn, |item| item.0.clone())),
            FoldKind::List => Type::list(body_type),
            FoldKind::Map => match self.known.apply(&range.ty, false) {
                Type::Map(key, _) => Type::map((*key).clone(), body_type),
                Type::List(_) => Type::map(Type::Int, body_type),
                _ => Type::map(Type::Dyn, body_type),
            },
            FoldKind::Entries => {
                let entries = Type::map(self.known.fresh(), self.known.fresh());
                self.expect(at, &entries, &body_type);
                self.known.apply(&body_type, false)
            }
        };
        let entry = match (&fold.kind, &body) {
            (FoldKind::Filter, _) => {
                let of = item.and_then(|(_, declared, size)| {
                    size.or(declared.map(|declared| Range::up_to(declared.most)))
                });
                Some(of.unwrap_or(estimate::UNKNOWN))
            }
            (_, Some(body)) => Some(Range::up_to(body.extent().most)),
            _ => None,
        };
        let node = Node::Fold(Box::new(FoldNode {
            kind: fold.kind,
            range: range.node,
            double: fold.second.is_some(),
            condition: condition.map(|condition| condition.node),
            body: body.map(|body| body.node),
        }));
        let sized = !matches!(fold.kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne);
        let mut typed = Typed::new(node, ty, cost).sized(sized.then_some(Range::up_to(count.most)));
        typed.entry = entry;
        typed
    }
}
