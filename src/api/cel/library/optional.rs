//! Values that may be missing.

use std::rc::Rc;

use super::Entry;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

pub const ALL: &[Entry] = &[
    ("optional.of", "(A) optional<A>", |_, args| match args {
        [value] => Ok(Val::some(value.clone())),
        _ => Err(Fault::no_overload()),
    }),
    ("optional.none", "() optional<A>", |_, _| Ok(Val::Optional(None))),
    ("optional.ofNonZeroValue", "(A) optional<A>", |_, args| match args {
        [value] if is_zero(value) => Ok(Val::Optional(None)),
        [value] => Ok(Val::some(value.clone())),
        _ => Err(Fault::no_overload()),
    }),
    ("hasValue", "optional<A>.() bool", |_, args| match args {
        [Val::Optional(value)] => Ok(Val::Bool(value.is_some())),
        _ => Err(Fault::no_overload()),
    }),
    ("value", "optional<A>.() A", |_, args| match args {
        [Val::Optional(Some(value))] => Ok((**value).clone()),
        [Val::Optional(None)] => Err(Fault::new("optional.none() dereference")),
        _ => Err(Fault::no_overload()),
    }),
    ("or", "optional<A>.(optional<A>) optional<A>", |_, args| match args {
        [Val::Optional(Some(value)), _] => Ok(Val::Optional(Some(Rc::clone(value)))),
        [Val::Optional(None), other] => Ok(other.clone()),
        _ => Err(Fault::no_overload()),
    }),
    ("orValue", "optional<A>.(A) A", |_, args| match args {
        [Val::Optional(Some(value)), _] => Ok((**value).clone()),
        [Val::Optional(None), other] => Ok(other.clone()),
        _ => Err(Fault::no_overload()),
    }),
];

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null => true,
        Val::Bool(value) => !value,
        Val::Int(value) => *value == 0,
        Val::Uint(value) => *value == 0,
        Val::Double(value) => *value == 0.0,
        Val::Duration(value) => *value == 0,
        Val::Str(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) => value.weight() == 0,
        Val::Optional(value) => value.is_none(),
        _ => false,
    }
}
