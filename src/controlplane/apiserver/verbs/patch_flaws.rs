//! What is wrong with the text of a patch, beyond what becomes of it: members that are said twice, and members that an operation
//! of a JSON patch does not have.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Members of an operation.
const OPERATION: [&str; 4] = ["op", "path", "from", "value"];

/// The flaws of a patch that is JSON, in upstream's words.
pub fn flaws(json: &[u8], operations: bool) -> Vec<String> {
    let mut found = Vec::new();
    let walk = Walk { path: String::new(), depth: 0, operations, found: &mut found };
    // That it is JSON was seen before.
    let _ = walk.deserialize(&mut serde_json::Deserializer::from_slice(json));
    match operations {
        true => found.into_iter().map(|flaw| format!("json patch {flaw}")).collect(),
        false => found,
    }
}

struct Walk<'f> {
    path: String,
    depth: usize,
    operations: bool,
    found: &'f mut Vec<String>,
}

impl Walk<'_> {
    fn below(&mut self, path: String) -> Walk<'_> {
        Walk { path, depth: self.depth + 1, operations: self.operations, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let operation = self.operations && self.depth == 1;
            if operation && !OPERATION.contains(&key.as_str()) {
                self.found.push(format!("unknown field {path:?}"));
            } else if !seen.insert(key) {
                self.found.push(format!("duplicate field {path:?}"));
            }
            map.next_value_seed(self.below(path))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        let of = |path: &str, index: usize| format!("{path}[{index}]");
        let path = self.path.clone();
        while list.next_element_seed(self.below(of(&path, index)))?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_or_for_nobody_is_found() {
        let check = |json: &str, operations: bool, expect: &[&str]| {
            assert_eq!(flaws(json.as_bytes(), operations), expect, "{json}");
        };
        check(r#"{"a": {"b": 1, "c": [null, 1.5, -1, true, "x"]}}"#, false, &[]);
        check(r#"{"a": {"b": 1, "b": 2}}"#, false, &["duplicate field \"a.b\""]);
        check(r#"{"a": [{}, {"b": 1, "b": 2}]}"#, false, &["duplicate field \"a[1].b\""]);
        check(r#"[{"op": "add", "path": "/a", "value": {"odd": 1}}]"#, true, &[]);
        check(
            r#"[{"op": "add", "path": "/a", "path": "/a", "odd": 1}]"#,
            true,
            &["json patch duplicate field \"[0].path\"", "json patch unknown field \"[0].odd\""],
        );
    }
}
