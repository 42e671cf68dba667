//! Values while an expression is evaluated. What comes from an object is lent, not copied: a JSON value seen through
//! what its schema declares.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::declared::{Declared, Form, Items};
use super::fault::Fault;
use super::library::{Authorization, Format, Semver, Url};
use crate::quantity::Quantity;

/// A string, lent or made.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Lent(&'a str),
    Made(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// A value.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Text<'a>),
    Bytes(Rc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Rc<Val<'a>>>),
    /// A type, by its name.
    Type(std::sync::Arc<str>),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Quantity(Quantity),
    Semver(Rc<Semver>),
    Url(Rc<Url>),
    Format(&'static Format),
    Authorization(Rc<Authorization<'a>>),
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], Option<&'a Declared>),
    /// The declaration says how its items are told apart.
    Made(Rc<Vec<Val<'a>>>, Option<&'a Declared>),
}

/// A map, or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>, Option<&'a Declared>),
    Made(Rc<BTreeMap<Key<'a>, Val<'a>>>),
    /// Of a type with a name, as `Object.spec`.
    Struct(Rc<str>, Rc<BTreeMap<Key<'a>, Val<'a>>>),
    Lazy(Rc<dyn Members<'a> + 'a>),
}

/// Members that are made when they are asked for.
pub trait Members<'a>: fmt::Debug {
    /// The member, `None`: there is none of this name. Fails as its making does.
    fn member(&self, name: &str, budget: &mut super::Budget) -> Result<Option<Val<'a>>, Fault>;
}

/// What may be a key: whole numbers are the same whatever their type.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Number(i128),
    Str(Text<'a>),
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Str(a), Self::Str(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key<'_> {}

impl<'a> Key<'a> {
    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Number(_) => 1,
            Self::Str(_) => 2,
        }
    }

    /// The key that a value is, if it may be one.
    pub fn of(value: &Val<'a>) -> Option<Self> {
        Some(match value {
            Val::Bool(value) => Self::Bool(*value),
            Val::Int(value) => Self::Number(i128::from(*value)),
            Val::Uint(value) => Self::Number(i128::from(*value)),
            Val::Double(value) if value.fract() == 0.0 => Self::Number(*value as i128),
            Val::Str(text) => Self::Str(text.clone()),
            _ => return None,
        })
    }

    /// Whether two keys are the same.
    fn is(&self, other: &Key<'_>) -> bool {
        match (self, other) {
            (Self::Bool(a), Key::Bool(b)) => a == b,
            (Self::Number(a), Key::Number(b)) => a == b,
            (Self::Str(a), Key::Str(b)) => **a == **b,
            _ => false,
        }
    }

    pub fn value(&self) -> Val<'a> {
        match self {
            Self::Bool(value) => Val::Bool(*value),
            Self::Number(value) => match i64::try_from(*value) {
                Ok(value) => Val::Int(value),
                Err(_) => Val::Uint(u64::try_from(*value).unwrap_or(u64::MAX)),
            },
            Self::Str(text) => Val::Str(text.clone()),
        }
    }
}

impl<'a> Val<'a> {
    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Str(Text::Made(text.into()))
    }

    pub fn lent(text: &'a str) -> Self {
        Self::Str(Text::Lent(text))
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(items), None))
    }

    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    pub fn map(entries: BTreeMap<Key<'a>, Self>) -> Self {
        Self::Map(Map::Made(Rc::new(entries)))
    }

    /// A JSON value of which nothing is declared.
    pub fn dynamic(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Uint(value),
                (None, None) => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::lent(text),
            Json::Array(items) => Self::List(List::Json(items, None)),
            Json::Object(map) => Self::Map(Map::Json(map, None)),
        }
    }

    /// A JSON value as it is declared. Fails if it is not what is declared.
    pub fn declared(json: &'a Json, declared: Option<&'a Declared>) -> Result<Self, Fault> {
        let Some(known) = declared else { return Ok(Self::dynamic(json)) };
        Ok(match (known.form, json) {
            (_, Json::Null) => Self::Null,
            (Form::Double, Json::Number(number)) => Self::Double(number.as_f64().unwrap_or_default()),
            (Form::Int, Json::Number(number)) if number.as_i64().is_none() => {
                Self::Int(number.as_f64().unwrap_or_default() as i64)
            }
            (Form::Bytes, Json::String(text)) => Self::Bytes(super::library::decode_base64(text)?.into()),
            (Form::Duration, Json::String(text)) => super::library::parse_duration(text)
                .map(Self::Duration)
                .ok_or_else(|| Fault::new(format!("Invalid duration {text}")))?,
            (Form::Date, Json::String(text)) => {
                let date: Result<jiff::civil::Date, _> = text.parse();
                let zoned = date.ok().and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
                let zoned =
                    zoned.ok_or_else(|| Fault::new(format!("Invalid date formatted string {text}")))?;
                Self::Timestamp(zoned.timestamp())
            }
            (Form::DateTime, Json::String(text)) => Self::Timestamp(
                text.parse().map_err(|_| Fault::new(format!("Invalid date-time formatted string {text}")))?,
            ),
            (Form::List, Json::Array(items)) => Self::List(List::Json(items, declared)),
            (Form::Map | Form::Object, Json::Object(map)) => Self::Map(Map::Json(map, declared)),
            (Form::Bool, Json::Bool(_))
            | (Form::Int, Json::Number(_))
            | (Form::Text, Json::String(_))
            | (Form::Dyn, _) => Self::dynamic(json),
            (form, _) => {
                return Err(Fault::new(format!("invalid data, expected {} type", form.word())));
            }
        })
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Str(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(Map::Struct(name, _)) => name,
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Url(_) => "kubernetes.URL",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorization(of) => of.type_name(),
        }
    }

    /// How large it is for the count of cost: bytes of texts, items of lists and maps.
    pub fn weight(&self) -> u64 {
        let size = match self {
            Self::Str(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            _ => 1,
        };
        size as u64
    }

    /// Whether two values are the same. Numbers are compared by what they say, sets without order.
    pub fn same(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Self::Null, Val::Null) => true,
            (Self::Bool(a), Val::Bool(b)) => a == b,
            (Self::Str(a), Val::Str(b)) => **a == **b,
            (Self::Bytes(a), Val::Bytes(b)) => a == b,
            (Self::Duration(a), Val::Duration(b)) => a == b,
            (Self::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Self::List(a), Val::List(b)) => a.same(b),
            (Self::Map(a), Val::Map(b)) => a.same(b),
            (Self::Optional(a), Val::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.same(b),
                (a, b) => a.is_none() == b.is_none(),
            },
            (Self::Type(a), Val::Type(b)) => a == b,
            (Self::Ip(a), Val::Ip(b)) => a == b,
            (Self::Cidr(a, n), Val::Cidr(b, m)) => a == b && n == m,
            (Self::Quantity(a), Val::Quantity(b)) => a == b,
            (Self::Semver(a), Val::Semver(b)) => a.cmp(b).is_eq(),
            (Self::Url(a), Val::Url(b)) => a.text == b.text,
            (Self::Format(a), Val::Format(b)) => a.name == b.name,
            (Self::Authorization(a), Val::Authorization(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.numeric() && b.numeric() && a.order(b) == Some(Ordering::Equal),
        }
    }

    fn numeric(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// Which comes first; `None`: they cannot be compared.
    pub fn order(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Uint(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Double(a), Val::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Str(a), Val::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl<'a> List<'a> {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Made(items, _) => items.len(),
        }
    }

    pub fn declaration(&self) -> Option<&'a Declared> {
        match self {
            Self::Json(_, declared) | Self::Made(_, declared) => *declared,
        }
    }

    /// The item at an index; `None`: there is none.
    pub fn get(&self, at: usize) -> Result<Option<Val<'a>>, Fault> {
        match self {
            Self::Json(items, declared) => {
                let inner = declared.and_then(|declared| declared.inner.as_deref());
                items.get(at).map(|item| Val::declared(item, inner)).transpose()
            }
            Self::Made(items, _) => Ok(items.get(at).cloned()),
        }
    }

    /// All items.
    pub fn items(&self) -> Result<Vec<Val<'a>>, Fault> {
        match self {
            Self::Json(..) => (0..self.len()).filter_map(|at| self.get(at).transpose()).collect(),
            Self::Made(items, _) => Ok(items.to_vec()),
        }
    }

    fn same(&self, other: &List<'_>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        if let (Self::Json(a, None), List::Json(b, None)) = (self, other)
            && a == b
        {
            return true;
        }
        let (Ok(mine), Ok(others)) = (self.items(), other.items()) else { return false };
        match self.declaration().map(|declared| &declared.items) {
            Some(Items::Set) => mine.iter().all(|item| others.iter().any(|other| item.same(other))),
            Some(Items::Map(keys)) => mine.iter().all(|item| {
                let other = others.iter().find(|other| same_keys(item, other, keys));
                other.is_some_and(|other| item.same(other))
            }),
            _ => mine.iter().zip(&others).all(|(a, b)| a.same(b)),
        }
    }
}

/// Whether two items of a list of type map have the same keys.
pub fn same_keys(a: &Val<'_>, b: &Val<'_>, keys: &[String]) -> bool {
    let (Val::Map(a), Val::Map(b)) = (a, b) else { return false };
    let plain = |map: &Map<'_>, key: &str| match map {
        Map::Json(map, _) => map.get(key).cloned(),
        _ => None,
    };
    keys.iter().all(|key| plain(a, key) == plain(b, key))
}

impl<'a> Map<'a> {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Made(map) | Self::Struct(_, map) => map.len(),
            Self::Lazy(_) => 1,
        }
    }

    /// The member of a name: of an object a field, as it is written in an expression.
    pub fn field(&self, name: &str, budget: &mut super::Budget) -> Result<Option<Val<'a>>, Fault> {
        match self {
            Self::Json(map, None) => Ok(map.get(name).map(Val::dynamic)),
            Self::Json(map, Some(declared)) => match declared.form {
                Form::Object => match declared.fields.get(name) {
                    Some((raw, inner)) => {
                        map.get(raw).map(|value| Val::declared(value, Some(inner))).transpose()
                    }
                    None => Ok(None),
                },
                _ => map.get(name).map(|value| Val::declared(value, declared.inner.as_deref())).transpose(),
            },
            Self::Made(map) | Self::Struct(_, map) => {
                Ok(map.get(&Key::Str(Text::Made(name.into()))).cloned())
            }
            Self::Lazy(members) => members.member(name, budget),
        }
    }

    /// The value under a key.
    pub fn get(&self, key: &Key<'a>, budget: &mut super::Budget) -> Result<Option<Val<'a>>, Fault> {
        match (self, key) {
            (Self::Made(map) | Self::Struct(_, map), key) => Ok(map.get(key).cloned()),
            (_, Key::Str(name)) => self.field(name, budget),
            _ => Ok(None),
        }
    }

    /// All keys and values.
    pub fn entries(&self) -> Result<Vec<(Key<'a>, Val<'a>)>, Fault> {
        match self {
            Self::Json(map, declared) => {
                let of = |(key, value): (&'a String, &'a Json)| {
                    let inner = declared.map(|declared| match declared.form {
                        Form::Object => {
                            declared.fields.values().find(|(raw, _)| raw == key).map(|(_, inner)| inner)
                        }
                        _ => declared.inner.as_deref(),
                    });
                    Ok((Key::Str(Text::Lent(key)), Val::declared(value, inner.flatten())?))
                };
                map.iter().map(of).collect()
            }
            Self::Made(map) | Self::Struct(_, map) => {
                Ok(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            Self::Lazy(_) => Err(Fault::new("this object cannot be gone through")),
        }
    }

    fn same(&self, other: &Map<'_>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let (Ok(mine), Ok(others)) = (self.entries(), other.entries()) else { return false };
        let (mut mine, mut others) = (mine, others);
        mine.sort_by(|a, b| a.0.cmp(&b.0));
        others.sort_by(|a, b| a.0.cmp(&b.0));
        mine.iter().zip(&others).all(|((key, value), (other, same))| key.is(other) && value.same(same))
    }
}
