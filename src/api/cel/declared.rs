//! What is declared of a variable's value: its type, how large it may be, and how its JSON is read.

use std::collections::BTreeMap;

use super::parse::is_word;
use super::types::Type;

/// How a JSON value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Bool,
    Int,
    Double,
    Text,
    Bytes,
    Duration,
    Date,
    DateTime,
    /// Whatever it is, as of what is a number or a string.
    Dyn,
    List,
    Map,
    Object,
}

impl Form {
    pub fn word(self) -> &'static str {
        match self {
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Double => "a double",
            Self::Text => "a string",
            Self::Bytes => "a byte string",
            Self::Duration => "a duration string",
            Self::Date => "a date string",
            Self::DateTime => "a date-time string",
            Self::Dyn => "any",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Object => "an object",
        }
    }
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Items {
    /// By where they stand.
    #[default]
    Order,
    Set,
    /// By these members.
    Map(Vec<String>),
}

/// A declaration.
#[derive(Clone, Debug)]
pub struct Declared {
    pub form: Form,
    pub ty: Type,
    /// How many items, entries or characters it has at most.
    pub most: u64,
    /// How many bytes it has as JSON at least.
    pub least_bytes: u64,
    /// Of items and values.
    pub inner: Option<Box<Declared>>,
    /// By name as expressions write it: the name as objects write it, and what it is.
    pub fields: BTreeMap<String, (String, Declared)>,
    pub items: Items,
}

impl Declared {
    /// Something without parts.
    pub fn plain(form: Form, most: u64, least_bytes: u64) -> Self {
        let ty = match form {
            Form::Bool => Type::Bool,
            Form::Int => Type::Int,
            Form::Double => Type::Double,
            Form::Text => Type::String,
            Form::Bytes => Type::Bytes,
            Form::Duration => Type::Duration,
            Form::Date | Form::DateTime => Type::Timestamp,
            Form::Dyn | Form::List | Form::Map | Form::Object => Type::Dyn,
        };
        Self { form, ty, most, least_bytes, inner: None, fields: BTreeMap::new(), items: Items::Order }
    }

    pub fn list(inner: Self, most: u64, items: Items) -> Self {
        let ty = Type::list(inner.ty.clone());
        let inner = Some(Box::new(inner));
        Self { ty, inner, items, ..Self::plain(Form::List, most, 2) }
    }

    pub fn map(inner: Self, most: u64) -> Self {
        let ty = Type::map(Type::String, inner.ty.clone());
        Self { ty, inner: Some(Box::new(inner)), ..Self::plain(Form::Map, most, 2) }
    }

    /// An object whose fields are named in expressions as they are in objects.
    pub fn plain_object(name: &str, fields: Vec<(String, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, inner)| (name.clone(), (name, inner)));
        Self::of_fields(name, fields.collect(), 2)
    }

    /// An object; fields are named as objects write them. What cannot be written in an expression is not in it.
    pub fn object(name: &str, fields: Vec<(String, Self)>, least_bytes: u64) -> Self {
        let fields = fields.into_iter().filter_map(|(raw, inner)| Some((escape(&raw)?, (raw, inner))));
        Self::of_fields(name, fields.collect(), least_bytes)
    }

    fn of_fields(name: &str, fields: BTreeMap<String, (String, Self)>, least_bytes: u64) -> Self {
        let ty = Type::object(name, fields.iter().map(|(name, (_, inner))| (name.clone(), inner.ty.clone())));
        Self { ty, fields, ..Self::plain(Form::Object, 0, least_bytes) }
    }
}

/// How a property is named in expressions; `None`: it cannot be. Rule: `Escape`.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_word(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (part, length) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            c if c.is_ascii_alphanumeric() || c == '_' => (&rest[..1], 1),
            _ => return None,
        };
        out.push_str(part);
        rest = &rest[length..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let check = |name: &str, expect: Option<&str>| assert_eq!(escape(name).as_deref(), expect, "{name}");
        check("namespace", Some("__namespace__"));
        check("x-prop", Some("x__dash__prop"));
        check("redact__d", Some("redact__underscores__d"));
        check("a.b/c", Some("a__dot__b__slash__c"));
        check("string", Some("string"));
        check("a b", None);
        check("1a", None);
    }
}
