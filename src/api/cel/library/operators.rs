//! Arithmetic, comparison, membership.

use std::rc::Rc;

use super::Entry;
use crate::cel::Budget;
use crate::cel::declared::Items;
use crate::cel::fault::Fault;
use crate::cel::value::{Key, List, Val, same_keys};

type Valued<'a> = Result<Val<'a>, Fault>;

const COMPARED: &str = "(bool, bool) bool; (int, int) bool; (uint, uint) bool; (double, double) bool; (int, uint) bool; \
    (uint, int) bool; (int, double) bool; (double, int) bool; (uint, double) bool; (double, uint) bool; \
    (string, string) bool; (bytes, bytes) bool; (timestamp, timestamp) bool; (duration, duration) bool";

pub const ALL: &[Entry] = &[
    (
        "_+_",
        "(int, int) int; (uint, uint) uint; (double, double) double; (string, string) string; (bytes, bytes) bytes; \
         (list<A>, list<A>) list<A>; (timestamp, duration) timestamp; (duration, timestamp) timestamp; \
         (duration, duration) duration",
        add,
    ),
    (
        "_-_",
        "(int, int) int; (uint, uint) uint; (double, double) double; (timestamp, timestamp) duration; \
         (timestamp, duration) timestamp; (duration, duration) duration",
        subtract,
    ),
    ("_*_", "(int, int) int; (uint, uint) uint; (double, double) double", multiply),
    ("_/_", "(int, int) int; (uint, uint) uint; (double, double) double", divide),
    ("_%_", "(int, int) int; (uint, uint) uint", remainder),
    ("-_", "(int) int; (double) double", negate),
    ("!_", "(bool) bool", not),
    ("_==_", "(A, A) bool", equal),
    ("_!=_", "(A, A) bool", unequal),
    ("_<_", COMPARED, |_, args| compare(args, std::cmp::Ordering::is_lt)),
    ("_<=_", COMPARED, |_, args| compare(args, std::cmp::Ordering::is_le)),
    ("_>_", COMPARED, |_, args| compare(args, std::cmp::Ordering::is_gt)),
    ("_>=_", COMPARED, |_, args| compare(args, std::cmp::Ordering::is_ge)),
    ("@in", "(A, list<A>) bool; (A, map<A, B>) bool", within),
    (
        "_[_]",
        "(list<A>, int) A; (map<A, B>, A) B; (optional<list<A>>, int) optional<A>; (optional<map<A, B>>, A) optional<B>",
        index,
    ),
    (
        "_[?_]",
        "(list<A>, int) optional<A>; (optional<list<A>>, int) optional<A>; (map<A, B>, A) optional<B>; \
         (optional<map<A, B>>, A) optional<B>",
        maybe_index,
    ),
];

fn overflow(of: &'static str) -> Fault {
    Fault::new(format!("{of} overflow"))
}

fn moved(by: jiff::Timestamp, nanoseconds: i64) -> Result<jiff::Timestamp, Fault> {
    by.checked_add(jiff::SignedDuration::from_nanos(nanoseconds)).map_err(|_| overflow("timestamp"))
}

fn add<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [left, right] = args else { return Err(Fault::no_overload()) };
    Ok(match (left, right) {
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_add(*b).ok_or_else(|| overflow("integer"))?),
        (Val::Uint(a), Val::Uint(b)) => {
            Val::Uint(a.checked_add(*b).ok_or_else(|| overflow("unsigned integer"))?)
        }
        (Val::Double(a), Val::Double(b)) => Val::Double(a + b),
        (Val::Str(a), Val::Str(b)) => {
            budget.charge_text((a.len() + b.len()) as u64)?;
            Val::text(format!("{}{}", &**a, &**b))
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            budget.charge_text((a.len() + b.len()) as u64)?;
            Val::Bytes([&**a, &**b].concat().into())
        }
        (Val::List(a), Val::List(b)) => {
            budget.charge((a.len() + b.len()) as u64)?;
            Val::List(concatenated(a, b)?)
        }
        (Val::Timestamp(time), Val::Duration(by)) | (Val::Duration(by), Val::Timestamp(time)) => {
            Val::Timestamp(moved(*time, *by)?)
        }
        (Val::Duration(a), Val::Duration(b)) => {
            Val::Duration(a.checked_add(*b).ok_or_else(|| overflow("duration"))?)
        }
        _ => return Err(Fault::no_overload()),
    })
}

/// Lists one after another; sets are united, and of lists of type map the items of the second replace those of the first.
fn concatenated<'a>(a: &List<'a>, b: &List<'a>) -> Result<List<'a>, Fault> {
    let mut items = a.items()?;
    let declared = a.declaration();
    for item in b.items()? {
        let before = match declared.map(|declared| &declared.items) {
            Some(Items::Set) => items.iter().position(|before| before.same(&item)),
            Some(Items::Map(keys)) => items.iter().position(|before| same_keys(before, &item, keys)),
            _ => None,
        };
        match before {
            Some(at) => items[at] = item,
            None => items.push(item),
        }
    }
    Ok(List::Made(Rc::new(items), declared))
}

fn subtract<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [left, right] = args else { return Err(Fault::no_overload()) };
    Ok(match (left, right) {
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_sub(*b).ok_or_else(|| overflow("integer"))?),
        (Val::Uint(a), Val::Uint(b)) => {
            Val::Uint(a.checked_sub(*b).ok_or_else(|| overflow("unsigned integer"))?)
        }
        (Val::Double(a), Val::Double(b)) => Val::Double(a - b),
        (Val::Timestamp(a), Val::Timestamp(b)) => {
            let between = a.duration_since(*b).as_nanos();
            Val::Duration(i64::try_from(between).map_err(|_| overflow("duration"))?)
        }
        (Val::Timestamp(time), Val::Duration(by)) => {
            Val::Timestamp(moved(*time, by.checked_neg().ok_or_else(|| overflow("duration"))?)?)
        }
        (Val::Duration(a), Val::Duration(b)) => {
            Val::Duration(a.checked_sub(*b).ok_or_else(|| overflow("duration"))?)
        }
        _ => return Err(Fault::no_overload()),
    })
}

fn multiply<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(match args {
        [Val::Int(a), Val::Int(b)] => Val::Int(a.checked_mul(*b).ok_or_else(|| overflow("integer"))?),
        [Val::Uint(a), Val::Uint(b)] => {
            Val::Uint(a.checked_mul(*b).ok_or_else(|| overflow("unsigned integer"))?)
        }
        [Val::Double(a), Val::Double(b)] => Val::Double(a * b),
        _ => return Err(Fault::no_overload()),
    })
}

fn divide<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => {
            return Err(Fault::new("division by zero"));
        }
        [Val::Int(a), Val::Int(b)] => Val::Int(a.checked_div(*b).ok_or_else(|| overflow("integer"))?),
        [Val::Uint(a), Val::Uint(b)] => Val::Uint(a / b),
        [Val::Double(a), Val::Double(b)] => Val::Double(a / b),
        _ => return Err(Fault::no_overload()),
    })
}

fn remainder<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => {
            return Err(Fault::new("modulus by zero"));
        }
        [Val::Int(a), Val::Int(b)] => Val::Int(a.checked_rem(*b).ok_or_else(|| overflow("integer"))?),
        [Val::Uint(a), Val::Uint(b)] => Val::Uint(a % b),
        _ => return Err(Fault::no_overload()),
    })
}

fn negate<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(match args {
        [Val::Int(a)] => Val::Int(a.checked_neg().ok_or_else(|| overflow("integer"))?),
        [Val::Double(a)] => Val::Double(-a),
        _ => return Err(Fault::no_overload()),
    })
}

fn not<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    match args {
        [Val::Bool(value)] => Ok(Val::Bool(!value)),
        _ => Err(Fault::no_overload()),
    }
}

fn compared(budget: &mut Budget, args: &[Val<'_>]) -> Result<bool, Fault> {
    let [left, right] = args else { return Err(Fault::no_overload()) };
    budget.charge_text(left.weight().min(right.weight()))?;
    Ok(left.same(right))
}

fn equal<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    compared(budget, args).map(Val::Bool)
}

fn unequal<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    compared(budget, args).map(|same| Val::Bool(!same))
}

fn compare<'a>(args: &[Val<'a>], holds: fn(std::cmp::Ordering) -> bool) -> Valued<'a> {
    let [left, right] = args else { return Err(Fault::no_overload()) };
    match (left, right) {
        (Val::Double(value), _) | (_, Val::Double(value)) if value.is_nan() => Ok(Val::Bool(false)),
        _ => left.order(right).map(|order| Val::Bool(holds(order))).ok_or_else(Fault::no_overload),
    }
}

fn within<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    match args {
        [item, Val::List(list)] => {
            budget.charge(list.len() as u64)?;
            for at in 0..list.len() {
                if list.get(at)?.is_some_and(|other| other.same(item)) {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        [key, Val::Map(map)] => match Key::of(key) {
            Some(key) => Ok(Val::Bool(map.get(&key, budget)?.is_some())),
            None => Ok(Val::Bool(false)),
        },
        _ => Err(Fault::no_overload()),
    }
}

/// What stands at a place; `None`: nothing does.
fn found<'a>(budget: &mut Budget, of: &Val<'a>, at: &Val<'a>) -> Result<Option<Val<'a>>, Fault> {
    match (of, at) {
        (Val::List(list), at) => {
            let Some(Key::Number(at)) = Key::of(at) else { return Err(Fault::no_overload()) };
            usize::try_from(at).map_or(Ok(None), |at| list.get(at))
        }
        (Val::Map(map), at) => match Key::of(at) {
            Some(key) => map.get(&key, budget),
            None => Ok(None),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn index<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [of, at] = args else { return Err(Fault::no_overload()) };
    if matches!(of, Val::Optional(_)) {
        return maybe_index(budget, args);
    }
    found(budget, of, at)?.ok_or_else(|| match (of, super::text_of(at)) {
        (Val::List(_), Some(at)) => Fault::new(format!("index out of bounds: {at}")),
        (_, at) => Fault::no_key(at.unwrap_or_default()),
    })
}

fn maybe_index<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [of, at] = args else { return Err(Fault::no_overload()) };
    let inner = match of {
        Val::Optional(None) => return Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => inner,
        other => other,
    };
    Ok(Val::Optional(found(budget, inner, at)?.map(Rc::new)))
}
