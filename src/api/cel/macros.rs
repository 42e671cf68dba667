//! Macros: calls that are no calls of functions.

use super::ast::{Expr, FoldKind, Kind};
use super::issue::Issue;
use super::parse::fold;

fn wrong<T>(at: usize, message: &str) -> Result<T, Issue> {
    Err(Issue { at, message: message.to_owned() })
}

fn name_of(expr: &Expr) -> Result<String, Issue> {
    match &expr.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => wrong(expr.at, "argument must be a simple name"),
    }
}

/// `name(args)`; `at`: the opening parenthesis.
pub(super) fn global(name: String, mut args: Vec<Expr>, at: usize) -> Result<Expr, Issue> {
    if name != "has" || args.len() != 1 {
        return Ok(Expr { at, kind: Kind::Call { name, target: None, args } });
    }
    let arg = args.remove(0);
    match arg.kind {
        Kind::Select { operand, field, optional: false } => {
            Ok(Expr { at, kind: Kind::Has { operand, field } })
        }
        _ => wrong(arg.at, "invalid argument to has() macro"),
    }
}

/// `target.name(args)`.
pub(super) fn member(target: Expr, name: String, args: Vec<Expr>, at: usize) -> Result<Expr, Issue> {
    let of_cel = matches!(&target.kind, Kind::Ident(ident) if ident == "cel");
    if of_cel && name == "bind" && args.len() == 3 {
        let mut args = args.into_iter();
        let (Some(bound), Some(init), Some(body)) = (args.next(), args.next(), args.next()) else {
            return wrong(at, "cel.bind() takes three arguments");
        };
        let kind = Kind::Bind { name: name_of(&bound)?, init: Box::new(init), body: Box::new(body) };
        return Ok(Expr { at, kind });
    }
    if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
        let flat = name == "optFlatMap";
        let mut args = args.into_iter();
        let (Some(bound), Some(body)) = (args.next(), args.next()) else {
            return wrong(at, "optMap() takes two arguments");
        };
        let kind =
            Kind::OptMap { target: Box::new(target), name: name_of(&bound)?, body: Box::new(body), flat };
        return Ok(Expr { at, kind });
    }
    if name == "sortBy" && args.len() == 2 {
        return sort_by(target, args, at);
    }
    let Some((kind, double, filtered)) = looping(&name, args.len()) else {
        return Ok(Expr { at, kind: Kind::Call { name, target: Some(Box::new(target)), args } });
    };
    let mut args = args.into_iter();
    let Some(first) = args.next() else { return wrong(at, "argument must be a simple name") };
    let mut made = fold(kind, target, name_of(&first)?);
    if double && let Some(second) = args.next() {
        let second_name = name_of(&second)?;
        if second_name == made.first {
            return wrong(second.at, "duplicate variable name");
        }
        made.second = Some(second_name);
    }
    if filtered {
        made.condition = args.next();
    }
    made.body = args.next();
    Ok(Expr { at, kind: Kind::Fold(Box::new(made)) })
}

/// What a call of `name` with `count` arguments goes through: what it makes, whether with two variables, whether with a condition.
fn looping(name: &str, count: usize) -> Option<(FoldKind, bool, bool)> {
    Some(match (name, count) {
        ("all", 2 | 3) => (FoldKind::All, count == 3, true),
        ("exists", 2 | 3) => (FoldKind::Exists, count == 3, true),
        ("exists_one" | "existsOne", 2) => (FoldKind::ExistsOne, false, true),
        ("existsOne" | "exists_one", 3) => (FoldKind::ExistsOne, true, true),
        ("filter", 2) => (FoldKind::Filter, false, true),
        ("map", 2 | 3) => (FoldKind::List, false, count == 3),
        ("transformList", 3 | 4) => (FoldKind::List, true, count == 4),
        ("transformMap", 3 | 4) => (FoldKind::Map, true, count == 4),
        ("transformMapEntry", 3 | 4) => (FoldKind::Entries, true, count == 4),
        _ => return None,
    })
}

/// `l.sortBy(x, key)` is `cel.bind(@l, l, @l.@sortByAssociatedKeys(@l.map(x, key)))`.
fn sort_by(target: Expr, args: Vec<Expr>, at: usize) -> Result<Expr, Issue> {
    const INPUT: &str = "@input";
    let mut args = args.into_iter();
    let (Some(item), Some(key)) = (args.next(), args.next()) else {
        return wrong(at, "sortBy() takes two arguments");
    };
    let input = || Expr { at, kind: Kind::Ident(INPUT.to_owned()) };
    let mut keys = fold(FoldKind::List, input(), name_of(&item)?);
    keys.body = Some(key);
    let keys = Expr { at, kind: Kind::Fold(Box::new(keys)) };
    let name = "@sortByAssociatedKeys".to_owned();
    let body = Expr { at, kind: Kind::Call { name, target: Some(Box::new(input())), args: vec![keys] } };
    let kind = Kind::Bind { name: INPUT.to_owned(), init: Box::new(target), body: Box::new(body) };
    Ok(Expr { at, kind })
}
