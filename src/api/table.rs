//! Objects as `meta.k8s.io/v1` tables: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::ObjectExt;
use super::resources::Resource;

/// One column's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`.
    pub kind: &'static str,
    /// `name` marks the column that names the row.
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: i32,
}

impl Column {
    pub const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self { name, kind, format: "", description, priority: 0 }
    }

    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", description)
    }

    pub const fn number(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "integer", description)
    }

    /// Shown with `-o wide`.
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self { priority: 1, ..Self::text(name, description) }
    }

    pub const NAME: Self = Self {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace.",
        priority: 0,
    };

    pub const AGE: Self = Self::text("Age", "The time since the object was made.");

    fn to_value(self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority})
    }
}

/// The columns of kinds without their own.
pub const NAME_AND_AGE: &[Column] = &[Column::NAME, Column::text("Created At", "When the object was made.")];

/// The cells to [`NAME_AND_AGE`].
pub fn name_and_age(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.creation_timestamp().unwrap_or_default().into()]
}

/// What of each object stands beside its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// One object's row.
pub fn row(resource: &Resource, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": resource.cells(object, now)});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
            });
        }
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// The table's columns as its head has them.
pub fn heads(resource: &Resource) -> Value {
    resource.columns().iter().map(|c| c.to_value()).collect()
}

/// A whole table. `list_meta`: the list's metadata; null for a single object. A watch sends one table of one row per
/// event, the heads in the first only: pass `heads: false` afterwards.
pub fn assemble(heads: Option<Value>, list_meta: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": if list_meta.is_null() { json!({}) } else { list_meta },
        "columnDefinitions": heads.unwrap_or_else(|| json!([])),
        "rows": rows,
    })
}

/// The table of these objects.
pub fn render(
    resource: &Resource,
    objects: &[Value],
    list_meta: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let rows = objects.iter().map(|object| row(resource, object, include, now)).collect();
    assemble(Some(heads(resource)), list_meta, rows)
}

/// A duration as tables print ages, to the two biggest units that matter; upstream's `HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// The time since a timestamp; `<unknown>` if there is none.
pub fn since(timestamp: Option<&str>, now: Timestamp) -> String {
    let Some(then) = timestamp.and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    human_duration((now.as_millisecond() - then.as_millisecond()).div_euclid(1000))
}

/// The object's age.
pub fn age(object: &Value, now: Timestamp) -> String {
    since(object.creation_timestamp(), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, expect) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (70_000_000, "2y80d"),
        ] {
            assert_eq!(human_duration(seconds), expect, "{seconds}");
        }
    }
}
