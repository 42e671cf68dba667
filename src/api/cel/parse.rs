//! From words to an expression; macros are read as what they stand for.

use super::ast::{Expr, Fold, FoldKind, Kind, Literal};
use super::issue::{Issue, Issues};
use super::lex::{self, Token, Word};

/// Texts are no longer, in characters. Rule: cel-go's default.
const LONGEST: usize = 100_000;
/// Expressions are nested no deeper. Rule: cel-go's limit of recursion.
const DEEPEST: usize = 250;
/// Names that are kept back for later versions of the language.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Words of the language that are not kept back but used.
const USED: [&str; 4] = ["true", "false", "null", "in"];

/// Returns whether a name is a word of the language, and so no identifier.
pub(super) fn is_word(name: &str) -> bool {
    RESERVED.contains(&name) || USED.contains(&name)
}

/// Operators, the weakest first.
const OPERATORS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

type Parsed = Result<Expr, Issue>;

/// Reads a text; fails with what is wrong with it.
pub fn parse(source: &str) -> Result<Expr, Issues> {
    let chars: Vec<char> = source.chars().collect();
    let fail = |issue: Issue| Issues { text: source.to_owned(), issues: vec![issue] };
    if chars.len() > LONGEST {
        let message =
            format!("expression code point size exceeds limit: size: {}, limit {LONGEST}", chars.len());
        return Err(fail(Issue { at: 0, message }));
    }
    let tokens = lex::words(&chars).map_err(fail)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expr = parser.expr().map_err(fail)?;
    match parser.peek() {
        Word::End => Ok(expr),
        _ => Err(fail(parser.unexpected("<EOF>"))),
    }
}

fn boxed(expr: Expr) -> Box<Expr> {
    Box::new(expr)
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> &Word {
        &self.token().word
    }

    fn here(&self) -> usize {
        self.token().at
    }

    fn next(&mut self) -> Word {
        let word = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        word
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Word::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Issue> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Issue {
        let message = format!("Syntax error: mismatched input '{}' expecting {wanted}", self.token().shown());
        Issue { at: self.here(), message }
    }

    /// Goes one level deeper.
    fn descend(&mut self) -> Result<(), Issue> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let message = format!("expression recursion limit exceeded: {DEEPEST}");
            return Err(Issue { at: self.here(), message });
        }
        Ok(())
    }

    fn expr(&mut self) -> Parsed {
        self.descend()?;
        let condition = self.operation(0)?;
        let at = self.here();
        let expr = if self.take("?") {
            let yes = self.operation(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            Expr { at, kind: Kind::Conditional(Box::new([condition, yes, no])) }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Operands with operators between them that bind at least as strongly as `least`.
    fn operation(&mut self, least: usize) -> Parsed {
        let mut left = self.unary()?;
        let depth = self.depth;
        loop {
            let at = self.here();
            let Word::Sign(sign) = *self.peek() else { break };
            let Some(binds) = OPERATORS.iter().position(|signs| signs.contains(&sign)) else { break };
            if binds < least {
                break;
            }
            self.next();
            let right = self.operation(binds + 1)?;
            left = match (sign, left) {
                // Chains of these two are flat.
                ("||", Expr { at, kind: Kind::Or(mut all) }) => {
                    all.push(right);
                    Expr { at, kind: Kind::Or(all) }
                }
                ("&&", Expr { at, kind: Kind::And(mut all) }) => {
                    all.push(right);
                    Expr { at, kind: Kind::And(all) }
                }
                ("||", left) => Expr { at, kind: Kind::Or(vec![left, right]) },
                ("&&", left) => Expr { at, kind: Kind::And(vec![left, right]) },
                (sign, left) => {
                    // A chain of others leans to the left: it is as deep as it is long.
                    self.descend()?;
                    let name = if sign == "in" { "@in".to_owned() } else { format!("_{sign}_") };
                    Expr { at, kind: Kind::Call { name, target: None, args: vec![left, right] } }
                }
            };
        }
        self.depth = depth;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.here();
        if self.take("!") {
            let inner = self.nested_unary()?;
            return Ok(Expr {
                at,
                kind: Kind::Call { name: "!_".to_owned(), target: None, args: vec![inner] },
            });
        }
        if !self.take("-") {
            return self.member();
        }
        let negated = match *self.peek() {
            Word::Literal(Literal::Int(i64::MIN)) => Some(Literal::Int(i64::MIN)),
            Word::Literal(Literal::Int(value)) => Some(Literal::Int(-value)),
            Word::Literal(Literal::Double(value)) => Some(Literal::Double(-value)),
            _ => None,
        };
        if let Some(literal) = negated {
            self.next();
            return self.members(Expr { at, kind: Kind::Literal(literal) });
        }
        let inner = self.nested_unary()?;
        Ok(Expr { at, kind: Kind::Call { name: "-_".to_owned(), target: None, args: vec![inner] } })
    }

    fn nested_unary(&mut self) -> Parsed {
        self.descend()?;
        let inner = self.unary()?;
        self.depth -= 1;
        Ok(inner)
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Parsed {
        let depth = self.depth;
        loop {
            let at = self.here();
            if self.take(".") {
                let optional = self.take("?");
                let field = match self.next() {
                    Word::Name(name) | Word::Quoted(name) => name,
                    Word::Sign("in") => "in".to_owned(),
                    _ => {
                        self.at -= 1;
                        return Err(self.unexpected("IDENTIFIER"));
                    }
                };
                if !optional && self.is("(") {
                    let open = self.here();
                    let args = self.args()?;
                    expr = super::macros::member(expr, field, args, open)?;
                } else {
                    expr = Expr { at, kind: Kind::Select { operand: boxed(expr), field, optional } };
                }
            } else if self.take("[") {
                let optional = self.take("?");
                let index = self.expr()?;
                self.expect("]")?;
                expr = Expr { at, kind: Kind::Index { operand: boxed(expr), index: boxed(index), optional } };
            } else if self.is("{")
                && let Some(name) = expr.qualified()
            {
                expr = self.fields(name)?;
            } else {
                break;
            }
            self.descend()?;
        }
        self.depth = depth;
        Ok(expr)
    }

    fn args(&mut self) -> Result<Vec<Expr>, Issue> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.is(")") {
            args.push(self.expr()?);
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.here();
        match self.peek().clone() {
            Word::Literal(literal) => {
                self.next();
                Ok(Expr { at, kind: Kind::Literal(literal) })
            }
            Word::Sign("(") => {
                self.next();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Word::Sign("[") => self.list(),
            Word::Sign("{") => self.map(),
            Word::Sign(".") => {
                self.next();
                self.primary()
            }
            Word::Name(name) => {
                if RESERVED.contains(&name.as_str()) {
                    return Err(Issue { at, message: format!("reserved identifier: {name}") });
                }
                self.next();
                if !self.is("(") {
                    return Ok(Expr { at, kind: Kind::Ident(name) });
                }
                let open = self.here();
                let args = self.args()?;
                super::macros::global(name, args, open)
            }
            _ => Err(self.unexpected("{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}")),
        }
    }

    fn list(&mut self) -> Parsed {
        let at = self.here();
        self.expect("[")?;
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.take("?");
            items.push((self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(Expr { at, kind: Kind::List(items) })
    }

    fn map(&mut self) -> Parsed {
        let at = self.here();
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr { at, kind: Kind::Map(entries) })
    }

    fn fields(&mut self, name: String) -> Parsed {
        let at = self.here();
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let (Word::Name(field) | Word::Quoted(field)) = self.next() else {
                self.at -= 1;
                return Err(self.unexpected("IDENTIFIER"));
            };
            self.expect(":")?;
            fields.push((field, self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr { at, kind: Kind::Struct { name, fields } })
    }
}

/// A loop without condition or body.
pub(super) fn fold(kind: FoldKind, range: Expr, first: String) -> Fold {
    Fold { kind, range, first, second: None, condition: None, body: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        let check = |text: &str, expect: &str| {
            let said = parse(text).expect_err(text).to_string();
            assert!(said.starts_with(expect), "{text}: {said}");
        };
        check("a +", "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>'");
        check("a b", "ERROR: <input>:1:3: Syntax error: mismatched input 'b' expecting <EOF>");
        check("self.a = 1", "ERROR: <input>:1:8: Syntax error: token recognition error at: '='");
        check("'abc", "ERROR: <input>:1:1: Syntax error");
        check("for", "ERROR: <input>:1:1: reserved identifier: for");
        check("a.all(1, true)", "ERROR: <input>:1:7: argument must be a simple name");
        check("has(a)", "ERROR: <input>:1:5: invalid argument to has() macro");
        check(&"(".repeat(300), "ERROR: <input>:1:251: expression recursion limit exceeded: 250");
        check(&format!("1{}", "+1".repeat(300)), "ERROR: <input>:1:502: expression recursion limit exceeded");
    }

    #[test]
    fn what_is_one_is_read() {
        for text in [
            "self.a.?b[?0].orValue(1) > -9223372036854775808",
            "[1, ?x, 2u, 0x1F, 1.5e3, r'\\d', b'ab', '''a\nb''']",
            "{'a': 1, ?'b': optional.none()}",
            "Object{spec: Object.spec{replicas: 1, `a-b`: 2}}",
            "a.all(i, v, i < v) || cel.bind(x, 1, x + 1) == 2 ? a.b : c.d // end",
            "self.__namespace__.in == 'x'",
        ] {
            assert!(parse(text).is_ok(), "{text}: {}", parse(text).unwrap_err());
        }
        // Chains of these two are as flat as they look.
        assert!(parse(&vec!["a"; 2000].join(" || ")).is_ok());
    }
}
