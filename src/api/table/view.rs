//! Reading cells out of objects.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::human_duration;

pub const NONE: &str = "<none>";
pub const UNKNOWN: &str = "<unknown>";
pub const UNSET: &str = "<unset>";

/// The text at a JSON pointer; empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; 0 if there is none, as for a Go field that was left out.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn map<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// How many entries the map at a pointer has.
pub fn count(value: &Value, pointer: &str) -> usize {
    map(value, pointer).map_or(0, Map::len)
}

/// `text`, or another text where it is empty.
pub fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

pub fn name(value: &Value) -> Value {
    text(value, "/metadata/name").into()
}

pub fn created(value: &Value) -> Value {
    value.pointer("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null)
}

pub fn age(value: &Value, now: Timestamp) -> Value {
    since(text(value, "/metadata/creationTimestamp"), now).into()
}

/// Time from an RFC 3339 text to now; `<unknown>` where there is none.
pub fn since(timestamp: &str, now: Timestamp) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human_duration((now - then).total(jiff::Unit::Second).unwrap_or_default().floor() as i64),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// Seconds between two RFC 3339 texts.
pub fn between(from: &str, to: &str) -> Option<i64> {
    let (from, to) = (from.parse::<Timestamp>().ok()?, to.parse::<Timestamp>().ok()?);
    Some(to.as_second() - from.as_second())
}

/// The texts at a pointer inside each item, joined.
pub fn join(items: &[Value], pointer: &str, separator: &str) -> String {
    items.iter().map(|item| text(item, pointer)).collect::<Vec<_>>().join(separator)
}

/// The texts of an array of texts, joined.
pub fn join_texts(items: &[Value], separator: &str) -> String {
    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

/// `a=b,c=d`, sorted by key; `<none>` if empty.
pub fn labels(value: &Value, pointer: &str) -> String {
    let pairs: Vec<String> = map(value, pointer)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or(&pairs.join(","), NONE).to_owned()
}

/// A LabelSelector object in the form kubectl's `-l` takes; `<none>` if it selects nothing in particular.
pub fn selector(value: &Value, pointer: &str) -> String {
    let mut parts: Vec<String> = map(value, &format!("{pointer}/matchLabels"))
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for rule in items(value, &format!("{pointer}/matchExpressions")) {
        let (key, values) = (text(rule, "/key"), join_texts(items(rule, "/values"), ","));
        parts.push(match text(rule, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or(&parts.join(","), NONE).to_owned()
}

/// Whether the status says `True` for a condition.
pub fn condition(value: &Value, kind: &str) -> bool {
    items(value, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
}

/// An IntOrString or a number as text; `N/A` if absent.
pub fn int_or_string(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "N/A".to_owned(),
    }
}
