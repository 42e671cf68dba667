//! A checked expression, ready to be evaluated.

use std::sync::Arc;

use regex::Regex;

use super::ast::{FoldKind, Literal};
use super::library::Run;

/// A part of a checked expression.
#[derive(Debug)]
pub enum Node {
    Const(Literal),
    /// A type, by its name.
    Type(Arc<str>),
    /// A variable of the environment, by its place there.
    Global(usize),
    /// A variable of a loop or binding, by its place on the stack.
    Local(usize),
    Select {
        operand: Box<Node>,
        field: String,
        optional: bool,
    },
    Has {
        operand: Box<Node>,
        field: String,
    },
    Call {
        run: Run,
        args: Vec<Node>,
    },
    /// A function whose pattern is known beforehand.
    Match {
        how: Matching,
        pattern: Regex,
        args: Vec<Node>,
    },
    /// An item that is marked is an optional, and left out if it has no value.
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(String, Node, bool)>,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
    Conditional(Box<[Node; 3]>),
    Fold(Box<FoldNode>),
    /// The value joins the stack while the body is evaluated.
    Bind {
        init: Box<Node>,
        body: Box<Node>,
    },
    OptMap {
        target: Box<Node>,
        body: Box<Node>,
        flat: bool,
    },
}

/// What is done with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    Matches,
    Find,
    FindAll,
}

/// A loop.
#[derive(Debug)]
pub struct FoldNode {
    pub kind: FoldKind,
    pub range: Node,
    /// Whether index or key, and value, are two variables.
    pub double: bool,
    pub condition: Option<Node>,
    pub body: Option<Node>,
}
