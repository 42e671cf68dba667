//! Signatures, as they are written in the tables: `list<A>.indexOf(A) int` is `list<A>.(A) int`.

use crate::cel::types::Type;

/// One way to call a function.
#[derive(Debug)]
pub struct Overload {
    /// Whether the first argument stands before a dot.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    /// How many types it leaves open.
    pub params: usize,
}

/// Reads signatures, parted by semicolons.
pub fn read(text: &str) -> Vec<Overload> {
    text.split(';').map(|one| overload(one.trim())).collect()
}

fn overload(text: &str) -> Overload {
    let mut reader = Reader { rest: text };
    let mut args = Vec::new();
    let member = !reader.rest.starts_with('(');
    if member {
        args.push(reader.ty());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.rest.starts_with(')') {
        args.push(reader.ty());
        reader.skip(",");
    }
    reader.skip(")");
    let result = reader.ty();
    Overload { member, args, result, params: 2 }
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn skip(&mut self, sign: &str) {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(sign).unwrap_or(self.rest).trim_start();
    }

    fn ty(&mut self) -> Type {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "A" => Type::Param(0),
            "B" => Type::Param(1),
            "null" => Type::Null,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "list" => Type::list(self.inner()),
            "optional" => Type::optional(self.inner()),
            "map" => {
                self.skip("<");
                let key = self.ty();
                self.skip(",");
                let value = self.ty();
                self.skip(">");
                Type::map(key, value)
            }
            word => Type::named(word).or_else(|| library(word)).unwrap_or(Type::Dyn),
        }
    }

    fn inner(&mut self) -> Type {
        self.skip("<");
        let ty = self.ty();
        self.skip(">");
        ty
    }
}

/// The libraries' types: the word in signatures, and the full name.
const TYPES: [(&str, &str); 11] = [
    ("IP", "net.IP"),
    ("CIDR", "net.CIDR"),
    ("Quantity", "kubernetes.Quantity"),
    ("Semver", "kubernetes.Semver"),
    ("URL", "kubernetes.URL"),
    ("Format", "kubernetes.NamedFormat"),
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Decision", "kubernetes.authorization.Decision"),
];

fn library(word: &str) -> Option<Type> {
    TYPES.iter().find(|(short, _)| *short == word).map(|(_, full)| Type::Opaque(full))
}

/// A library's type by its full name.
pub fn opaque(name: &str) -> Option<Type> {
    TYPES.iter().find(|(_, full)| *full == name).map(|(_, full)| Type::Opaque(full))
}
