//! From values back to JSON.

use base64::Engine;
use serde_json::{Map as JsonMap, Value as Json};

use super::fault::Fault;
use super::library;
use super::value::{Key, Val};

impl Val<'_> {
    /// The value as JSON. Fails for what JSON has no form of.
    pub fn to_json(&self) -> Result<Json, Fault> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => (*value).into(),
            Self::Str(text) => Json::from(&**text),
            Self::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Self::Duration(_) | Self::Timestamp(_) | Self::Ip(_) | Self::Cidr(..) => {
                library::text_of(self).unwrap_or_default().into()
            }
            Self::Quantity(quantity) => quantity.to_string().into(),
            Self::List(list) => {
                list.items()?.iter().map(Self::to_json).collect::<Result<Vec<Json>, Fault>>()?.into()
            }
            Self::Map(map) => {
                let mut made = JsonMap::new();
                for (key, value) in map.entries()? {
                    let Key::Str(key) = key else { return Err(Fault::new("keys of objects are strings")) };
                    made.insert(key.to_string(), value.to_json()?);
                }
                Json::Object(made)
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            other => return Err(Fault::new(format!("a {} is no part of an object", other.type_name()))),
        })
    }
}
