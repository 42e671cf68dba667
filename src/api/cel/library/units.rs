//! Quantities, and what quantities and versions have in common.

use super::Entry;
use crate::cel::fault::Fault;
use crate::cel::value::Val;
use crate::quantity::Quantity;

const COMPARED: &str = "Quantity.(Quantity) bool; Semver.(Semver) bool";

pub const ALL: &[Entry] = &[
    ("quantity", "(string) Quantity", |budget, args| match args {
        [Val::Str(text)] => {
            budget.charge_text(text.len() as u64)?;
            let parsed = Quantity::parse(text).map(Val::Quantity);
            parsed.map_err(|error| Fault::new(error.to_string()))
        }
        _ => Err(Fault::no_overload()),
    }),
    ("isQuantity", "(string) bool", |_, args| match args {
        [Val::Str(text)] => Ok(Val::Bool(Quantity::parse(text).is_ok())),
        _ => Err(Fault::no_overload()),
    }),
    ("sign", "Quantity.() int", |_, args| of(args, |quantity| Val::Int(i64::from(quantity.sign())))),
    ("isInteger", "Quantity.() bool", |_, args| of(args, |quantity| Val::Bool(whole(quantity).is_some()))),
    ("asInteger", "Quantity.() int", |_, args| match args {
        [Val::Quantity(quantity)] => {
            whole(quantity).map(Val::Int).ok_or_else(|| Fault::new("cannot convert value to integer"))
        }
        _ => Err(Fault::no_overload()),
    }),
    ("asApproximateFloat", "Quantity.() double", |_, args| {
        of(args, |quantity| Val::Double(quantity.approximate()))
    }),
    ("add", "Quantity.(Quantity) Quantity; Quantity.(int) Quantity", |_, args| match args {
        [Val::Quantity(a), Val::Quantity(b)] => Ok(Val::Quantity(*a + *b)),
        [Val::Quantity(a), Val::Int(b)] => Ok(Val::Quantity(*a + Quantity::from_units(*b))),
        _ => Err(Fault::no_overload()),
    }),
    ("sub", "Quantity.(Quantity) Quantity; Quantity.(int) Quantity", |_, args| match args {
        [Val::Quantity(a), Val::Quantity(b)] => Ok(Val::Quantity(*a - *b)),
        [Val::Quantity(a), Val::Int(b)] => Ok(Val::Quantity(*a - Quantity::from_units(*b))),
        _ => Err(Fault::no_overload()),
    }),
    ("isGreaterThan", COMPARED, |_, args| compared(args).map(|order| Val::Bool(order.is_gt()))),
    ("isLessThan", COMPARED, |_, args| compared(args).map(|order| Val::Bool(order.is_lt()))),
    ("compareTo", "Quantity.(Quantity) int; Semver.(Semver) int", |_, args| {
        compared(args).map(|order| Val::Int(order as i64))
    }),
];

fn of<'a>(args: &[Val<'a>], ask: fn(&Quantity) -> Val<'a>) -> Result<Val<'a>, Fault> {
    match args {
        [Val::Quantity(quantity)] => Ok(ask(quantity)),
        _ => Err(Fault::no_overload()),
    }
}

fn whole(quantity: &Quantity) -> Option<i64> {
    quantity.is_whole().then(|| quantity.value()).filter(|value| value.unsigned_abs() < i64::MAX as u64)
}

fn compared(args: &[Val<'_>]) -> Result<std::cmp::Ordering, Fault> {
    match args {
        [Val::Quantity(a), Val::Quantity(b)] => Ok(a.cmp(b)),
        [Val::Semver(a), Val::Semver(b)] => Ok(a.cmp(b)),
        _ => Err(Fault::no_overload()),
    }
}
