//! Label selectors: their text form, their object form, and whether they match.

use std::fmt;

use serde_json::Value;

use super::SelectorError;
use crate::validate::{label_value, qualified_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// Integers only.
    GreaterThan,
    /// Integers only.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

impl Requirement {
    /// `value`: the label's value, if the object has it.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let compare = |than: fn(&i64, &i64) -> bool| {
            let bound = self.values.first().and_then(|v| v.parse().ok());
            matches!((value.and_then(|v| v.parse().ok()), bound), (Some(a), Some(b)) if than(&a, &b))
        };
        let listed = || value.is_some_and(|v| self.values.iter().any(|w| w == v));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(i64::gt),
            Operator::LessThan => compare(i64::lt),
        }
    }
}

/// All requirements must hold. No requirements: everything matches, unless made by [`LabelSelector::nothing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// Reads `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        let mut after = "!, identifier, or 'end of string'";
        loop {
            match parser.peek() {
                Token::End if requirements.is_empty() => break,
                Token::Word(_) | Token::Sign("!") => requirements.push(parser.requirement()?),
                other => return Err(SelectorError(format!("found '{}', expected: {after}", other.text()))),
            }
            match parser.next() {
                Token::End => break,
                Token::Sign(",") => after = "identifier after ','",
                other => {
                    let found = other.text();
                    return Err(SelectorError(format!("found '{found}', expected: ',' or 'end of string'")));
                }
            }
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A `metav1.LabelSelector`: null matches nothing, an empty one everything.
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut result = Self::from_map(selector.get("matchLabels").unwrap_or(&Value::Null));
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" => Operator::GreaterThan,
                "Lt" => Operator::LessThan,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            let values = expression.get("values").and_then(Value::as_array);
            let values = values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            result.requirements.push(Requirement { key: text("key").to_owned(), operator, values });
        }
        Ok(result)
    }

    /// A map of labels that must all be there: a Service's selector. Not a map: everything.
    pub fn from_map(labels: &Value) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        let requirements = labels.as_object().into_iter().flatten().map(requirement).collect();
        Self { requirements, nothing: false }
    }

    /// Matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// `get` answers a label's value.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, r) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            let values = r.values.join(",");
            match r.operator {
                Operator::In if r.values.len() == 1 => write!(f, "{}={values}", r.key)?,
                Operator::NotIn if r.values.len() == 1 => write!(f, "{}!={values}", r.key)?,
                Operator::In => write!(f, "{} in ({values})", r.key)?,
                Operator::NotIn => write!(f, "{} notin ({values})", r.key)?,
                Operator::Exists => write!(f, "{}", r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::GreaterThan => write!(f, "{}>{values}", r.key)?,
                Operator::LessThan => write!(f, "{}<{values}", r.key)?,
            }
        }
        Ok(())
    }
}

/// A piece of a selector's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Sign(text) => text,
            Self::End => "",
        }
    }
}

/// Every sign that a selector may have, the longer ones first.
const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];

struct Parser<'a> {
    rest: &'a str,
}

fn wrong(what: impl fmt::Display) -> SelectorError {
    SelectorError(format!("unable to parse requirement: {what}"))
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return Token::End;
        }
        if let Some(sign) = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) {
            self.rest = &self.rest[sign.len()..];
            return Token::Sign(sign);
        }
        let special = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(special).unwrap_or(self.rest.len()));
        self.rest = rest;
        Token::Word(word)
    }

    fn peek(&self) -> Token<'a> {
        Self { rest: self.rest }.next()
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(wrong(format!("found '{}', expected: identifier", other.text()))),
        };
        match qualified_name(key).join("; ") {
            why if why.is_empty() => Ok(key.to_owned()),
            why => Err(wrong(format!("<nil>: Invalid value: {key:?}: {why}"))),
        }
    }

    /// A value, which may be empty.
    fn value(&mut self) -> Result<String, SelectorError> {
        let value = match self.peek() {
            Token::Word(value) => value,
            Token::End | Token::Sign(",") => return Ok(String::new()),
            other => return Err(wrong(format!("found '{}', expected: identifier", other.text()))),
        };
        self.next();
        check_value(value)
    }

    fn number(&mut self) -> Result<String, SelectorError> {
        let value = self.value()?;
        if value.parse::<i64>().is_err() {
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            return Err(wrong(format!("values[0]: Invalid value: {value:?}: {why}")));
        }
        Ok(value)
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Sign("(") => {}
            other => return Err(wrong(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Token::Word(word) => {
                    self.next();
                    check_value(word)?
                }
                _ => String::new(),
            });
            match self.next() {
                Token::Sign(",") => {}
                Token::Sign(")") => return Ok(values),
                other => return Err(wrong(format!("found '{}', expected: ',' or ')'", other.text()))),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Token::Sign("!") {
            self.next();
            let key = self.key()?;
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        let key = self.key()?;
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let (operator, values) = match self.next() {
            Token::Word("in") => (Operator::In, self.values()?),
            Token::Word("notin") => (Operator::NotIn, self.values()?),
            Token::Sign("=" | "==") => (Operator::In, vec![self.value()?]),
            Token::Sign("!=") => (Operator::NotIn, vec![self.value()?]),
            Token::Sign(">") => (Operator::GreaterThan, vec![self.number()?]),
            Token::Sign("<") => (Operator::LessThan, vec![self.number()?]),
            other => {
                let found = other.text();
                return Err(wrong(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")));
            }
        };
        Ok(Requirement { key, operator, values })
    }
}

fn check_value(value: &str) -> Result<String, SelectorError> {
    match label_value(value).join("; ") {
        why if why.is_empty() => Ok(value.to_owned()),
        why => Err(wrong(format!("values[0]: Invalid value: {value:?}: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(selector: &str, labels: &[(&str, &str)], expect: bool) {
        let parsed = LabelSelector::parse(selector).unwrap();
        let get = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        assert_eq!(parsed.matches(get), expect, "{selector} on {labels:?}");
    }

    #[test]
    fn query_strings() {
        check("", &[], true);
        check("a=b", &[("a", "b")], true);
        check("a==b,c!=d", &[("a", "b")], true);
        check("a in (x, y)", &[("a", "y")], true);
        check("a notin (x,y)", &[("a", "y")], false);
        check("a notin (x,y)", &[], true);
        check("a", &[], false);
        check("!a", &[], true);
        check("a=,b>3", &[("a", ""), ("b", "4")], true);
        check("example.com/a in ()", &[("example.com/a", "")], true);
        for bad in ["a=b c", "a in x", "a b", "=a", "a,", "a=b,,c", "a>x", "a<", "!", "a=(b)"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects() {
        let selector = LabelSelector::from_value(&json!({"matchLabels": {"a": "1"},
            "matchExpressions": [{"key": "b", "operator": "Exists"}]}))
        .unwrap();
        assert_eq!(selector.to_string(), "a=1,b");
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches(|_| Some("x")));
        assert!(LabelSelector::from_value(&json!({})).unwrap().matches(|_| None));
    }
}
