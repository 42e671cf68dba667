//! `$(NAME)` in commands, arguments and environment.

/// Replaces `$(NAME)` by `lookup(NAME)`; what is unknown stays as it is, `$$` is a dollar sign (the rules of
/// command, args and env values in a Pod).
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rules_of_pods() {
        let lookup = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            _ => None,
        };
        let check = |text: &str, expect: &str| assert_eq!(expand(text, lookup), expect, "{text}");
        check("x$(A)y$(A)", "x1y1");
        check("$(B) $(EMPTY)|", "$(B) |");
        check("$$(A) $A $( $", "$(A) $A $( $");
        check("", "");
    }
}
