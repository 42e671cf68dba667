//! Whether a value is what its schema says, in upstream's words (`kube-openapi`'s validator).

use jiff::Timestamp;
use serde_json::Value;

use super::compile::{JsonType, Structural};
use crate::schema::ListType;
use crate::validate::{FieldError, FieldErrorKind};

/// Everything wrong with a value; `path` is where it stands, empty for an object.
pub fn check(schema: &Structural, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(schema, value, None, path, &mut errors);
    errors
}

/// Everything wrong with what an update changes: what is as it was may be as wrong as it was. Rule: ratcheting of validation.
pub fn check_update(schema: &Structural, value: &Value, old: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(schema, value, Some(old), path, &mut errors);
    errors
}

fn visit(schema: &Structural, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if (value.is_null() && schema.nullable) || old == Some(value) {
        return;
    }
    if !of_type(schema, value, path, errors) {
        return;
    }
    choices(schema, value, path, errors);
    match value {
        Value::String(text) => of_text(schema, text, path, errors),
        Value::Number(number) => of_number(schema, number, path, errors),
        Value::Array(items) => of_list(schema, items, old, path, errors),
        Value::Object(map) => of_map(schema, map, old, path, errors),
        _ => {}
    }
    logic(schema, value, path, errors);
}

fn invalid(path: &str, value: &Value, why: String) -> FieldError {
    let why = if path.is_empty() { why } else { format!("{path} in body {why}") };
    FieldError::invalid(path, value.clone(), why)
}

fn word_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn of_type(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let found = word_of(value);
    let (fits, wanted) = match schema.kind {
        None if schema.int_or_string => (matches!(found, "integer" | "string"), "integer,string"),
        None => (true, ""),
        Some(JsonType::Number) => (matches!(found, "integer" | "number"), "number"),
        Some(kind) => (kind.word() == found, kind.word()),
    };
    if !fits {
        let why = format!("{path} in body must be of type {wanted}: {found:?}");
        errors.push(FieldError::type_invalid(path, found, why));
    }
    fits
}

fn choices(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if schema.choices.is_empty() || schema.choices.contains(value) {
        return;
    }
    let words: Vec<String> =
        schema.choices.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    errors.push(FieldError::not_supported(path, value.clone(), &words));
}

fn of_text(schema: &Structural, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let value = Value::from(text);
    let length = text.chars().count() as u64;
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = schema.min_length.filter(|min| length < *min) {
        errors.push(invalid(path, &value, format!("should be at least {min} chars long")));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        errors.push(invalid(path, &value, format!("should match '{pattern}'")));
    }
    if let Some(format) = schema.format.as_deref().filter(|format| !has_format(format, text)) {
        let why = format!("{path} in body must be of type {format}: {text:?}");
        errors.push(FieldError::invalid(path, value, why));
    }
}

/// Whether a text has a format; formats that nobody checks, upstream neither, everything has.
fn has_format(format: &str, text: &str) -> bool {
    let bytes = || base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).is_ok();
    match format {
        "date-time" => text.parse::<Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => bytes(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uri" => text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some()),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        _ => true,
    }
}

fn of_number(schema: &Structural, number: &serde_json::Number, path: &str, errors: &mut Vec<FieldError>) {
    let value = Value::Number(number.clone());
    let Some(n) = number.as_f64() else { return };
    let fits = match schema.format.as_deref() {
        Some("int32") => number.as_i64().is_none_or(|n| i32::try_from(n).is_ok()),
        _ => true,
    };
    if !fits {
        errors.push(invalid(path, &value, format!("must be of type int32: {number:?}")));
    }
    if let Some(min) = schema.minimum {
        if schema.exclusive_minimum && n <= min {
            errors.push(invalid(path, &value, format!("should be greater than {min}")));
        } else if n < min {
            errors.push(invalid(path, &value, format!("should be greater than or equal to {min}")));
        }
    }
    if let Some(max) = schema.maximum {
        if schema.exclusive_maximum && n >= max {
            errors.push(invalid(path, &value, format!("should be less than {max}")));
        } else if n > max {
            errors.push(invalid(path, &value, format!("should be less than or equal to {max}")));
        }
    }
    if let Some(of) = schema.multiple_of.filter(|of| *of > 0.0 && (n / of).fract() != 0.0) {
        errors.push(invalid(path, &value, format!("should be a multiple of {of}")));
    }
}

fn of_list(
    schema: &Structural,
    items: &[Value],
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let value = || Value::from(items.to_vec());
    let length = items.len() as u64;
    if let Some(min) = schema.min_items.filter(|min| length < *min) {
        errors.push(invalid(path, &value(), format!("should have at least {min} items")));
    }
    if let Some(max) = schema.max_items.filter(|max| length > *max) {
        errors.push(too_many(path, length, max));
    }
    let repeated = |at: usize| items[..at].contains(&items[at]);
    if schema.unique_items && (0..items.len()).any(repeated) {
        errors.push(invalid(path, &value(), "shouldn't contain duplicates".to_owned()));
    }
    for (at, item) in items.iter().enumerate() {
        let here = format!("{path}[{at}]");
        let twice = match schema.list_type {
            ListType::Set => repeated(at),
            ListType::Map => {
                let key =
                    |item: &Value| -> Vec<Value> { schema.keys.iter().map(|k| item[k].clone()).collect() };
                items[..at].iter().any(|before| key(before) == key(item))
            }
            ListType::Unsaid | ListType::Atomic => false,
        };
        if twice {
            let shown = match schema.list_type {
                ListType::Map => {
                    schema.keys.iter().map(|key| (key.clone(), item[key].clone())).collect::<Value>()
                }
                _ => item.clone(),
            };
            errors.push(FieldError::duplicate(&here, shown));
        }
        if let Some(inner) = &schema.items {
            visit(inner, item, earlier(schema, old, item), &here, errors);
        }
    }
}

/// The item of a list before, that is the same one as `item`: items of lists of type map are known by their keys.
pub(super) fn earlier<'v>(schema: &Structural, old: Option<&'v Value>, item: &Value) -> Option<&'v Value> {
    if schema.list_type != ListType::Map {
        return None;
    }
    let same = |before: &&Value| schema.keys.iter().all(|key| before.get(key) == item.get(key));
    old?.as_array()?.iter().find(same)
}

fn too_many(path: &str, count: u64, max: u64) -> FieldError {
    let detail = format!("must have at most {max} items");
    FieldError { kind: FieldErrorKind::TooMany, field: path.to_owned(), value: Some(count.into()), detail }
}

fn of_map(
    schema: &Structural,
    map: &serde_json::Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let count = map.len() as u64;
    if let Some(min) = schema.min_properties.filter(|min| count < *min) {
        let value = Value::Object(map.clone());
        errors.push(invalid(path, &value, format!("should have at least {min} properties")));
    }
    if let Some(max) = schema.max_properties.filter(|max| count > *max) {
        errors.push(too_many(path, count, max));
    }
    for name in schema.required.iter().filter(|name| !map.contains_key(*name)) {
        errors.push(FieldError::required(at(name), ""));
    }
    for (name, value) in map {
        if let Some(member) = schema.member(name) {
            visit(member, value, old.and_then(|old| old.get(name)), &at(name), errors);
        }
    }
}

fn logic(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fits = |schema: &&Structural| check(schema, value, path).is_empty();
    let mut refuse = |what: &str| {
        errors.push(FieldError::invalid(path, value.clone(), format!("{path:?} must {what}")));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(|inner| fits(&inner)) {
        refuse("validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() {
        match schema.one_of.iter().filter(fits).count() {
            0 => refuse("validate one and only one schema (oneOf). Found none valid"),
            1 => {}
            count => {
                refuse(&format!("validate one and only one schema (oneOf). Found {count} valid alternatives"))
            }
        }
    }
    if schema.not.as_deref().is_some_and(|inner| fits(&inner)) {
        refuse("not validate the schema (not)");
    }
    for inner in &schema.all_of {
        visit(inner, value, None, path, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let case = |schema: Value, value: Value, expect: &[&str]| {
            let errors = check(&Structural::of(&schema), &value, "spec.x");
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(said, expect, "{schema} {value}");
        };
        case(
            json!({"type": "integer"}),
            json!("a"),
            &[r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#],
        );
        case(
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            &["spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"],
        );
        case(
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            &[r#"spec.x: Invalid value: "b": spec.x in body should match '^a+$'"#],
        );
        case(
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            &[r#"spec.x: Unsupported value: "c": supported values: "a", "b""#],
        );
        case(json!({"type": "object", "required": ["a"]}), json!({}), &["spec.x.a: Required value"]);
        case(json!({"x-kubernetes-int-or-string": true}), json!("5%"), &[]);
        case(
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "b", "a"]),
            &[r#"spec.x[2]: Duplicate value: "a""#],
        );
        case(
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 1}),
            &[
                r#"spec.x: Invalid value: {"a":1,"b":1}: "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        );
        case(json!({"type": "string", "nullable": true}), json!(null), &[]);
    }
}
