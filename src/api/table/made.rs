//! Tables whose columns a definition names.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{human_duration, view};
use crate::structural::{JsonPath, text_of};

/// One column of a definition.
#[derive(Clone, Debug)]
pub struct PathColumn {
    pub name: String,
    /// `integer`, `number`, `string`, `boolean`, `date`.
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: JsonPath,
}

impl PathColumn {
    /// What is shown beside the name when a definition has no columns.
    pub fn age() -> Self {
        Self {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: "Time since the object was created.".to_owned(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp").unwrap_or_default(),
        }
    }
}

/// The columns of a definition, after the name.
#[derive(Clone, Debug)]
pub struct PathColumns {
    pub columns: Vec<PathColumn>,
}

impl PathColumns {
    pub(super) fn heads(&self, name: Value) -> Value {
        let head = |column: &PathColumn| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        };
        std::iter::once(name).chain(self.columns.iter().map(head)).collect()
    }

    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cells = self.columns.iter().map(|column| cell(&column.kind, &column.path.find(object), now));
        std::iter::once(view::name(object)).chain(cells).collect()
    }
}

/// A column's cell. Rule: the table convertor of upstream's CustomResourceDefinition handler.
fn cell(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    let Some(first) = found.first().filter(|value| !value.is_null()) else { return Value::Null };
    match (kind, first) {
        ("integer", value) => {
            value.as_i64().or(value.as_f64().map(|n| n as i64)).map_or(Value::Null, Value::from)
        }
        ("number", value) => value.as_f64().map_or(Value::Null, Value::from),
        ("boolean", value) => value.as_bool().map_or(Value::Null, Value::from),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(then) => {
                human_duration((now - then).total(jiff::Unit::Second).unwrap_or_default() as i64).into()
            }
            Err(_) => "<invalid>".into(),
        },
        ("date", _) => "<invalid>".into(),
        _ => found.iter().map(|value| text_of(value)).collect::<Vec<_>>().join(" ").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_columns_type() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let check = |kind: &str, value: Value, expect: Value| assert_eq!(cell(kind, &[&value], now), expect);
        check("integer", json!(3), json!(3));
        check("integer", json!("3"), json!(null));
        check("string", json!(3), json!("3"));
        check("date", json!("2026-01-01T00:00:00Z"), json!("60s"));
        check("string", json!({"a": 1}), json!("{\"a\":1}"));
        assert_eq!(cell("string", &[], now), Value::Null);
    }
}
