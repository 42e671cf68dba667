//! What the types of built-in kinds tell expressions of their objects.

use crate::cel::{Declared, Form, Items};
use crate::schema::{Field, Kind, ListType, Schema};

/// What is declared of a type's objects. A type that stands in itself is open from there on.
pub fn declare_builtin(schema: &'static Schema) -> Declared {
    of_schema(schema, &mut Vec::new())
}

fn of_schema(schema: &'static Schema, path: &mut Vec<&'static str>) -> Declared {
    if path.contains(&schema.name) {
        return plain(Form::Dyn);
    }
    path.push(schema.name);
    let fields = schema.fields.iter().map(|field| (field.name.to_owned(), of_field(field, path)));
    let declared = Declared::object(schema.name, fields.collect(), 2);
    path.pop();
    declared
}

fn plain(form: Form) -> Declared {
    Declared::plain(form, u64::MAX, 2)
}

fn of_field(field: &'static Field, path: &mut Vec<&'static str>) -> Declared {
    let mut declared = of_kind(&field.kind, path);
    declared.items = match field.list_type {
        ListType::Set => Items::Set,
        ListType::Map => Items::Map(field.keys.iter().map(|key| (*key).to_owned()).collect()),
        ListType::Unsaid | ListType::Atomic => Items::Order,
    };
    declared
}

fn of_kind(kind: &'static Kind, path: &mut Vec<&'static str>) -> Declared {
    match kind {
        Kind::String | Kind::Quantity => plain(Form::Text),
        Kind::Bool => plain(Form::Bool),
        Kind::Int32 | Kind::Int64 => plain(Form::Int),
        Kind::Double => plain(Form::Double),
        Kind::Bytes => plain(Form::Bytes),
        Kind::Time | Kind::MicroTime => plain(Form::DateTime),
        Kind::Object(_) => match kind.schema() {
            Some(schema) => of_schema(schema, path),
            None => plain(Form::Dyn),
        },
        Kind::List(item) => Declared::list(of_kind(item, path), u64::MAX, Items::Order),
        Kind::Map(item) => Declared::map(of_kind(item, path), u64::MAX),
        Kind::IntOrString
        | Kind::Fields
        | Kind::Raw
        | Kind::Json
        | Kind::SchemaOrArray
        | Kind::SchemaOrBool
        | Kind::SchemaOrStrings => plain(Form::Dyn),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::meta::Gvk;
    use crate::schema::builtin;

    #[test]
    fn expressions_are_checked_against_kinds() {
        let kind = Gvk::of("apps", "v1", "Deployment");
        let declared = Arc::new(declare_builtin(builtin(&kind).expect("a schema")));
        let kinds = [(kind, declared)];
        let said = |text: &str| {
            let policy = json!({"spec": {"validations": [{"expression": text}]}});
            super::super::warnings(&policy, &kinds, None)
        };
        let good = "object.spec.replicas > 1 && object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z') \
                    && object.spec.template.spec.containers.all(c, c.image.contains('/'))";
        assert!(said(good).is_empty(), "{:?}", said(good));
        let wrong = said("object.spec.replicas > '1'");
        assert_eq!(wrong[0]["fieldRef"], "spec.validations[0].expression");
        let text = wrong[0]["warning"].as_str().expect("text");
        assert!(
            text.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"),
            "{text}"
        );
        assert_eq!(said("object.spec.odd == 1").len(), 1);
    }
}
