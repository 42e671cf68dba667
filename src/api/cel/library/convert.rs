//! Conversions between types, and sizes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

type Valued<'a> = Result<Val<'a>, Fault>;

pub const ALL: &[Entry] = &[
    (
        "size",
        "(string) int; (bytes) int; (list<A>) int; (map<A, B>) int; \
         string.() int; bytes.() int; list<A>.() int; map<A, B>.() int",
        size,
    ),
    ("int", "(int) int; (uint) int; (double) int; (string) int; (timestamp) int; (duration) int", int),
    ("uint", "(uint) uint; (int) uint; (double) uint; (string) uint", uint),
    ("double", "(double) double; (int) double; (uint) double; (string) double", double),
    (
        "string",
        "(string) string; (bool) string; (int) string; (uint) string; (double) string; (bytes) string; \
         (timestamp) string; (duration) string; (IP) string; (CIDR) string",
        string,
    ),
    ("bytes", "(bytes) bytes; (string) bytes", bytes),
    ("bool", "(bool) bool; (string) bool", boolean),
    ("dyn", "(A) dyn", |_, args| args.first().cloned().ok_or_else(Fault::no_overload)),
    ("type", "(A) type", |_, args| match args {
        [value] => Ok(Val::Type(value.type_name().into())),
        _ => Err(Fault::no_overload()),
    }),
];

fn size<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let count = match args {
        [Val::Str(text)] => text.chars().count(),
        [Val::Bytes(bytes)] => bytes.len(),
        [Val::List(list)] => list.len(),
        [Val::Map(map)] => map.len(),
        _ => return Err(Fault::no_overload()),
    };
    Ok(Val::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn range(of: &'static str) -> Fault {
    Fault::new(format!("{of} overflow"))
}

fn int<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(Val::Int(match args {
        [Val::Int(value)] => *value,
        [Val::Uint(value)] => i64::try_from(*value).map_err(|_| range("integer"))?,
        [Val::Double(value)] if value.is_finite() && value.abs() < 9.223_372_036_854_775e18 => *value as i64,
        [Val::Double(_)] => return Err(range("integer")),
        [Val::Str(text)] => text
            .parse()
            .map_err(|_| Fault::new(format!("strconv.ParseInt: parsing {:?}: invalid syntax", &**text)))?,
        [Val::Timestamp(time)] => time.as_second(),
        [Val::Duration(nanoseconds)] => *nanoseconds,
        _ => return Err(Fault::no_overload()),
    }))
}

fn uint<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(Val::Uint(match args {
        [Val::Uint(value)] => *value,
        [Val::Int(value)] => u64::try_from(*value).map_err(|_| range("unsigned integer"))?,
        [Val::Double(value)] if *value >= 0.0 && *value < 1.844_674_407_370_955e19 => *value as u64,
        [Val::Double(_)] => return Err(range("unsigned integer")),
        [Val::Str(text)] => text
            .parse()
            .map_err(|_| Fault::new(format!("strconv.ParseUint: parsing {:?}: invalid syntax", &**text)))?,
        _ => return Err(Fault::no_overload()),
    }))
}

fn double<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    Ok(Val::Double(match args {
        [Val::Double(value)] => *value,
        [Val::Int(value)] => *value as f64,
        [Val::Uint(value)] => *value as f64,
        [Val::Str(text)] => text
            .parse()
            .map_err(|_| Fault::new(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", &**text)))?,
        _ => return Err(Fault::no_overload()),
    }))
}

/// What a value is as a text, if it may be one.
pub fn text_of(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Str(text) => text.to_string(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) => shown_double(*value),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Val::Timestamp(time) => time.to_string(),
        Val::Duration(nanoseconds) => super::times::shown_duration(*nanoseconds),
        Val::Ip(address) => address.to_string(),
        Val::Cidr(address, length) => format!("{address}/{length}"),
        Val::Type(name) => name.to_string(),
        _ => return None,
    })
}

/// Go's shortest form: an exponent where it is very large or small.
fn shown_double(value: f64) -> String {
    let size = value.abs();
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    value.to_string()
}

fn string<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    let [value] = args else { return Err(Fault::no_overload()) };
    budget.charge_text(value.weight())?;
    match value {
        Val::Str(_) => Ok(value.clone()),
        Val::Bytes(_) => text_of(value)
            .map(Val::text)
            .ok_or_else(|| Fault::new("invalid UTF-8 in bytes, cannot convert to string")),
        Val::Type(_) => Err(Fault::no_overload()),
        other => text_of(other).map(Val::text).ok_or_else(Fault::no_overload),
    }
}

fn bytes<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    match args {
        [Val::Bytes(bytes)] => Ok(Val::Bytes(bytes.clone())),
        [Val::Str(text)] => {
            budget.charge_text(text.len() as u64)?;
            Ok(Val::Bytes(text.as_bytes().into()))
        }
        _ => Err(Fault::no_overload()),
    }
}

fn boolean<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    match args {
        [Val::Bool(value)] => Ok(Val::Bool(*value)),
        [Val::Str(text)] => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Val::Bool(false)),
            other => Err(Fault::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        },
        _ => Err(Fault::no_overload()),
    }
}

/// The bytes that a text in base 64 stands for.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, Fault> {
    STANDARD.decode(text).map_err(|_| Fault::new("Failed to decode a byte format string"))
}
