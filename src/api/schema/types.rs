//! The types and fields that a schema is made of.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::meta::Gvk;

/// How server-side apply merges a list or map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// The definitions do not say: a list is atomic, a map granular.
    #[default]
    Unsaid,
    Atomic,
    Set,
    /// A list of maps whose identity is the values of [`Field::keys`].
    Map,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    IntOrString,
    Quantity,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// A set of field paths (`metav1.FieldsV1`).
    Fields,
    /// An embedded object of any kind.
    Raw,
    /// Any JSON.
    Json,
    /// The unions of JSON schemas: a schema, or a list, a boolean, a list of names.
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
    /// A type of the table, by index: see [`Kind::schema`].
    Object(u16),
    List(Box<Kind>),
    Map(Box<Kind>),
}

impl Kind {
    fn parse(text: &'static str, index: &HashMap<&str, u16>) -> Option<Self> {
        if let Some(item) = text.strip_prefix("[]") {
            return Some(Self::List(Box::new(Self::parse(item, index)?)));
        }
        if let Some(item) = text.strip_prefix("{}") {
            return Some(Self::Map(Box::new(Self::parse(item, index)?)));
        }
        if let Some(name) = text.strip_prefix('@') {
            return index.get(name).map(|at| Self::Object(*at));
        }
        Some(match text {
            "string" => Self::String,
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "intstr" => Self::IntOrString,
            "quantity" => Self::Quantity,
            "time" => Self::Time,
            "microtime" => Self::MicroTime,
            "fields" => Self::Fields,
            "raw" => Self::Raw,
            "json" => Self::Json,
            "schema-or-array" => Self::SchemaOrArray,
            "schema-or-bool" => Self::SchemaOrBool,
            "schema-or-strings" => Self::SchemaOrStrings,
            _ => return None,
        })
    }

    /// The type of an object, or of a list's or map's items.
    pub fn schema(&self) -> Option<&'static Schema> {
        match self {
            Self::Object(at) => all().get(usize::from(*at)),
            Self::List(item) | Self::Map(item) => item.schema(),
            _ => None,
        }
    }

    /// The type as Go names it: what decoding errors say.
    pub(super) fn go_name(&self) -> String {
        match self {
            Self::String | Self::Bytes => "string".into(),
            Self::Bool => "bool".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Double => "float64".into(),
            Self::IntOrString => "intstr.IntOrString".into(),
            Self::Quantity => "resource.Quantity".into(),
            Self::Time => "v1.Time".into(),
            Self::MicroTime => "v1.MicroTime".into(),
            Self::Fields => "v1.FieldsV1".into(),
            Self::Raw => "runtime.RawExtension".into(),
            Self::Json | Self::SchemaOrArray | Self::SchemaOrBool | Self::SchemaOrStrings => "JSON".into(),
            Self::Object(_) => {
                let name = self.schema().map_or("", |s| s.name);
                name.split_once('.').map_or(name, |(_, rest)| rest).to_owned()
            }
            Self::List(item) => format!("[]{}", item.go_name()),
            Self::Map(item) => format!("map[string]{}", item.go_name()),
        }
    }
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    /// Protobuf field number; 0: none of its own (see [`Schema::nested`]).
    pub number: u32,
    pub kind: Kind,
    pub required: bool,
    /// Zero differs from absent.
    pub pointer: bool,
    /// Written even if empty.
    pub always: bool,
    pub list_type: ListType,
    /// The keys of a list of type `Map`.
    pub keys: Vec<&'static str>,
    /// `merge`, `replace`, `retainKeys` of strategic merge patch.
    pub patch_strategies: Vec<&'static str>,
    pub merge_key: Option<&'static str>,
}

/// One type.
#[derive(Clone, Debug)]
pub struct Schema {
    /// As `apps.v1.DeploymentSpec`.
    pub name: &'static str,
    /// The kinds it stands for; empty for parts of kinds.
    pub kinds: Vec<Gvk>,
    /// Server-side apply takes a value of this type as a whole.
    pub atomic: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Whether fields beside these are kept as they are: the rest of a custom kind is checked by its own schema.
    pub open: bool,
    /// Protobuf messages whose fields are this type's own in JSON: number and type.
    pub nested: Vec<(u32, Kind)>,
}

impl Schema {
    /// The type of a custom kind's bodies: object metadata is known, everything else is kept.
    pub fn open(kind: Gvk) -> Self {
        let meta = types().by_name.get("meta.v1.ObjectMeta").map_or(Kind::Json, |at| Kind::Object(*at));
        let named = |name, kind| field(name, 0, kind, &[]);
        let fields =
            vec![named("apiVersion", Kind::String), named("kind", Kind::String), named("metadata", meta)];
        Self {
            name: "unstructured.Unstructured",
            kinds: vec![kind],
            atomic: false,
            fields,
            open: true,
            nested: Vec::new(),
        }
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// The last part of the name.
    pub(super) fn struct_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

struct Types {
    all: Vec<Schema>,
    by_name: HashMap<&'static str, u16>,
    by_kind: HashMap<Gvk, u16>,
}

const TEXT: &str = include_str!("builtin.txt");

fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| read(TEXT))
}

fn read(text: &'static str) -> Types {
    let heads = text.lines().filter(|line| !line.starts_with(' '));
    let by_name: HashMap<&str, u16> =
        heads.zip(0u16..).map(|(line, at)| (line.split(' ').next().unwrap_or_default(), at)).collect();
    let mut all: Vec<Schema> = Vec::with_capacity(by_name.len());
    for line in text.lines() {
        let mut words = line.split(' ');
        if !line.starts_with(' ') {
            let name = words.next().unwrap_or_default();
            let atomic = line.split(' ').nth(1) == Some("atomic");
            let kinds = words.filter_map(|kind| {
                let mut parts = kind.split('/');
                Some(Gvk::of(parts.next()?, parts.next()?, parts.next()?))
            });
            all.push(Schema {
                name,
                kinds: kinds.collect(),
                atomic,
                fields: Vec::new(),
                open: false,
                nested: Vec::new(),
            });
            continue;
        }
        let words: Vec<&'static str> = words.skip(1).collect();
        let [name, number, kind, flags @ ..] = words.as_slice() else { continue };
        let (Ok(number), Some(kind)) = (number.parse(), Kind::parse(kind, &by_name)) else { continue };
        let Some(schema) = all.last_mut() else { continue };
        match *name {
            ">" => schema.nested.push((number, kind)),
            name => schema.fields.push(field(name, number, kind, flags)),
        }
    }
    let kinds =
        |(schema, at): (&Schema, u16)| schema.kinds.iter().map(|k| (k.clone(), at)).collect::<Vec<_>>();
    let by_kind = all.iter().zip(0u16..).flat_map(kinds).collect();
    Types { all, by_name, by_kind }
}

fn field(name: &'static str, number: u32, kind: Kind, flags: &[&'static str]) -> Field {
    let value = |key: &str| flags.iter().find_map(|f| f.strip_prefix(key));
    let keys: Vec<&str> = value("keys=").map(|keys| keys.split(',').collect()).unwrap_or_default();
    let list_type = match () {
        () if !keys.is_empty() => ListType::Map,
        () if flags.contains(&"set") => ListType::Set,
        () if flags.contains(&"atomic") => ListType::Atomic,
        () => ListType::Unsaid,
    };
    Field {
        name,
        number,
        kind,
        required: flags.contains(&"required"),
        pointer: flags.contains(&"pointer"),
        always: flags.contains(&"always"),
        list_type,
        keys,
        patch_strategies: value("patch=").map(|p| p.split(',').collect()).unwrap_or_default(),
        merge_key: value("merge-key="),
    }
}

/// All built-in types, sorted by name.
pub fn all() -> &'static [Schema] {
    &types().all
}

/// The type of a built-in kind. `DeleteOptions` and the like belong to every group.
pub fn builtin(kind: &Gvk) -> Option<&'static Schema> {
    let types = types();
    let found = types.by_kind.get(kind).copied().or_else(|| {
        let shared = matches!(kind.kind.as_ref(), "DeleteOptions" | "WatchEvent" | "Status");
        shared.then(|| types.by_name.get(format!("meta.v1.{}", kind.kind).as_str()).copied()).flatten()
    })?;
    types.all.get(usize::from(found))
}

/// A type by its name, as `core.v1.PodSpec`.
pub fn named(name: &str) -> Option<&'static Schema> {
    let at = types().by_name.get(name)?;
    all().get(usize::from(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Storage, builtin as rows};

    #[test]
    fn every_line_is_understood() {
        let fields = TEXT.lines().filter(|l| l.starts_with(' ')).count();
        let read: usize = all().iter().map(|s| s.fields.len() + s.nested.len()).sum();
        assert_eq!(read, fields);
        for schema in all() {
            assert!(schema.fields.is_sorted_by_key(|f| f.name), "{}", schema.name);
        }
    }

    #[test]
    fn every_resource_has_a_type() {
        // What is measured is answered in the form that its makers gave it.
        for row in rows().iter().filter(|row| !matches!(row.storage, Storage::Measured(_))) {
            assert!(builtin(&row.gvk()).is_some(), "{row:?}");
            for sub in &row.subresources {
                let connect = sub.kind.kind.ends_with("Options");
                assert!(connect || builtin(&sub.kind).is_some(), "{row:?} {}", sub.name());
            }
        }
    }
}
