//! JSON to objects in one pass: types checked, unknown and duplicate fields found, empty fields left out as
//! Go's encoder would, amounts and times brought to their canonical form.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use jiff::Timestamp;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::types::{Field, Kind, Schema};
use crate::meta::{format_micro_time, format_time};
use crate::quantity::Quantity;
use crate::status::ApiError;

/// What to do about unknown and duplicate fields: the query parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// Drop them and say so; the default when the client does not say.
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// The query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Upstream stops collecting after so many.
const MOST_STRICT_ERRORS: usize = 100;

impl Schema {
    /// Decodes a JSON body. Returns the object and the warnings.
    pub fn decode(&self, body: &[u8], validation: FieldValidation) -> Result<(Value, Vec<String>), ApiError> {
        let mut state = State::default();
        let mut json = serde_json::Deserializer::from_slice(body);
        let seed = Seed { kind: None, schema: Some(self), state: &mut state };
        let result = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
        self.finish(result.map_err(|e| e.to_string()), state, validation)
    }

    /// The same for an object at hand, such as a patch's result or one read from YAML.
    pub fn convert(
        &self,
        object: &Value,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let mut state = State::default();
        let seed = Seed { kind: None, schema: Some(self), state: &mut state };
        let result = seed.deserialize(object);
        self.finish(result.map_err(|e| e.to_string()), state, validation)
    }

    /// Drops unknown fields in place; returns where they were. Leaves the object alone if a type is wrong.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        match self.convert(object, FieldValidation::Warn) {
            Ok((pruned, warnings)) => {
                *object = pruned;
                warnings
            }
            Err(_) => Vec::new(),
        }
    }

    fn finish(
        &self,
        result: Result<Option<Value>, String>,
        state: State,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let kind = self.kinds.first().map_or(self.struct_name(), |k| k.kind.as_ref());
        let version = self.kinds.first().map_or("v1", |k| k.version.as_ref());
        let refuse = |why: String| {
            let what = format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}");
            Err(ApiError::bad_request(what))
        };
        let value = match (result, state.fatal) {
            (Ok(value), None) => value.unwrap_or_else(|| Value::Object(Map::new())),
            (_, Some(why)) => return refuse(why),
            (Err(why), None) if why.contains("recursion limit exceeded") => {
                return Err(ApiError::too_large("the object is nested too deeply"));
            }
            (Err(why), None) => return refuse(why),
        };
        match validation {
            FieldValidation::Strict if !state.strict.is_empty() => {
                refuse(format!("strict decoding error: {}", state.strict.join(", ")))
            }
            FieldValidation::Warn => Ok((value, state.strict)),
            _ => Ok((value, Vec::new())),
        }
    }
}

enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

#[derive(Default)]
struct State {
    path: Vec<Step>,
    /// The types on the way, innermost last.
    structs: Vec<&'static str>,
    strict: Vec<String>,
    fatal: Option<String>,
}

impl State {
    fn path(&self, indices: bool) -> String {
        let mut text = String::new();
        for step in &self.path {
            let dot = if text.is_empty() { "" } else { "." };
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Field(name) => write!(text, "{dot}{name}"),
                Step::Key(key) => write!(text, "{dot}{key}"),
                Step::Index(at) if indices => write!(text, "[{at}]"),
                Step::Index(_) => Ok(()),
            };
        }
        text
    }

    fn strict(&mut self, what: &str, name: &str) {
        if self.strict.len() < MOST_STRICT_ERRORS {
            let path = self.path(true);
            let dot = if path.is_empty() { "" } else { "." };
            self.strict.push(format!("{what} field \"{path}{dot}{name}\""));
        }
    }

    fn fail<E: de::Error>(&mut self, why: String) -> E {
        let error = E::custom(&why);
        self.fatal.get_or_insert(why);
        error
    }

    fn mismatch<E: de::Error>(&mut self, found: &str, kind: &str) -> E {
        let place = match self.structs.last() {
            Some(name) => format!("Go struct field {name}.{}", self.path(false)),
            None => "Go value".to_owned(),
        };
        self.fail(format!("json: cannot unmarshal {found} into {place} of type {kind}"))
    }
}

/// Reads one value of a kind (or the root, of a schema); `None`: null.
struct Seed<'a> {
    kind: Option<&'a Kind>,
    schema: Option<&'a Schema>,
    state: &'a mut State,
}

impl Seed<'_> {
    fn mismatch<E: de::Error>(self, found: &str) -> E {
        let kind = match (self.kind, self.schema) {
            (Some(kind), _) => kind.go_name(),
            (None, Some(schema)) => schema.name.to_owned(),
            (None, None) => String::new(),
        };
        self.state.mismatch(found, &kind)
    }

    fn number<E: de::Error>(self, number: serde_json::Number) -> Result<Option<Value>, E> {
        let whole = number.as_i64();
        let said = format!("number {number}");
        match self.kind {
            Some(Kind::Int64) if whole.is_some() => {}
            Some(Kind::Int32 | Kind::IntOrString) if whole.is_some_and(|n| i32::try_from(n).is_ok()) => {}
            Some(
                Kind::Double
                | Kind::Json
                | Kind::Raw
                | Kind::Fields
                | Kind::SchemaOrArray
                | Kind::SchemaOrBool
                | Kind::SchemaOrStrings,
            ) => {}
            Some(Kind::Quantity) => return self.quantity(&number.to_string()),
            Some(Kind::Int32 | Kind::Int64 | Kind::IntOrString) => return Err(self.mismatch(&said)),
            _ => return Err(self.mismatch("number")),
        }
        Ok(Some(Value::Number(number)))
    }

    fn quantity<E: de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        match Quantity::parse(text) {
            Ok(quantity) => Ok(Some(quantity.to_string().into())),
            Err(why) => Err(self.state.fail(why.to_string())),
        }
    }

    fn time<E: de::Error>(self, text: &str, format: fn(Timestamp) -> String) -> Result<Option<Value>, E> {
        match text.parse::<Timestamp>() {
            Ok(time) => Ok(Some(format(time).into())),
            Err(_) => {
                let why = format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
                );
                Err(self.state.fail(why))
            }
        }
    }

    fn bytes<E: de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match base64::engine::general_purpose::STANDARD.decode(&clean) {
            Ok(_) => Ok(Some(clean.into())),
            Err(base64::DecodeError::InvalidByte(at, _)) => {
                Err(self.state.fail(format!("illegal base64 data at input byte {at}")))
            }
            Err(_) => {
                let at = clean.len().saturating_sub(clean.len() % 4);
                Err(self.state.fail(format!("illegal base64 data at input byte {at}")))
            }
        }
    }

    fn object<'de, A: MapAccess<'de>>(
        self,
        schema: &Schema,
        mut access: A,
    ) -> Result<Option<Value>, A::Error> {
        let state = self.state;
        let mut seen: Vec<&str> = Vec::with_capacity(8);
        let mut map = Map::new();
        state.structs.push(schema.struct_name());
        while let Some(name) = access.next_key::<String>()? {
            let Some(field) = schema.field(&name) else {
                if schema.open {
                    if map.contains_key(&name) {
                        state.strict("duplicate", &name);
                    }
                    state.path.push(Step::Key(name.clone()));
                    let seed = Seed { kind: Some(&Kind::Json), schema: None, state };
                    let value = access.next_value_seed(seed)?;
                    state.path.pop();
                    map.insert(name, value.unwrap_or(Value::Null));
                    continue;
                }
                state.strict("unknown", &name);
                access.next_value::<de::IgnoredAny>()?;
                continue;
            };
            if seen.contains(&field.name) {
                state.strict("duplicate", &name);
            }
            seen.push(field.name);
            state.path.push(Step::Field(field.name));
            let value = access.next_value_seed(Seed { kind: Some(&field.kind), schema: None, state })?;
            state.path.pop();
            match value.filter(|value| field.keeps(value)) {
                Some(value) => map.insert(name, value),
                None => map.remove(&name),
            };
        }
        state.structs.pop();
        schema.complete(&mut map);
        Ok(Some(Value::Object(map)))
    }

    fn map<'de, A: MapAccess<'de>>(self, item: &Kind, mut access: A) -> Result<Option<Value>, A::Error> {
        let state = self.state;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                state.strict("duplicate", &key);
            }
            state.path.push(Step::Key(key.clone()));
            let value = access.next_value_seed(Seed { kind: Some(item), schema: None, state })?;
            state.path.pop();
            map.insert(key, value.unwrap_or_else(|| item.zero()));
        }
        Ok(Some(Value::Object(map)))
    }
}

impl Schema {
    /// What stands in a field of which nothing was said; `None`: nothing does.
    pub fn unsaid(&self, name: &str) -> Option<Value> {
        self.field(name).filter(|field| field.stands()).map(|field| field.kind.zero())
    }

    /// Adds what Go's encoder writes of fields that nothing was said of: clients of other languages reach through them.
    fn complete(&self, object: &mut Map<String, Value>) {
        for field in self.fields.iter().filter(|field| field.stands()) {
            let zero = if object.contains_key(field.name) { Value::Null } else { field.kind.zero() };
            if !zero.is_null() {
                object.insert(field.name.to_owned(), zero);
            }
        }
    }
}

impl Field {
    /// Whether Go's encoder writes the field, whatever it holds: structs that are no pointers, and what is not left out when empty.
    fn stands(&self) -> bool {
        match self.kind {
            _ if self.pointer => false,
            Kind::Object(_) => true,
            _ => self.always,
        }
    }

    /// Whether Go's encoder would write the value: empty ones are left out unless they mean something.
    pub(crate) fn keeps(&self, value: &Value) -> bool {
        if self.always {
            return true;
        }
        match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty() || !matches!(self.kind, Kind::Map(_)),
            _ if self.pointer => true,
            Value::Bool(set) => *set,
            Value::String(text) => !text.is_empty(),
            Value::Number(number) => number.as_f64() != Some(0.0) || self.kind == Kind::IntOrString,
        }
    }
}

impl Kind {
    /// What null stands for in a list or map.
    pub(crate) fn zero(&self) -> Value {
        match self {
            Self::String | Self::Bytes => "".into(),
            Self::Bool => false.into(),
            Self::Int32 | Self::Int64 | Self::IntOrString | Self::Double => 0.into(),
            Self::Quantity => "0".into(),
            Self::Object(_) => {
                let mut object = Map::new();
                if let Some(schema) = self.schema() {
                    schema.complete(&mut object);
                }
                Value::Object(object)
            }
            _ => Value::Null,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        match self.kind {
            Some(Kind::Bool | Kind::Json | Kind::SchemaOrBool | Kind::Raw) => Ok(Some(value.into())),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.number(number),
            None => Err(self.mismatch("number")),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match self.kind {
            Some(
                Kind::String
                | Kind::IntOrString
                | Kind::Json
                | Kind::Raw
                | Kind::SchemaOrArray
                | Kind::SchemaOrStrings,
            ) => Ok(Some(text.into())),
            Some(Kind::Quantity) => self.quantity(text),
            Some(Kind::Time) => self.time(text, format_time),
            Some(Kind::MicroTime) => self.time(text, format_micro_time),
            Some(Kind::Bytes) => self.bytes(text),
            _ => Err(self.mismatch("string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let any = Kind::Json;
        let item = match self.kind {
            Some(Kind::List(item)) => item.as_ref(),
            Some(Kind::Json | Kind::SchemaOrArray | Kind::SchemaOrStrings) => &any,
            _ => return Err(self.mismatch("array")),
        };
        let state = self.state;
        let mut items = Vec::new();
        loop {
            state.path.push(Step::Index(items.len()));
            let next = access.next_element_seed(Seed { kind: Some(item), schema: None, state })?;
            state.path.pop();
            match next {
                Some(value) => items.push(value.unwrap_or_else(|| item.zero())),
                None => return Ok(Some(Value::Array(items))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
        match (self.kind, self.schema) {
            (None, Some(schema)) => self.object(schema, access),
            (Some(kind @ Kind::Object(_)), _) => match kind.schema() {
                Some(schema) => self.object(schema, access),
                None => Err(self.mismatch("object")),
            },
            (Some(Kind::Map(item)), _) => self.map(item, access),
            (
                Some(
                    Kind::Json
                    | Kind::Raw
                    | Kind::Fields
                    | Kind::SchemaOrArray
                    | Kind::SchemaOrBool
                    | Kind::SchemaOrStrings,
                ),
                _,
            ) => self.map(&Kind::Json, access),
            _ => Err(self.mismatch("object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::builtin;
    use super::*;
    use crate::meta::Gvk;

    fn decode(kind: &Gvk, body: &str, validation: FieldValidation) -> Result<(Value, Vec<String>), String> {
        builtin(kind).unwrap().decode(body.as_bytes(), validation).map_err(|e| e.message)
    }

    const DEPLOYMENT: Gvk = Gvk::of("apps", "v1", "Deployment");

    #[test]
    fn strict_errors_read_as_upstream() {
        let body = r#"{"kind":"Deployment","spec":{"replicaz":1,"replicas":2,"replicas":3,
            "template":{"spec":{"containers":[{"name":"a","imag":"x"}]}}}}"#;
        assert_eq!(
            decode(&DEPLOYMENT, body, FieldValidation::Strict).unwrap_err(),
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
             unknown field \"spec.replicaz\", duplicate field \"spec.replicas\", \
             unknown field \"spec.template.spec.containers[0].imag\""
        );
        let (value, warnings) = decode(&DEPLOYMENT, body, FieldValidation::Warn).unwrap();
        assert_eq!(warnings.len(), 3);
        assert_eq!(
            value["spec"],
            json!({"replicas": 3, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {}}]}}})
        );
    }

    #[test]
    fn type_errors_read_as_upstream() {
        let body = r#"{"spec":{"replicas":"two"}}"#;
        assert_eq!(
            decode(&DEPLOYMENT, body, FieldValidation::Ignore).unwrap_err(),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string \
             into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }

    #[test]
    fn empty_and_null_are_left_out_and_forms_are_canonical() {
        let body = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":null,"labels":{}},
            "spec":{"nodeName":"","hostNetwork":false,"terminationGracePeriodSeconds":0,"containers":[{"name":"c",
            "resources":{"limits":{"cpu":"1000m","memory":1024}},"securityContext":{}}]},"status":{}}"#;
        let (value, warnings) = decode(&Gvk::of("", "v1", "Pod"), body, FieldValidation::Strict).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
                "terminationGracePeriodSeconds": 0, "containers": [{"name": "c",
                "resources": {"limits": {"cpu": "1", "memory": "1024"}}, "securityContext": {}}]}, "status": {}})
        );
    }
}
