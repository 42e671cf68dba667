//! What an expression may cost at most, before it is evaluated. Rules: cel-go's `checker.Cost`, the API server's `CostEstimator`.

use super::types::Type;

/// From the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub least: u64,
    pub most: u64,
}

/// Characters of a text that are gone through for one unit of cost: a tenth each.
const TEXT: f64 = 0.1;
/// Of a pattern's characters.
const PATTERN: f64 = 0.25;
/// A check of rights; two fit into one expression.
const AUTHORIZATION: u64 = 350_000;
/// A number or a time has no more characters.
const LONGEST_SCALAR: u64 = 32;
/// The longest pattern of a named format.
const FORMAT: f64 = 128.0;

pub const LIST: Range = Range::fixed(10);
pub const MAP: Range = Range::fixed(30);
pub const STRUCT: Range = Range::fixed(40);
pub const UNKNOWN: Range = Range { least: 0, most: u64::MAX };

impl Range {
    pub const fn fixed(of: u64) -> Self {
        Self { least: of, most: of }
    }

    pub const fn up_to(most: u64) -> Self {
        Self { least: 0, most }
    }

    #[must_use]
    pub fn add(self, other: Self) -> Self {
        Self { least: self.least.saturating_add(other.least), most: self.most.saturating_add(other.most) }
    }

    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self { least: self.least.saturating_mul(other.least), most: self.most.saturating_mul(other.most) }
    }

    #[must_use]
    pub fn either(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), most: self.most.max(other.most) }
    }

    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        // The cast stops at the largest number.
        let of = |n: u64| (n as f64 * by).ceil() as u64;
        Self { least: of(self.least), most: of(self.most) }
    }
}

/// An argument: its type, its size, and the size of its items.
#[derive(Clone, Debug)]
pub struct Argument {
    pub ty: Type,
    pub size: Range,
    pub entry: Range,
    /// The number it is known to be.
    pub number: Option<i64>,
}

/// What calling a function costs beside its arguments, and how large the result is, if that is known. `args` begin with the target.
pub fn call(name: &str, args: &[Argument]) -> (Range, Option<Range>) {
    let size = |at: usize| args.get(at).map_or(UNKNOWN, |arg| arg.size);
    let text = |at: usize| size(at).scaled(TEXT);
    let one = Range::fixed(1);
    match name {
        "check" => (Range::fixed(AUTHORIZATION), None),
        "fieldSelector" | "labelSelector" => {
            (LIST.add(text(1)).add(size(1).scaled(0.5).times(Range::fixed(50))), None)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
            (traversal(args), None)
        }
        "url"
        | "isURL"
        | "jsonpatch.escapeKey"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "reverse" => (text(0), Some(size(0))),
        "replace" => (size(0).scaled(2.0 * TEXT), Some(replaced(size(0), size(1), size(2)))),
        "split" => {
            let limit = args.get(2).and_then(|arg| u64::try_from(arg.number?).ok());
            (size(0).scaled(2.0 * TEXT), Some(Range::up_to(limit.unwrap_or(size(0).most))))
        }
        "join" => {
            let entry = args.first().map_or(UNKNOWN, |arg| arg.entry);
            let mut length = size(0).times(entry);
            if args.len() > 1 {
                let of = size(0);
                let between = Range { least: of.least.saturating_sub(1), most: of.most.saturating_sub(1) };
                length = length.add(size(1).times(between));
            }
            (length.scaled(TEXT), Some(length))
        }
        "matches" | "find" | "findAll" => {
            let cost = size(0).add(one).scaled(TEXT).times(size(1).scaled(PATTERN));
            (cost, (name != "matches").then(|| Range::up_to(size(0).most)))
        }
        "contains" => (text(0).times(text(1)), None),
        "startsWith" | "endsWith" => (text(1), None),
        "format" | "strings.quote" | "bytes" | "cidr" | "isIP" | "isCIDR" | "ip" | "quantity"
        | "isQuantity" | "semver" | "isSemver" => (text(0), None),
        "string" if args.first().is_some_and(|arg| arg.ty == Type::String) => (text(0), Some(size(0))),
        // Upstream takes these for texts of any length, though its documentation shows them in messages.
        "string" if args.first().is_some_and(|arg| arg.ty.is_scalar()) => {
            (one, Some(Range::up_to(LONGEST_SCALAR)))
        }
        "dyn" => (one, Some(size(0))),
        "ip.isCanonical" => (size(0).scaled(2.0 * TEXT), None),
        "containsIP" => (Range { least: 8, most: 32 }.scaled(TEXT).add(text(1)), None),
        "containsCIDR" => (Range { least: 13, most: 49 }.scaled(TEXT).add(text(1)), None),
        "validate" => (text(1).scaled(FORMAT * PATTERN), None),
        "@in" => match args.get(1).map(|arg| &arg.ty) {
            Some(Type::Map(..)) => (one, None),
            _ => (size(1), None),
        },
        "_+_" => added(args),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => (compared(args), None),
        "sets.contains" | "sets.intersects" => (size(0).times(size(1)), None),
        "sets.equivalent" => (size(0).times(size(1)).scaled(2.0), None),
        "distinct" | "sort" | "@sortByAssociatedKeys" => (size(0).times(size(0)), Some(size(0))),
        "flatten" | "slice" => (size(0), None),
        "lists.range" => {
            (one, args.first().and_then(|arg| arg.number).map(|n| Range::up_to(n.unsigned_abs())))
        }
        _ => (one, None),
    }
}

fn traversal(args: &[Argument]) -> Range {
    let Some(target) = args.first() else { return Range::fixed(1) };
    match &target.ty {
        Type::List(item) if matches!(**item, Type::String | Type::Bytes) => {
            target.size.times(Range::fixed(1).add(target.entry.scaled(TEXT)))
        }
        Type::List(_) => target.size,
        _ => target.size.scaled(TEXT),
    }
}

fn replaced(text: Range, what: Range, with: Range) -> Range {
    let (count, kept) = if what.least == 0 {
        (text.most.saturating_add(1), text.most)
    } else if with.most <= what.least {
        (0, text.most)
    } else {
        (text.most.div_ceil(what.least), 0)
    };
    Range::up_to(count.saturating_mul(with.most).saturating_add(kept))
}

fn added(args: &[Argument]) -> (Range, Option<Range>) {
    let [left, right] = args else { return (Range::fixed(1), None) };
    let sum = left.size.add(right.size);
    match (&left.ty, &right.ty) {
        (Type::List(_), _) | (_, Type::List(_)) => (Range::fixed(1), Some(sum)),
        (left, right) if left.is_scalar() || right.is_scalar() => (Range::fixed(1), None),
        _ => (sum.scaled(TEXT), Some(sum)),
    }
}

fn compared(args: &[Argument]) -> Range {
    let most = args.iter().map(|arg| if arg.ty.is_scalar() { 1 } else { arg.size.most }).min().unwrap_or(1);
    Range { least: u64::from(most > 0), most }.scaled(TEXT)
}
