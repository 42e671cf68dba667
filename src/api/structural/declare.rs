//! What a structural schema tells expressions of its values. Rule: `SchemaDeclType`.

use super::compile::{Additional, JsonType, Structural};
use crate::cel::{Declared, Form, Items};
use crate::schema::ListType;

/// The largest request there is, in bytes, as far as estimates of cost go.
pub const LARGEST_REQUEST: u64 = 3 * 1024 * 1024;
/// The longest name of an object, in characters.
const LONGEST_NAME: u64 = 253;
/// A character has so many bytes at most.
const CHARACTER: u64 = 4;

/// What is declared of a schema's values; `None`: expressions do not see them. `root`: it is an object with metadata. `name`: of
/// the type.
pub fn declare(schema: &Structural, root: bool, name: &str) -> Option<Declared> {
    if schema.int_or_string {
        return Some(Declared::plain(Form::Dyn, characters(schema).unwrap_or(LARGEST_REQUEST - 2), 1));
    }
    match schema.kind? {
        JsonType::Array => {
            let items = schema.items.as_ref()?;
            let inner = declare(items, items.embedded, &format!("{name}.@idx"))?;
            let most = schema.max_items.unwrap_or((LARGEST_REQUEST - 2) / (inner.least_bytes + 1));
            let told = match schema.list_type {
                ListType::Set => Items::Set,
                ListType::Map => Items::Map(schema.keys.clone()),
                ListType::Unsaid | ListType::Atomic => Items::Order,
            };
            Some(Declared::list(inner, most, told))
        }
        JsonType::Object => object(schema, root, name),
        JsonType::String => Some(text(schema)),
        JsonType::Boolean => Some(Declared::plain(Form::Bool, 1, 4)),
        JsonType::Integer => Some(Declared::plain(Form::Int, 1, 1)),
        JsonType::Number => Some(Declared::plain(Form::Double, 1, 1)),
    }
}

fn characters(schema: &Structural) -> Option<u64> {
    schema.max_length.map(|length| length.saturating_mul(CHARACTER))
}

fn object(schema: &Structural, root: bool, name: &str) -> Option<Declared> {
    if let Additional::Of(values) = &schema.additional {
        let inner = declare(values, values.embedded, &format!("{name}.@elem"))?;
        let most = schema.max_properties.unwrap_or((LARGEST_REQUEST - 2) / (inner.least_bytes + 6));
        return Some(Declared::map(inner, most));
    }
    let of_root = ["apiVersion", "kind", "metadata"];
    let mut least = 2;
    let mut fields = Vec::new();
    for (field, inner) in
        schema.properties.iter().filter(|(field, _)| !(root && of_root.contains(&field.as_str())))
    {
        let Some(declared) = declare(inner, inner.embedded, &format!("{name}.{field}")) else { continue };
        if schema.required.contains(field) && inner.default.is_none() {
            least += field.len() as u64 + declared.least_bytes + 4;
        }
        fields.push((field.clone(), declared));
    }
    if root {
        let plain = || Declared::plain(Form::Text, LARGEST_REQUEST - 2, 2);
        fields.push(("apiVersion".to_owned(), plain()));
        fields.push(("kind".to_owned(), plain()));
        let capped = |field: &str, most: u64| {
            let own = schema.properties.get("metadata").and_then(|metadata| metadata.properties.get(field));
            let most = own.and_then(|own| own.max_length).unwrap_or(most).min(most);
            (field.to_owned(), Declared::plain(Form::Text, most * CHARACTER, 2))
        };
        let names = vec![capped("name", LONGEST_NAME), capped("generateName", LONGEST_NAME - 1)];
        fields.push(("metadata".to_owned(), Declared::object(&format!("{name}.metadata"), names, 2)));
    }
    Some(Declared::object(name, fields, least))
}

fn text(schema: &Structural) -> Declared {
    let longest =
        || schema.choices.iter().filter_map(|choice| choice.as_str()).map(|text| text.len() as u64).max();
    match schema.format.as_deref() {
        Some("byte") => Declared::plain(Form::Bytes, schema.max_length.unwrap_or(LARGEST_REQUEST - 2), 2),
        Some("duration") => Declared::plain(Form::Duration, 32, 3),
        Some("date") => Declared::plain(Form::Date, 12, 12),
        Some("date-time") => Declared::plain(Form::DateTime, 32, 21),
        _ => {
            let most = characters(schema).or_else(longest).unwrap_or(LARGEST_REQUEST - 2);
            Declared::plain(Form::Text, most, 2)
        }
    }
}
