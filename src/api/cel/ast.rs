//! What a text says, before anybody knows the types of anything in it.

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// Where it is told of, in characters from the start of the text.
    pub at: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Literal(Literal),
    Ident(String),
    /// `a.b`, `a.?b`
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(a.b)`
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `a[b]`, `a[?b]`
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// A function; `target`: what stands before its dot.
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// `[a, ?b]`
    List(Vec<(Expr, bool)>),
    /// `{a: b, ?c: d}`
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`
    Struct {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Conditional(Box<[Expr; 3]>),
    Fold(Box<Fold>),
    /// `cel.bind(name, init, body)`
    Bind {
        name: String,
        init: Box<Expr>,
        body: Box<Expr>,
    },
    /// `target.optMap(name, body)`; `flat`: the body is an optional itself.
    OptMap {
        target: Box<Expr>,
        name: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// What a loop makes of what it goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// A list of what the body makes.
    List,
    /// A map of what the body makes of the values, under the same keys.
    Map,
    /// A map of the entries that the body makes.
    Entries,
}

/// A loop over a list or map.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    pub kind: FoldKind,
    pub range: Expr,
    /// The item of a list, the key of a map; with `second` the index or key.
    pub first: String,
    /// The item or value.
    pub second: Option<String>,
    pub condition: Option<Expr>,
    pub body: Option<Expr>,
}

impl Expr {
    /// `a.b.c`, if it is nothing but names.
    pub fn qualified(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { operand, field, optional: false } => {
                Some(format!("{}.{field}", operand.qualified()?))
            }
            _ => None,
        }
    }
}
