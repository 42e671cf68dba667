//! Strings and patterns.

use regex::{Regex, RegexBuilder};

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::node::Matching;
use crate::cel::value::Val;

type Valued<'a> = Result<Val<'a>, Fault>;

/// A compiled pattern is no larger, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

pub const ALL: &[Entry] = &[
    ("contains", "string.(string) bool", |budget, args| {
        let (text, part) = two(args)?;
        budget.charge((text.len() as u64).div_ceil(10) * (part.len() as u64).div_ceil(10))?;
        Ok(Val::Bool(text.contains(part)))
    }),
    ("startsWith", "string.(string) bool", |budget, args| {
        let (text, part) = two(args)?;
        budget.charge_text(part.len() as u64)?;
        Ok(Val::Bool(text.starts_with(part)))
    }),
    ("endsWith", "string.(string) bool", |budget, args| {
        let (text, part) = two(args)?;
        budget.charge_text(part.len() as u64)?;
        Ok(Val::Bool(text.ends_with(part)))
    }),
    ("matches", "string.(string) bool; (string, string) bool", |budget, args| {
        searched(budget, args, Matching::Matches)
    }),
    ("find", "string.(string) string", |budget, args| searched(budget, args, Matching::Find)),
    ("findAll", "string.(string) list<string>; string.(string, int) list<string>", |budget, args| {
        searched(budget, args, Matching::FindAll)
    }),
    ("lowerAscii", "string.() string", |budget, args| changed(budget, args, str::to_ascii_lowercase)),
    ("upperAscii", "string.() string", |budget, args| changed(budget, args, str::to_ascii_uppercase)),
    ("trim", "string.() string", |budget, args| changed(budget, args, |text| text.trim().to_owned())),
    ("strings.quote", "(string) string", |budget, args| changed(budget, args, quoted)),
    ("jsonpatch.escapeKey", "(string) string", |budget, args| {
        changed(budget, args, |text| text.replace('~', "~0").replace('/', "~1"))
    }),
    ("charAt", "string.(int) string", char_at),
    ("replace", "string.(string, string) string; string.(string, string, int) string", replace),
    ("split", "string.(string) list<string>; string.(string, int) list<string>", split),
    ("substring", "string.(int) string; string.(int, int) string", substring),
    ("join", "list<string>.() string; list<string>.(string) string", join),
    ("format", "string.(list<dyn>) string", |budget, args| match args {
        [Val::Str(text), Val::List(values)] => super::formats::printed(budget, text, &values.items()?),
        _ => Err(Fault::no_overload()),
    }),
];

fn text<'v>(value: Option<&'v Val<'_>>) -> Result<&'v str, Fault> {
    match value {
        Some(Val::Str(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

fn number(value: &Val<'_>) -> Result<i64, Fault> {
    match value {
        Val::Int(number) => Ok(*number),
        _ => Err(Fault::no_overload()),
    }
}

fn two<'v>(args: &'v [Val<'_>]) -> Result<(&'v str, &'v str), Fault> {
    Ok((text(args.first())?, text(args.get(1))?))
}

fn changed<'a>(budget: &mut Budget, args: &[Val<'a>], change: fn(&str) -> String) -> Valued<'a> {
    let text = text(args.first())?;
    budget.charge_text(text.len() as u64)?;
    Ok(Val::text(change(text)))
}

/// Compiles a pattern.
pub fn pattern(text: &str) -> Result<Regex, Fault> {
    let made = RegexBuilder::new(text).size_limit(LARGEST_PATTERN).build();
    made.map_err(|error| {
        Fault::new(format!("error parsing regexp: {}", error.to_string().replace('\n', " ")))
    })
}

fn searched<'a>(budget: &mut Budget, args: &[Val<'a>], how: Matching) -> Valued<'a> {
    let (Some(target), found) = (args.first(), text(args.get(1))?) else { return Err(Fault::no_overload()) };
    // What is not known beforehand is compiled each time.
    budget.charge(found.len() as u64)?;
    matched(how, &pattern(found)?, target, args.get(2), budget)
}

/// Looks for a pattern.
pub fn matched<'a>(
    how: Matching,
    pattern: &Regex,
    target: &Val<'a>,
    limit: Option<&Val<'a>>,
    budget: &mut Budget,
) -> Valued<'a> {
    let text = text(Some(target))?;
    let of_pattern = (pattern.as_str().len() as u64).div_ceil(4);
    budget.charge(1 + (text.len() as u64 + 1).div_ceil(10).saturating_mul(of_pattern))?;
    Ok(match how {
        Matching::Matches => Val::Bool(pattern.is_match(text)),
        Matching::Find => Val::text(pattern.find(text).map_or("", |found| found.as_str())),
        Matching::FindAll => {
            let limit = limit.map(number).transpose()?.unwrap_or(-1);
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            Val::list(pattern.find_iter(text).take(most).map(|found| Val::text(found.as_str())).collect())
        }
    })
}

fn char_at<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [Val::Str(text), Val::Int(at)] = args else { return Err(Fault::no_overload()) };
    budget.charge_text(text.len() as u64)?;
    let out = || Fault::new(format!("index out of range: {at}"));
    let place = usize::try_from(*at).map_err(|_| out())?;
    match text.chars().nth(place) {
        Some(c) => Ok(Val::text(c.to_string())),
        None if place == text.chars().count() => Ok(Val::lent("")),
        None => Err(out()),
    }
}

fn replace<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let (whole, what) = two(args)?;
    let with = text(args.get(2))?;
    let most = args.get(3).map(number).transpose()?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    budget.charge_text(2 * whole.len() as u64)?;
    let count = if what.is_empty() { whole.chars().count() + 1 } else { whole.matches(what).count() };
    budget.charge_text((count.min(most) * with.len()) as u64)?;
    Ok(Val::text(whole.replacen(what, with, most)))
}

fn split<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let (whole, by) = two(args)?;
    let most = args.get(2).map(number).transpose()?.unwrap_or(-1);
    budget.charge_text(2 * whole.len() as u64)?;
    let parts: Vec<Val<'a>> = match (most, by.is_empty()) {
        (0, _) => Vec::new(),
        (most, true) => {
            let mut parts: Vec<String> = whole.chars().map(String::from).collect();
            if let Some(most) = usize::try_from(most).ok().filter(|most| *most < parts.len()) {
                let rest = parts.split_off(most - 1).concat();
                parts.push(rest);
            }
            parts.into_iter().map(Val::text).collect()
        }
        (1.., false) => whole.splitn(usize::try_from(most).unwrap_or(1), by).map(Val::text).collect(),
        (_, false) => whole.split(by).map(Val::text).collect(),
    };
    budget.charge(parts.len() as u64)?;
    Ok(Val::list(parts))
}

fn substring<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let whole = text(args.first())?;
    budget.charge_text(whole.len() as u64)?;
    let count = i64::try_from(whole.chars().count()).unwrap_or(i64::MAX);
    let start = args.get(1).map(number).transpose()?.unwrap_or(0);
    let end = args.get(2).map(number).transpose()?.unwrap_or(count);
    if start < 0 || start > count {
        return Err(Fault::new(format!("index out of range: {start}")));
    }
    if end < 0 || end > count {
        return Err(Fault::new(format!("index out of range: {end}")));
    }
    if start > end {
        return Err(Fault::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let (start, length) = (start as usize, (end - start) as usize);
    Ok(Val::text(whole.chars().skip(start).take(length).collect::<String>()))
}

fn join<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let Some(Val::List(list)) = args.first() else { return Err(Fault::no_overload()) };
    let by = args.get(1).map_or(Ok(""), |by| text(Some(by)))?;
    let mut out = String::new();
    for (at, item) in list.items()?.iter().enumerate() {
        if at > 0 {
            out.push_str(by);
        }
        let item = text(Some(item))?;
        budget.charge_text((item.len() + by.len()) as u64 * 2)?;
        out.push_str(item);
    }
    Ok(Val::text(out))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
