//! Versions, as semver.org orders them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::Entry;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

/// A version. What is said of its build does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

pub const ALL: &[Entry] = &[
    ("semver", "(string) Semver; (string, bool) Semver", |_, args| {
        let parsed = read(args)?;
        parsed.map(|version| Val::Semver(Rc::new(version))).map_err(Fault::new)
    }),
    ("isSemver", "(string) bool; (string, bool) bool", |_, args| Ok(Val::Bool(read(args)?.is_ok()))),
    ("major", "Semver.() int", |_, args| number(args, 0)),
    ("minor", "Semver.() int", |_, args| number(args, 1)),
    ("patch", "Semver.() int", |_, args| number(args, 2)),
];

fn read(args: &[Val<'_>]) -> Result<Result<Semver, String>, Fault> {
    match args {
        [Val::Str(text)] | [Val::Str(text), Val::Bool(false)] => Ok(Semver::parse(text)),
        [Val::Str(text), Val::Bool(true)] => Ok(Semver::parse(&normalized(text))),
        _ => Err(Fault::no_overload()),
    }
}

fn number<'a>(args: &[Val<'a>], at: usize) -> Result<Val<'a>, Fault> {
    match args {
        [Val::Semver(version)] => Ok(Val::Int(i64::try_from(version.numbers[at]).unwrap_or(i64::MAX))),
        _ => Err(Fault::no_overload()),
    }
}

/// `v1.0` is `1.0.0`, `01.2` is `1.2.0`.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut numbers: Vec<&str> = core.split('.').collect();
    for number in &mut numbers {
        let trimmed = number.trim_start_matches('0');
        *number = if trimmed.is_empty() && !number.is_empty() { "0" } else { trimmed };
    }
    while numbers.len() < 3 {
        numbers.push("0");
    }
    format!("{}{rest}", numbers.join("."))
}

impl Semver {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let number = |name: &str, text: &str| -> Result<u64, String> {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("Invalid character(s) found in {name} number {text:?}"));
            }
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("{name} number must not contain leading zeroes {text:?}"));
            }
            text.parse().map_err(|_| format!("{name} number is too large {text:?}"))
        };
        let numbers = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
        let mut made = Self { numbers, pre: Vec::new() };
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(format!("Invalid character(s) found in prerelease {part:?}"));
            }
            made.pre.push(match part.bytes().all(|b| b.is_ascii_digit()) {
                true => Part::Number(number("Numeric PreRelease version", part)?),
                false => Part::Word(part.to_owned()),
            });
        }
        Ok(made)
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
