//! The types of expressions, how they are written, and which value may stand where which is wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Known at run time only.
    Dyn,
    /// Of an expression that was refused already: it fits everywhere, so that one mistake is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// The type of a type.
    TypeOf(Arc<Type>),
    Object(Arc<ObjectType>),
    /// A type of a library, by its full name.
    Opaque(&'static str),
    /// A variable of a signature.
    Param(u32),
}

/// An object with known fields.
#[derive(Debug)]
pub struct ObjectType {
    pub name: String,
    pub fields: BTreeMap<String, Type>,
    /// Whether fields that are not named are let through, as of any type.
    pub open: bool,
}

impl PartialEq for ObjectType {
    /// Names are unique in one environment.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Type {
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    pub fn object(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields = fields.into_iter().collect();
        Self::Object(Arc::new(ObjectType { name: name.into(), fields, open: false }))
    }

    pub fn is_dynamic(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether its values take one place whatever they are, in estimates of cost.
    pub fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Bool
                | Self::Int
                | Self::Uint
                | Self::Double
                | Self::Duration
                | Self::Timestamp
                | Self::Null
        )
    }

    /// What an optional holds, else itself; and whether it was one.
    pub fn unwrapped(&self) -> (&Self, bool) {
        match self {
            Self::Optional(inner) => (inner, true),
            other => (other, false),
        }
    }

    /// The type that a word of the language stands for, as `int`.
    pub fn named(word: &str) -> Option<Self> {
        let any = || Arc::new(Self::Dyn);
        Some(match word {
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "null_type" => Self::Null,
            "list" => Self::List(any()),
            "map" => Self::Map(any(), any()),
            "dyn" => Self::Dyn,
            "type" => Self::TypeOf(any()),
            "google.protobuf.Duration" => Self::Duration,
            "google.protobuf.Timestamp" => Self::Timestamp,
            "optional_type" => Self::Optional(any()),
            _ => super::library::opaque(word)?,
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::TypeOf(inner) => write!(f, "type({inner})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(n) => write!(f, "_var{n}"),
        }
    }
}

/// What the parameters of signatures stand for, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Substitution(Vec<Option<Type>>);

impl Substitution {
    /// A parameter that nothing is known of.
    pub fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Param(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    fn bound(&self, param: u32) -> Option<&Type> {
        self.0.get(param as usize)?.as_ref()
    }

    fn bind(&mut self, param: u32, to: Type) {
        if to != Type::Param(param)
            && !self.occurs(param, &to)
            && let Some(slot) = self.0.get_mut(param as usize)
        {
            *slot = Some(to);
        }
    }

    fn occurs(&self, param: u32, within: &Type) -> bool {
        match within {
            Type::Param(other) => {
                *other == param || self.bound(*other).is_some_and(|t| self.occurs(param, t))
            }
            Type::List(inner) | Type::Optional(inner) | Type::TypeOf(inner) => self.occurs(param, inner),
            Type::Map(key, value) => self.occurs(param, key) || self.occurs(param, value),
            _ => false,
        }
    }

    /// A type with its parameters replaced by what they stand for; `free`: what is not known becomes dynamic.
    pub fn apply(&self, ty: &Type, free: bool) -> Type {
        match ty {
            Type::Param(param) => match self.bound(*param) {
                Some(bound) => self.apply(bound, free),
                None if free => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(inner) => Type::list(self.apply(inner, free)),
            Type::Optional(inner) => Type::optional(self.apply(inner, free)),
            Type::TypeOf(inner) => Type::TypeOf(Arc::new(self.apply(inner, free))),
            Type::Map(key, value) => Type::map(self.apply(key, free), self.apply(value, free)),
            other => other.clone(),
        }
    }

    /// A signature's type with its own parameters replaced by `fresh` ones.
    pub fn instantiate(ty: &Type, fresh: &[Type]) -> Type {
        let of = |inner: &Type| Self::instantiate(inner, fresh);
        match ty {
            Type::Param(param) => fresh.get(*param as usize).cloned().unwrap_or(Type::Dyn),
            Type::List(inner) => Type::list(of(inner)),
            Type::Optional(inner) => Type::optional(of(inner)),
            Type::TypeOf(inner) => Type::TypeOf(Arc::new(of(inner))),
            Type::Map(key, value) => Type::map(of(key), of(value)),
            other => other.clone(),
        }
    }

    /// Whether all of `given` may stand where `wanted` are; remembers what parameters must be for that, unless they may not.
    pub fn assign_all(&mut self, given: &[Type], wanted: &[Type]) -> bool {
        if given.len() != wanted.len() {
            return false;
        }
        let before = self.clone();
        let fits = given.iter().zip(wanted).all(|(given, wanted)| self.unify(given, wanted));
        if !fits {
            *self = before;
        }
        fits
    }

    /// Whether a value of type `given` may stand where `wanted` is.
    pub fn assign(&mut self, given: &Type, wanted: &Type) -> bool {
        self.assign_all(std::slice::from_ref(given), std::slice::from_ref(wanted))
    }

    fn unify(&mut self, given: &Type, wanted: &Type) -> bool {
        if given == wanted {
            return true;
        }
        for (param, other) in [(wanted, given), (given, wanted)] {
            let Type::Param(param) = param else { continue };
            let Some(bound) = self.bound(*param).cloned() else {
                self.bind(*param, other.clone());
                return true;
            };
            if !self.unify(other, &bound) {
                return false;
            }
            if bound != *other && general(other, &bound) {
                self.bind(*param, other.clone());
            }
            return true;
        }
        if given.is_dynamic() || wanted.is_dynamic() {
            return true;
        }
        match (given, wanted) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::TypeOf(_), Type::TypeOf(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Map(k1, v1), Type::Map(k2, v2)) => self.unify(k1, k2) && self.unify(v1, v2),
            _ => false,
        }
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Duration | Type::Timestamp
    )
}

/// Whether the first type says as much as the second, or less.
fn general(first: &Type, second: &Type) -> bool {
    match (first, second) {
        (Type::Dyn | Type::Param(_), _) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => general(a, b),
        (Type::Map(k1, v1), Type::Map(k2, v2)) => general(k1, k2) && general(v1, v2),
        _ => first == second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_written() {
        let mut all = Substitution::default();
        let a = all.fresh();
        assert!(all.assign_all(&[Type::list(Type::Int), Type::Int], &[Type::list(a.clone()), a.clone()]));
        assert_eq!(all.apply(&Type::map(Type::String, a), true).to_string(), "map(string, int)");
        let b = all.fresh();
        assert!(!all.assign_all(&[Type::list(Type::Int), Type::String], &[Type::list(b.clone()), b.clone()]));
        assert_eq!(all.apply(&b, true), Type::Dyn);
        assert!(all.assign(&Type::Null, &Type::Timestamp) && !all.assign(&Type::Null, &Type::Int));
        assert!(all.assign(&Type::list(Type::Dyn), &Type::list(Type::Bool)));
    }
}
