//! Lists, and lists taken as sets; also where in a string something stands.

use std::cmp::Ordering;

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

type Valued<'a> = Result<Val<'a>, Fault>;

const SORTED: &str = "list<int>.() bool; list<uint>.() bool; list<double>.() bool; list<bool>.() bool; \
    list<duration>.() bool; list<timestamp>.() bool; list<string>.() bool; list<bytes>.() bool";
const SUMMED: &str =
    "list<int>.() int; list<uint>.() uint; list<double>.() double; list<duration>.() duration";
const FARTHEST: &str = "list<int>.() int; list<uint>.() uint; list<double>.() double; list<bool>.() bool; \
    list<duration>.() duration; list<timestamp>.() timestamp; list<string>.() string; list<bytes>.() bytes";
const PLACED: &str = "list<A>.(A) int; string.(string) int; string.(string, int) int";
const SETS: &str = "(list<A>, list<A>) bool";

pub const ALL: &[Entry] = &[
    ("isSorted", SORTED, |budget, args| {
        let items = items(budget, args)?;
        let ordered = |pair: &[Val<'_>]| pair[0].order(&pair[1]).is_some_and(Ordering::is_le);
        Ok(Val::Bool(items.windows(2).all(ordered)))
    }),
    ("sum", SUMMED, |budget, args| {
        let items = items(budget, args)?;
        let mut items = items.into_iter();
        let Some(first) = items.next() else { return Ok(Val::Int(0)) };
        let Some(add) = super::function("_+_") else { return Err(Fault::no_overload()) };
        items.try_fold(first, |sum, item| (add.run)(budget, &[sum, item]))
    }),
    ("min", FARTHEST, |budget, args| farthest(budget, args, "min", Ordering::Less)),
    ("max", FARTHEST, |budget, args| farthest(budget, args, "max", Ordering::Greater)),
    ("indexOf", PLACED, |budget, args| place(budget, args, false)),
    ("lastIndexOf", PLACED, |budget, args| place(budget, args, true)),
    ("includes", "dyn.(dyn) bool", includes),
    ("distinct", "list<A>.() list<A>", distinct),
    ("reverse", "list<A>.() list<A>", |budget, args| {
        let mut items = items(budget, args)?;
        items.reverse();
        Ok(Val::list(items))
    }),
    ("sort", FARTHEST_LISTS, |budget, args| {
        let items = items(budget, args)?;
        let keys = items.clone();
        sorted(budget, items, &keys)
    }),
    ("@sortByAssociatedKeys", "list<A>.(list<B>) list<A>", |budget, args| match args {
        [Val::List(list), Val::List(keys)] => sorted(budget, list.items()?, &keys.items()?),
        _ => Err(Fault::no_overload()),
    }),
    ("first", "list<A>.() optional<A>", |budget, args| Ok(maybe(items(budget, args)?.into_iter().next()))),
    ("last", "list<A>.() optional<A>", |budget, args| Ok(maybe(items(budget, args)?.pop()))),
    ("slice", "list<A>.(int, int) list<A>", slice),
    (
        "flatten",
        "list<list<A>>.() list<A>; list<dyn>.() list<dyn>; list<dyn>.(int) list<dyn>",
        |budget, args| {
            let depth = match args.get(1) {
                Some(Val::Int(depth)) if *depth < 0 => return Err(Fault::new("level must be non-negative")),
                Some(Val::Int(depth)) => *depth,
                _ => 1,
            };
            let mut out = Vec::new();
            let of = items(budget, args)?;
            flatten(budget, &of, depth, &mut out)?;
            Ok(Val::list(out))
        },
    ),
    ("lists.range", "(int) list<int>", |budget, args| match args {
        [Val::Int(count)] => {
            budget.charge(u64::try_from(*count).unwrap_or(0))?;
            Ok(Val::list((0..*count).map(Val::Int).collect()))
        }
        _ => Err(Fault::no_overload()),
    }),
    ("sets.contains", SETS, |budget, args| {
        let (list, sublist) = both(budget, args)?;
        Ok(Val::Bool(covers(&list, &sublist)))
    }),
    ("sets.equivalent", SETS, |budget, args| {
        let (a, b) = both(budget, args)?;
        Ok(Val::Bool(covers(&a, &b) && covers(&b, &a)))
    }),
    ("sets.intersects", SETS, |budget, args| {
        let (a, b) = both(budget, args)?;
        Ok(Val::Bool(a.iter().any(|item| b.iter().any(|other| item.same(other)))))
    }),
];

const FARTHEST_LISTS: &str = "list<int>.() list<int>; list<uint>.() list<uint>; list<double>.() list<double>; \
    list<bool>.() list<bool>; list<duration>.() list<duration>; list<timestamp>.() list<timestamp>; \
    list<string>.() list<string>; list<bytes>.() list<bytes>";

fn maybe(value: Option<Val<'_>>) -> Val<'_> {
    Val::Optional(value.map(std::rc::Rc::new))
}

/// The items of the first argument; going through them is paid for.
fn items<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Result<Vec<Val<'a>>, Fault> {
    let Some(Val::List(list)) = args.first() else { return Err(Fault::no_overload()) };
    budget.charge(list.len() as u64)?;
    list.items()
}

fn both<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Result<(Vec<Val<'a>>, Vec<Val<'a>>), Fault> {
    let [Val::List(a), Val::List(b)] = args else { return Err(Fault::no_overload()) };
    budget.charge((a.len() as u64).saturating_mul(b.len() as u64))?;
    Ok((a.items()?, b.items()?))
}

fn covers(list: &[Val<'_>], sublist: &[Val<'_>]) -> bool {
    sublist.iter().all(|item| list.iter().any(|other| item.same(other)))
}

fn farthest<'a>(budget: &mut Budget, args: &[Val<'a>], name: &str, wanted: Ordering) -> Valued<'a> {
    let mut items = items(budget, args)?.into_iter();
    let Some(mut best) = items.next() else { return Err(Fault::new(format!("{name} called on empty list"))) };
    for item in items {
        if item.order(&best).ok_or_else(Fault::no_overload)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn place<'a>(budget: &mut Budget, args: &[Val<'a>], last: bool) -> Valued<'a> {
    let found = match args {
        [Val::List(_), wanted] => {
            let items = items(budget, args)?;
            let same = |item: &Val<'_>| item.same(wanted);
            if last { items.iter().rposition(same) } else { items.iter().position(same) }
        }
        [Val::Str(text), Val::Str(part), rest @ ..] => {
            budget.charge_text(text.len() as u64)?;
            let count = text.chars().count();
            let at = match rest.first() {
                Some(Val::Int(at)) => {
                    let place = usize::try_from(*at).ok().filter(|at| *at <= count);
                    Some(place.ok_or_else(|| Fault::new(format!("index out of range: {at}")))?)
                }
                _ => None,
            };
            let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
            let found = if last {
                let end = at.map_or(text.len(), |at| (byte(at) + part.len()).min(text.len()));
                let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                text[..end].rfind(&**part)
            } else {
                let start = byte(at.unwrap_or(0));
                text[start..].find(&**part).map(|found| found + start)
            };
            found.map(|byte| text[..byte].chars().count())
        }
        _ => return Err(Fault::no_overload()),
    };
    Ok(Val::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

/// Whether a list has an item; something that is no list is one with itself in it.
fn includes<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    match args {
        [Val::List(_), wanted] => Ok(Val::Bool(items(budget, args)?.iter().any(|item| item.same(wanted)))),
        [value, wanted] => Ok(Val::Bool(value.same(wanted))),
        _ => Err(Fault::no_overload()),
    }
}

fn distinct<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let items = items(budget, args)?;
    let mut kept: Vec<Val<'a>> = Vec::new();
    for item in items {
        budget.charge(kept.len() as u64)?;
        if !kept.iter().any(|before| before.same(&item)) {
            kept.push(item);
        }
    }
    Ok(Val::list(kept))
}

fn sorted<'a>(budget: &mut Budget, items: Vec<Val<'a>>, keys: &[Val<'a>]) -> Valued<'a> {
    budget.charge((items.len() as u64).saturating_mul(u64::from(items.len().max(1).ilog2()) + 1))?;
    let comparable = keys.windows(2).all(|pair| pair[0].order(&pair[1]).is_some());
    if !comparable || keys.len() != items.len() {
        return Err(Fault::new("list elements must be comparable and of the same type"));
    }
    let mut pairs: Vec<(&Val<'a>, Val<'a>)> = keys.iter().zip(items).collect();
    pairs.sort_by(|(a, _), (b, _)| a.order(b).unwrap_or(Ordering::Equal));
    Ok(Val::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn slice<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [Val::List(list), Val::Int(start), Val::Int(end)] = args else { return Err(Fault::no_overload()) };
    let length = list.len();
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return Err(Fault::new(format!("cannot slice({start}, {end}), negative indexes not supported")));
    };
    if from > to {
        return Err(Fault::new(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        )));
    }
    if to > length {
        return Err(Fault::new(format!("cannot slice({start}, {end}), list is length {length}")));
    }
    Ok(Val::list(items(budget, args)?[from..to].to_vec()))
}

fn flatten<'a>(
    budget: &mut Budget,
    items: &[Val<'a>],
    depth: i64,
    out: &mut Vec<Val<'a>>,
) -> Result<(), Fault> {
    budget.charge(items.len() as u64)?;
    for item in items {
        match item {
            Val::List(inner) if depth > 0 => flatten(budget, &inner.items()?, depth - 1, out)?,
            other => out.push(other.clone()),
        }
    }
    Ok(())
}
