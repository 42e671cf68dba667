//! Named formats, and texts with values put into them.

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::value::{Key, Val};
use crate::validate;

type Check = fn(&str) -> Vec<String>;

/// A format that texts may have.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    check: Check,
}

const fn format(name: &'static str, check: Check) -> Format {
    Format { name, check }
}

static NAMED: [Format; 13] = [
    format("dns1123Label", validate::dns1123_label),
    format("dns1123Subdomain", validate::dns1123_subdomain),
    format("dns1035Label", validate::dns1035_label),
    format("qualifiedName", validate::qualified_name),
    format("dns1123LabelPrefix", |text| validate::dns1123_label(&prefix(text))),
    format("dns1123SubdomainPrefix", |text| validate::dns1123_subdomain(&prefix(text))),
    format("dns1035LabelPrefix", |text| validate::dns1035_label(&prefix(text))),
    format("labelValue", validate::label_value),
    format("uri", |text| {
        super::Url::parse(text).err().map(|why| format!("parse {text:?}: {why}")).into_iter().collect()
    }),
    format("uuid", |text| unless(uuid::Uuid::parse_str(text).is_ok(), "does not match the UUID format")),
    format("byte", |text| unless(super::decode_base64(text).is_ok(), "invalid base64")),
    format("date", |text| unless(text.parse::<jiff::civil::Date>().is_ok(), "invalid date")),
    format("datetime", |text| unless(text.parse::<jiff::Timestamp>().is_ok(), "invalid datetime")),
];

/// A name that is to be completed may end with a dash.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(start) => format!("{start}a"),
        None => text.to_owned(),
    }
}

fn unless(holds: bool, why: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![why.to_owned()] }
}

macro_rules! of_name {
    ($at:literal) => {
        |_, _| Ok(Val::Format(&NAMED[$at]))
    };
}

pub const ALL: &[Entry] = &[
    ("format.dns1123Label", "() Format", of_name!(0)),
    ("format.dns1123Subdomain", "() Format", of_name!(1)),
    ("format.dns1035Label", "() Format", of_name!(2)),
    ("format.qualifiedName", "() Format", of_name!(3)),
    ("format.dns1123LabelPrefix", "() Format", of_name!(4)),
    ("format.dns1123SubdomainPrefix", "() Format", of_name!(5)),
    ("format.dns1035LabelPrefix", "() Format", of_name!(6)),
    ("format.labelValue", "() Format", of_name!(7)),
    ("format.uri", "() Format", of_name!(8)),
    ("format.uuid", "() Format", of_name!(9)),
    ("format.byte", "() Format", of_name!(10)),
    ("format.date", "() Format", of_name!(11)),
    ("format.datetime", "() Format", of_name!(12)),
    ("format.named", "(string) optional<Format>", |_, args| match args {
        [Val::Str(name)] => {
            let found = NAMED.iter().find(|format| format.name == &**name).map(Val::Format);
            Ok(Val::Optional(found.map(std::rc::Rc::new)))
        }
        _ => Err(Fault::no_overload()),
    }),
    ("validate", "Format.(string) optional<list<string>>", |budget, args| match args {
        [Val::Format(format), Val::Str(text)] => {
            budget.charge((text.len() as u64).div_ceil(10) * 32)?;
            let wrong = (format.check)(text);
            if wrong.is_empty() {
                return Ok(Val::Optional(None));
            }
            Ok(Val::some(Val::list(wrong.into_iter().map(Val::text).collect())))
        }
        _ => Err(Fault::no_overload()),
    }),
];

/// A text with its clauses, as `%s` and `%.2f`, replaced by values.
pub fn printed<'a>(budget: &mut Budget, text: &str, values: &[Val<'a>]) -> Result<Val<'a>, Fault> {
    let mut out = String::new();
    let mut values = values.iter().enumerate();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().filter(|precision| *precision <= 1000);
        }
        let clause = chars.next().ok_or_else(|| Fault::new("unexpected end of string"))?;
        let Some((at, value)) = values.next() else {
            return Err(Fault::new(format!("index {} out of range", text.matches('%').count())));
        };
        let shown = clause_of(clause, value, precision).ok_or_else(|| {
            Fault::new(format!("error during formatting: argument {at} does not fit clause \"%{clause}\""))
        })?;
        budget.charge_text(shown.len() as u64)?;
        out.push_str(&shown);
    }
    budget.charge_text(text.len() as u64)?;
    Ok(Val::text(out))
}

fn clause_of(clause: char, value: &Val<'_>, precision: Option<usize>) -> Option<String> {
    let number = match value {
        Val::Int(number) => Some(i128::from(*number)),
        Val::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    let float = || match value {
        Val::Double(number) => Some(*number),
        _ => number.map(|number| number as f64),
    };
    let signed = |digits: String| if number < Some(0) { format!("-{digits}") } else { digits };
    let size = number.map(i128::unsigned_abs);
    Some(match clause {
        's' => shown(value),
        'd' => number.map(|number| number.to_string()).or_else(|| match value {
            Val::Double(number) if !number.is_finite() => Some(super::text_of(value)?),
            _ => None,
        })?,
        'f' => format!("{:.*}", precision.unwrap_or(6), float()?),
        'e' => {
            let text = format!("{:.*e}", precision.unwrap_or(6), float()?);
            let (mantissa, exponent) = text.split_once('e')?;
            let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        'b' => match value {
            Val::Bool(value) => u8::from(*value).to_string(),
            _ => signed(format!("{:b}", size?)),
        },
        'o' => signed(format!("{:o}", size?)),
        'x' | 'X' => {
            let digits = match value {
                Val::Str(text) => hex::encode(text.as_bytes()),
                Val::Bytes(bytes) => hex::encode(bytes),
                _ => signed(format!("{:x}", size?)),
            };
            if clause == 'X' { digits.to_uppercase() } else { digits }
        }
        _ => return None,
    })
}

/// As `%s` shows a value.
fn shown(value: &Val<'_>) -> String {
    let all = |items: Vec<String>| items.join(", ");
    match value {
        Val::Null => "null".to_owned(),
        Val::List(list) => {
            format!("[{}]", all(list.items().unwrap_or_default().iter().map(shown).collect()))
        }
        Val::Map(map) => {
            let entries = map.entries().unwrap_or_default();
            let pair =
                |(key, value): &(Key<'_>, Val<'_>)| format!("{}: {}", shown(&key.value()), shown(value));
            format!("{{{}}}", all(entries.iter().map(pair).collect()))
        }
        Val::Quantity(quantity) => quantity.to_string(),
        other => super::text_of(other).unwrap_or_else(|| other.type_name().to_owned()),
    }
}
