//! Environment variables in a configuration file.

use super::FileError;

/// `${NAME}` and `${NAME:-DEFAULT}`; `$$` is a dollar sign. Lines that are comments stay as they are.
pub(super) fn expand(text: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<String, FileError> {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$$") {
                out.push('$');
                rest = after;
            } else if let Some((inside, after)) =
                rest.strip_prefix("${").and_then(|rest| rest.split_once('}'))
            {
                let (name, default) = match inside.split_once(":-") {
                    Some((name, default)) => (name, Some(default.to_owned())),
                    None => (inside, None),
                };
                let value = get(name).filter(|value| !value.is_empty()).or(default);
                out.push_str(&value.ok_or_else(|| FileError::Variable(name.to_owned()))?);
                rest = after;
            } else {
                out.push('$');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}
