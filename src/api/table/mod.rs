//! Tables as `kubectl get` asks for them (`meta.k8s.io/v1` Table): which columns a kind has and what stands in them.
//!
//! Columns, their order and their texts follow the printers of the Kubernetes API server. A kind without a printer
//! of its own shows name and age.

pub mod access;
pub mod cluster;
mod duration;
mod made;
pub mod network;
pub mod pod;
pub mod policy;
pub mod storage;
mod view;
pub mod workloads;

pub use duration::human_duration;
pub use made::{PathColumn, PathColumns};

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// One column's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the column that identifies the object, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; greater: only by `-o wide`.
    pub priority: u8,
}

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", description, priority: 0 }
    }

    const fn number(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "integer", format: "", description, priority: 0 }
    }

    fn to_value(self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    const NAME: Self = Self {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the object, unique within its namespace (or the cluster) for its kind.",
        priority: 0,
    };
    const AGE: Self = Self::text("Age", "Time since the object was created.");
    const CREATED: Self = Self {
        name: "Created At",
        kind: "date",
        format: "",
        description: "Time at which the object was created.",
        priority: 0,
    };
}

/// How one kind is shown.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    pub columns: &'static [Column],
    /// One object's cells, one for each column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// How the objects of a resource are shown: by a printer in the program, or by columns that a definition names.
#[derive(Clone, Debug)]
pub enum Shown {
    Fixed(&'static Printer),
    ByPath(Arc<PathColumns>),
}

impl Shown {
    /// The table's columns as its head has them.
    pub fn heads(&self) -> Value {
        match self {
            Self::Fixed(printer) => printer.columns.iter().map(|column| column.to_value()).collect(),
            Self::ByPath(columns) => columns.heads(Column::NAME.to_value()),
        }
    }

    /// One object's cells, as many as there are columns.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Fixed(printer) => (printer.cells)(object, now),
            Self::ByPath(columns) => columns.cells(object, now),
        }
    }
}

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`; empty means `Metadata`.
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
pub fn row(printer: &Shown, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".into(), Value::Array(printer.cells(object, now)));
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object".into(), partial_metadata(object));
        }
        IncludeObject::Object => {
            row.insert("object".into(), object.clone());
        }
    }
    Value::Object(row)
}

/// A whole table. `list_meta`: the list's metadata; null for a single object. A watch sends one table of one row per
/// event, the heads in the first only: pass `None` afterwards.
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
    printer: &Shown,
    objects: &[Value],
    list_meta: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let rows = objects.iter().map(|object| row(printer, object, include, now)).collect();
    assemble(Some(printer.heads()), list_meta, rows)
}

/// The object reduced to its metadata (`meta.k8s.io/v1` PartialObjectMetadata).
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// What kinds with nothing special show.
pub const NAME_AND_AGE: Printer =
    Printer { columns: &[Column::NAME, Column::AGE], cells: |o, now| vec![view::name(o), view::age(o, now)] };

/// Name, and the moment instead of the age.
pub const CREATED_AT: Printer = Printer {
    columns: &[Column::NAME, Column::CREATED],
    cells: |o, _| vec![view::name(o), view::created(o)],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_carry_what_was_asked() {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"x": 1}});
        let check = |include, expect: Value| {
            let table = render(
                &Shown::Fixed(&NAME_AND_AGE),
                std::slice::from_ref(&object),
                Value::Null,
                include,
                Timestamp::UNIX_EPOCH,
            );
            assert_eq!(table["rows"][0].get("object").cloned().unwrap_or(Value::Null), expect);
            assert_eq!(table["rows"][0]["cells"], json!(["a", "<unknown>"]));
            assert_eq!(table["columnDefinitions"][0]["format"], "name");
        };
        check(IncludeObject::None, Value::Null);
        check(IncludeObject::Object, object.clone());
        check(
            IncludeObject::Metadata,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}),
        );
    }
}
