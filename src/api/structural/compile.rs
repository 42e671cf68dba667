//! A JSON schema as a definition has it, read once into the form that objects are checked by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use crate::meta::ObjectExt;
use crate::schema::ListType;

/// The types of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl JsonType {
    /// Reads the word of a schema's `type`.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The word of a schema's `type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What a map may hold beside the properties that its schema names.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Nothing: other members are pruned.
    #[default]
    Nothing,
    Anything,
    Of(Box<Structural>),
}

/// A regular expression that is compiled when first something is compared with it. Definitions have many, most for fields that
/// hardly any object has.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// Whether the text matches. An expression that is none, which no definition may have, forbids nothing.
    pub fn is_match(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A compiled schema. A keyword that is absent says nothing.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    pub kind: Option<JsonType>,
    /// Boxed: a map has room for some more than there are, and a schema is large.
    pub properties: BTreeMap<String, Box<Structural>>,
    pub additional: Additional,
    pub items: Option<Box<Structural>>,
    pub int_or_string: bool,
    pub preserve: bool,
    pub embedded: bool,
    pub nullable: bool,
    pub default: Option<Value>,
    pub list_type: ListType,
    /// The keys of a list of type map.
    pub keys: Vec<String>,
    pub required: Vec<String>,
    pub choices: Vec<Value>,
    pub format: Option<String>,
    pub pattern: Option<Pattern>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Value>,
}

impl Structural {
    /// Reads a `JSONSchemaProps`; what is not understood says nothing (definitions are validated before).
    pub fn of(schema: &Value) -> Self {
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let texts = |key: &str| -> Vec<String> {
            let items = schema.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let all = |key: &str| -> Vec<Self> {
            schema.get(key).and_then(Value::as_array).into_iter().flatten().map(Self::of).collect()
        };
        let one = |key: &str| {
            schema.get(key).filter(|inner| inner.is_object()).map(|inner| Box::new(Self::of(inner)))
        };
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let list_type = match schema.text("x-kubernetes-list-type").or(schema.text("x-kubernetes-map-type")) {
            Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Unsaid,
        };
        Self {
            kind: schema.text("type").and_then(JsonType::parse),
            properties: properties.map(|(name, inner)| (name.clone(), Box::new(Self::of(inner)))).collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Additional::Anything,
                Some(inner @ Value::Object(_)) => Additional::Of(Box::new(Self::of(inner))),
                _ => Additional::Nothing,
            },
            items: one("items"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            nullable: flag("nullable"),
            default: schema.get("default").cloned(),
            list_type,
            keys: texts("x-kubernetes-list-map-keys"),
            required: texts("required"),
            choices: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            format: schema.text("format").map(str::to_owned),
            pattern: schema.text("pattern").map(Pattern::new),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag("uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: one("not"),
            rules: schema.array_at("/x-kubernetes-validations").to_vec(),
        }
    }

    /// Whether a default stands anywhere in it.
    pub fn has_defaults(&self) -> bool {
        let additional = match &self.additional {
            Additional::Of(inner) => inner.has_defaults(),
            Additional::Nothing | Additional::Anything => false,
        };
        self.default.is_some()
            || additional
            || self.items.as_ref().is_some_and(|items| items.has_defaults())
            || self.properties.values().any(|inner| inner.has_defaults())
    }

    /// Whether an object may stand anywhere in it.
    pub fn has_embedded(&self) -> bool {
        let additional = match &self.additional {
            Additional::Of(inner) => inner.has_embedded(),
            Additional::Nothing | Additional::Anything => false,
        };
        self.embedded
            || additional
            || self.items.as_ref().is_some_and(|items| items.has_embedded())
            || self.properties.values().any(|inner| inner.has_embedded())
    }

    /// Whether a rule stands anywhere in it.
    pub fn has_rules(&self) -> bool {
        let additional = match &self.additional {
            Additional::Of(inner) => inner.has_rules(),
            Additional::Nothing | Additional::Anything => false,
        };
        !self.rules.is_empty()
            || additional
            || self.items.as_ref().is_some_and(|items| items.has_rules())
            || self.properties.values().any(|inner| inner.has_rules())
            || self.all_of.iter().any(Self::has_rules)
    }

    /// The schema of a member: the property's own, or the one of all others.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).map(|inner| &**inner).or(match &self.additional {
            Additional::Of(inner) => Some(inner),
            Additional::Nothing | Additional::Anything => None,
        })
    }
}
