//! Paths that rules name a field by: `.spec.a`, `['b.c']`. Rule: `ValidFieldPath`.

use super::compile::{Additional, Structural};

/// The path as errors write it, relative to the rule's own. Fails with what is wrong with it.
pub fn field_path(path: &str, schema: &Structural) -> Result<String, String> {
    let (mut out, mut rest, mut schema) = (String::new(), path, Some(schema));
    while !rest.is_empty() {
        let (name, after) = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return Err("unexpected end of JSON path".to_owned());
            }
            (name.to_owned(), after)
        } else if let Some(after) = rest.strip_prefix("['") {
            quoted(after)?
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        };
        let within = schema.ok_or_else(|| "does not refer to a valid field".to_owned())?;
        let next = if within.properties.is_empty() {
            let Additional::Of(values) = &within.additional else {
                return Err("does not refer to a valid field".to_owned());
            };
            out.push_str(&format!("[{name}]"));
            Some(&**values)
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
            within.properties.get(&name).map(|inner| &**inner)
        };
        schema = Some(next.ok_or_else(|| "does not refer to a valid field".to_owned())?);
        rest = after;
    }
    Ok(out)
}

/// The text up to a quote and a bracket, without its escapes; and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                let after = text[at + 1..].strip_prefix(']');
                return after.map(|after| (name, after)).ok_or_else(|| "expected ]".to_owned());
            }
            '\\' => match chars.next() {
                Some((_, 'n')) => name.push('\n'),
                Some((_, 't')) => name.push('\t'),
                Some((_, 'r')) => name.push('\r'),
                Some((_, c @ ('\'' | '\\'))) => name.push(c),
                other => {
                    let c = other.map(|(_, c)| c).unwrap_or_default();
                    return Err(format!("invalid string literal: invalid escape char \\{c}"));
                }
            },
            c => name.push(c),
        }
    }
    Err("unexpected end of JSON path".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_name_fields_there_are() {
        let schema = Structural::of(&json!({"type": "object", "properties": {
            "a": {"type": "object", "properties": {"b.c": {"type": "string"}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}}}));
        let check = |path: &str, expect: Result<&str, &str>| {
            assert_eq!(field_path(path, &schema), expect.map(str::to_owned).map_err(str::to_owned), "{path}");
        };
        check(".a", Ok("a"));
        check(".a['b.c']", Ok("a.b.c"));
        check(".m['k']", Ok("m[k]"));
        check(".z", Err("does not refer to a valid field"));
        check(".m.k.z", Err("does not refer to a valid field"));
        check("a", Err("expected [ or . but got: a"));
        check(".a.", Err("unexpected end of JSON path"));
    }
}
