//! The paths of printer columns and selectable fields: kubectl's JSONPath, as far as definitions use it.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// `[?(@.a.b=="x")]`
    Where(JsonPath, Value),
}

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

impl JsonPath {
    /// Reads `.spec.a`, `.a['b.c'].d[0]`, `.a.b\.c`, `.a[*]`, `.a[?(@.type=="Ready")].status`. Fails, with the reason, for
    /// anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(rest);
        rest = rest.strip_prefix('$').unwrap_or(rest);
        if !rest.starts_with(['.', '[']) {
            return Err("must start with a dot".to_owned());
        }
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let (name, left) = member(after);
                if !name.is_empty() {
                    steps.push(if name == "*" { Step::All } else { Step::Member(name) });
                }
                if left.len() == rest.len() {
                    return Err(format!("unexpected {left:?}"));
                }
                rest = left;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| "unterminated array".to_owned())?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                return Err(format!("unexpected {rest:?}"));
            }
        }
        Ok(Self { steps })
    }

    /// What stands at the path; several with `[*]` and filters.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found
    }
}

impl Step {
    fn of<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Member(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(items)) => {
                let at = if *at < 0 { *at + items.len() as i64 } else { *at };
                usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Where(path, wanted), Value::Array(items)) => {
                items.iter().filter(|item| path.find(item).contains(&wanted)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket closes, outside of quotes and inner brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    let text = text.trim();
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

fn bracket(text: &str) -> Result<Step, String> {
    let text = text.trim();
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Ok(Step::Member(name.to_owned()));
    }
    if let Ok(at) = text.parse() {
        return Ok(Step::Index(at));
    }
    let filter = text.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')'));
    let sides = filter.and_then(|inner| inner.split_once("=="));
    let Some((path, wanted)) = sides else { return Err(format!("unsupported array expression {text:?}")) };
    let path = path.trim().strip_prefix('@').ok_or_else(|| format!("unsupported filter {text:?}"))?;
    let wanted = match unquoted(wanted) {
        Some(text) => text.into(),
        None => serde_json::from_str(wanted.trim()).map_err(|_| format!("unsupported filter {text:?}"))?,
    };
    Ok(Step::Where(JsonPath::parse(path)?, wanted))
}

/// A value as tables and selectors write it: texts bare, everything else as JSON.
pub fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_kubectl_finds() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "x"}}, "spec": {"list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let check = |path: &str, expect: &[Value]| {
            let found = JsonPath::parse(path).expect(path);
            assert_eq!(found.find(&object), expect.iter().collect::<Vec<_>>(), "{path}");
        };
        check(r".metadata.annotations.a\.b/c", &[json!("x")]);
        check(".metadata.annotations['a.b/c']", &[json!("x")]);
        check(".spec.list[1].n", &[json!(2)]);
        check(".spec.list[-1].n", &[json!(2)]);
        check(".spec.list[*].n", &[json!(1), json!(2)]);
        check(r#".status.conditions[?(@.type=="Ready")].status"#, &[json!("True")]);
        check(".status.none", &[]);
        assert!(JsonPath::parse("spec.a").is_err());
        assert!(JsonPath::parse(".a[").is_err());
    }
}
