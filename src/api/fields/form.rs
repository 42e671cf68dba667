//! What apply knows of a value's type: whether it is taken as a whole, and what its parts are.

use serde_json::{Map, Value};

use super::set::field_edge;
use crate::schema::{Field, Kind, ListType, Schema};
use crate::structural::{JsonType, Structural};

/// Keys of list items that count as this where an item leaves them out.
const KEY_DEFAULTS: [(&str, &str); 1] = [("protocol", "TCP")];

/// What is known of a kind's objects: the type of its bodies, and for a custom kind the schema of its definition.
#[derive(Clone, Copy, Default)]
pub struct Types<'s> {
    pub schema: Option<&'s Schema>,
    pub structural: Option<&'s Structural>,
}

impl<'s> From<Option<&'s Schema>> for Types<'s> {
    fn from(schema: Option<&'s Schema>) -> Self {
        Self { schema, structural: None }
    }
}

#[derive(Clone, Copy)]
pub enum Form<'s> {
    /// A scalar, or taken as a whole.
    Whole,
    /// An object with declared fields.
    Struct(&'s Schema),
    /// A map from strings.
    Map(&'s Kind),
    /// A list of objects that are told apart by these keys.
    Items(&'s Kind, &'s [&'static str]),
    /// An object of a custom kind: what all objects have, and what its definition says.
    Root(&'s Schema, &'s Structural),
    /// An object or map within one.
    Custom(&'s Structural),
    /// A list of such objects that are told apart by these keys.
    CustomItems(&'s Structural, &'s [String]),
    /// A list of values, each once.
    Set,
    /// Nothing is known: objects have parts, lists are taken as a whole.
    Unknown,
}

impl<'s> Form<'s> {
    pub fn of_object(types: impl Into<Types<'s>>) -> Self {
        match types.into() {
            Types { schema: Some(schema), structural: Some(structural) } => Self::Root(schema, structural),
            Types { schema: Some(schema), structural: None } => Self::Struct(schema),
            Types { schema: None, .. } => Self::Unknown,
        }
    }

    /// What a definition says of a value: lists are taken as a whole, and objects are not, unless it says otherwise.
    fn of_custom(schema: &'s Structural) -> Self {
        match (schema.kind, schema.list_type, &schema.items) {
            (Some(JsonType::Object), ListType::Atomic, _) => Self::Whole,
            (Some(JsonType::Object), ..) => Self::Custom(schema),
            (Some(JsonType::Array), ListType::Set, _) => Self::Set,
            (Some(JsonType::Array), ListType::Map, Some(items)) => Self::CustomItems(items, &schema.keys),
            (None, ..) if schema.preserve => Self::Unknown,
            _ => Self::Whole,
        }
    }

    fn of_field(field: &'s Field) -> Self {
        match (&field.kind, field.list_type) {
            (_, ListType::Atomic) => Self::Whole,
            (Kind::List(_), ListType::Set) => Self::Set,
            (Kind::List(item), ListType::Map) => Self::Items(item, &field.keys),
            (kind, _) => Self::of_kind(kind),
        }
    }

    fn of_kind(kind: &'s Kind) -> Self {
        match kind {
            Kind::Object(_) => match kind.schema() {
                Some(schema) if !schema.atomic => Self::Struct(schema),
                _ => Self::Whole,
            },
            Kind::Map(item) => Self::Map(item),
            _ => Self::Whole,
        }
    }

    /// The form of an object's field or a map's value.
    pub fn below(self, name: &str) -> Self {
        match self {
            Self::Struct(schema) => schema.field(name).map_or(Self::Unknown, Self::of_field),
            Self::Map(item) => Self::of_kind(item),
            Self::Items(item, _) => Self::of_kind(item),
            Self::Root(schema, structural) => match schema.field(name) {
                Some(field) => Self::of_field(field),
                None => structural.member(name).map_or(Self::Unknown, Self::of_custom),
            },
            Self::Custom(schema) => schema.member(name).map_or(Self::Unknown, Self::of_custom),
            Self::CustomItems(item, _) => Self::of_custom(item),
            Self::Unknown => Self::Unknown,
            Self::Whole | Self::Set => Self::Whole,
        }
    }

    /// Whether a field is there even if nothing says so: Go's structs that are no pointers, and what its encoder always writes.
    pub fn always_there(self, name: &str) -> bool {
        let (Self::Struct(schema) | Self::Root(schema, _)) = self else { return false };
        let always =
            |field: &Field| field.always || (!field.pointer && matches!(field.kind, Kind::Object(_)));
        schema.field(name).is_some_and(always)
    }

    /// Whether the names below are declared fields, and no data.
    pub fn is_struct(self) -> bool {
        match self {
            Self::Struct(_) | Self::Root(..) => true,
            Self::Custom(schema) => !schema.properties.is_empty(),
            _ => false,
        }
    }

    /// How a value of this form is taken apart.
    pub fn parts<'v>(self, value: &'v Value) -> Parts<'v> {
        match (self, value) {
            (
                Self::Struct(_) | Self::Root(..) | Self::Custom(_) | Self::Map(_) | Self::Unknown,
                Value::Object(map),
            ) => Parts::Fields(map),
            (Self::Items(_, keys), Value::Array(items)) => {
                Parts::of_items(items, |item| item_edge(item, keys, builtin_default))
            }
            (Self::CustomItems(schema, keys), Value::Array(items)) => Parts::of_items(items, |item| {
                item_edge(item, keys, |key| schema.properties.get(key)?.default.clone())
            }),
            (Self::Set, Value::Array(items)) => {
                Parts::Items(items.iter().map(|item| (value_edge(item), item)).collect())
            }
            _ => Parts::None,
        }
    }
}

/// A value's parts.
pub enum Parts<'v> {
    /// It has none: it is taken as a whole.
    None,
    Fields(&'v Map<String, Value>),
    /// Items, each with the edge that tells it apart.
    Items(Vec<(Box<str>, &'v Value)>),
}

impl<'v> Parts<'v> {
    /// A list whose items have these edges; taken as a whole if one has none.
    fn of_items(items: &'v [Value], edge: impl Fn(&Value) -> Option<Box<str>>) -> Self {
        let edges: Option<Vec<_>> = items.iter().map(edge).collect();
        edges.map_or(Self::None, |edges| Self::Items(edges.into_iter().zip(items).collect()))
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Fields(map) => map.is_empty(),
            Self::Items(items) => items.is_empty(),
        }
    }

    /// Each part with its edge, and its name where it has one.
    pub fn each(&self) -> Vec<(Box<str>, &'v str, &'v Value)> {
        match self {
            Self::None => Vec::new(),
            Self::Fields(map) => {
                map.iter().map(|(name, value)| (field_edge(name), name.as_str(), value)).collect()
            }
            Self::Items(items) => items.iter().map(|(edge, value)| (edge.clone(), "", *value)).collect(),
        }
    }
}

/// What a key of a built-in type counts as where an item leaves it out.
pub fn builtin_default(key: &str) -> Option<Value> {
    KEY_DEFAULTS.iter().find(|(name, _)| *name == key).map(|(_, value)| Value::from(*value))
}

/// The edge to a list item: its keys, sorted, those that it leaves out by `default`. `None` if it is not an object.
pub fn item_edge(
    item: &Value,
    keys: &[impl AsRef<str>],
    default: impl Fn(&str) -> Option<Value>,
) -> Option<Box<str>> {
    let item = item.as_object()?;
    let mut said = Map::new();
    for key in keys.iter().map(AsRef::as_ref) {
        let own = item.get(key).filter(|value| !value.is_null()).cloned();
        if let Some(value) = own.or_else(|| default(key)) {
            said.insert(key.to_owned(), value);
        }
    }
    Some(format!("k:{}", Value::Object(said)).into())
}

/// The edge to a member of a set.
pub fn value_edge(value: &Value) -> Box<str> {
    format!("v:{value}").into()
}
