//! A cursor over an object that collects what is wrong with it, so that a kind's rules read as a list.

use serde_json::Value;

use super::{FieldError, Path};

static NULL: Value = Value::Null;

/// What a rule about one text says: the sentences, none if it holds.
pub type Rule = fn(&str) -> Vec<String>;

/// One place in an object. `key` arguments name members of it; what is absent or null reads as empty.
pub struct Check<'a, 'e> {
    pub value: &'a Value,
    pub path: Path,
    errors: &'e mut Vec<FieldError>,
}

/// Runs rules over the member `key` of an object (null if it is not there), and returns what they found.
pub fn check<'a>(object: &'a Value, key: &str, rules: impl FnOnce(&mut Check<'a, '_>)) -> Vec<FieldError> {
    check_at(object.get(key).unwrap_or(&NULL), &Path::new(key), rules)
}

/// Runs rules over a value that stands at this path.
pub fn check_at<'a>(
    value: &'a Value,
    path: &Path,
    rules: impl FnOnce(&mut Check<'a, '_>),
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    rules(&mut Check { value, path: path.clone(), errors: &mut errors });
    errors
}

impl<'a> Check<'a, '_> {
    /// The member, null if there is none.
    pub fn get(&self, key: &str) -> &'a Value {
        self.value.get(key).unwrap_or(&NULL)
    }

    pub fn has(&self, key: &str) -> bool {
        !self.get(key).is_null()
    }

    pub fn text(&self, key: &str) -> &'a str {
        self.get(key).as_str().unwrap_or_default()
    }

    pub fn int(&self, key: &str) -> Option<i64> {
        self.get(key).as_i64()
    }

    pub fn flag(&self, key: &str) -> bool {
        self.get(key).as_bool().unwrap_or(false)
    }

    pub fn list(&self, key: &str) -> &'a [Value] {
        self.get(key).as_array().map_or(&[], Vec::as_slice)
    }

    /// The texts of a list of texts.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.list(key).iter().map(|item| item.as_str().unwrap_or_default())
    }

    pub fn at(&self, key: &str) -> Path {
        self.path.child(key)
    }

    pub fn push(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.errors.extend(errors);
    }

    /// The place of a member, there or not.
    pub fn child(&mut self, key: &str) -> Check<'a, '_> {
        Check { value: self.get(key), path: self.path.child(key), errors: &mut *self.errors }
    }

    /// Runs over a member that is there.
    pub fn within(&mut self, key: &str, rules: impl FnOnce(&mut Check<'a, '_>)) {
        if self.has(key) {
            rules(&mut self.child(key));
        }
    }

    /// Runs over each item of a list.
    pub fn each(&mut self, key: &str, mut rules: impl FnMut(&mut Check<'a, '_>)) {
        let path = self.path.child(key);
        for (index, value) in self.list(key).iter().enumerate() {
            rules(&mut Check { value, path: path.index(index), errors: &mut *self.errors });
        }
    }

    /// Runs over each value of a map, at `key[name]`.
    pub fn each_key(&mut self, key: &str, mut rules: impl FnMut(&mut Check<'a, '_>, &'a str)) {
        let path = self.path.child(key);
        for (name, value) in self.get(key).as_object().into_iter().flatten() {
            rules(&mut Check { value, path: path.key(name), errors: &mut *self.errors }, name);
        }
    }

    pub fn required(&mut self, key: &str, why: &str) {
        self.push(FieldError::required(self.at(key), why));
    }

    pub fn forbidden(&mut self, key: &str, why: impl Into<String>) {
        self.push(FieldError::forbidden(self.at(key), why));
    }

    /// The member's value is wrong.
    pub fn invalid(&mut self, key: &str, why: impl Into<String>) {
        self.push(FieldError::invalid(self.at(key), self.get(key).clone(), why));
    }

    /// This place's value is wrong.
    pub fn wrong(&mut self, why: impl Into<String>) {
        self.push(FieldError::invalid(&self.path, self.value.clone(), why));
    }

    pub fn duplicate(&mut self, key: &str) {
        self.push(FieldError::duplicate(self.at(key), self.get(key).clone()));
    }

    /// The text must be there; returns it, empty if it is not.
    pub fn need(&mut self, key: &str, why: &str) -> &'a str {
        let text = self.text(key);
        if text.is_empty() {
            self.required(key, why);
        }
        text
    }

    /// A text that is there must follow the rule.
    pub fn named(&mut self, key: &str, rule: Rule) {
        let text = self.text(key);
        if !text.is_empty() {
            self.follow(key, rule(text));
        }
    }

    /// The text must be there and follow the rule.
    pub fn need_named(&mut self, key: &str, rule: Rule) {
        if !self.need(key, "").is_empty() {
            self.named(key, rule);
        }
    }

    /// The sentences about a member become errors.
    pub fn follow(&mut self, key: &str, sentences: Vec<String>) {
        for sentence in sentences {
            self.invalid(key, sentence);
        }
    }

    /// The sentences about this place become errors.
    pub fn follow_here(&mut self, sentences: Vec<String>) {
        for sentence in sentences {
            self.wrong(sentence);
        }
    }

    /// The text must be one of these; empty is none of them.
    pub fn one_of(&mut self, key: &str, allowed: &[&str]) {
        let text = self.text(key);
        if !allowed.contains(&text) {
            self.push(FieldError::not_supported(self.at(key), text, allowed));
        }
    }

    /// The text, if there is one, must be one of these. An empty one is there: decoding leaves out those that mean nothing.
    pub fn maybe_one_of(&mut self, key: &str, allowed: &[&str]) {
        if self.has(key) {
            self.one_of(key, allowed);
        }
    }

    /// The text must be there, and one of these.
    pub fn need_one_of(&mut self, key: &str, allowed: &[&str], why: &str) {
        if !self.need(key, why).is_empty() {
            self.one_of(key, allowed);
        }
    }

    pub fn not_negative(&mut self, keys: &[&str]) {
        for key in keys {
            if self.int(key).is_some_and(|number| number < 0) {
                self.invalid(key, NOT_NEGATIVE);
            }
        }
    }

    pub fn positive(&mut self, keys: &[&str]) {
        for key in keys {
            if self.int(key).is_some_and(|number| number <= 0) {
                self.invalid(key, "must be greater than 0");
            }
        }
    }

    /// The number, if there is one, must lie in the range.
    pub fn in_range(&mut self, key: &str, low: i64, high: i64) {
        if self.int(key).is_some_and(|number| !(low..=high).contains(&number)) {
            self.invalid(key, super::range_error(low, high));
        }
    }

    /// The member must be what it was.
    pub fn immutable(&mut self, key: &str, old: &Value) {
        if !same(self.get(key), old.get(key).unwrap_or(&NULL)) {
            self.invalid(key, IMMUTABLE);
        }
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(empty),
        _ => false,
    }
}

/// Equal as Go's typed objects are: an absent member, null, and an empty list or map are one.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            left.iter().all(|(key, value)| same(value, right.get(key).unwrap_or(&NULL)))
                && right.iter().all(|(key, value)| left.contains_key(key) || empty(value))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        _ => a == b || (empty(a) && empty(b)),
    }
}

pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub const IMMUTABLE: &str = "field is immutable";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_where_it_is() {
        let object = json!({"spec": {"list": [{"a": -1}, {"kind": "Odd"}]}});
        let errors = check(&object, "spec", |spec| {
            spec.need("name", "");
            spec.each("list", |item| {
                item.not_negative(&["a"]);
                item.maybe_one_of("kind", &["Even"]);
            });
        });
        let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            sentences,
            [
                "spec.name: Required value",
                "spec.list[0].a: Invalid value: -1: must be greater than or equal to 0",
                "spec.list[1].kind: Unsupported value: \"Odd\": supported values: \"Even\"",
            ]
        );
    }

    #[test]
    fn empty_is_absent() {
        assert!(same(&json!({"a": 1, "b": []}), &json!({"a": 1})));
        assert!(same(&json!({"a": 1}), &json!({"a": 1, "b": {}, "c": null})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 0})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }
}
