//! Finds the links of an HTML page as it streams by, and lets somebody replace them.

/// Which attributes of which elements are links, as upstream's proxy has them.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// What stands in these elements is text, whatever it looks like.
const RAW: &[&str] = &["script", "style", "textarea", "title"];
/// A tag that is longer is none.
const LONGEST_TAG: usize = 64 * 1024;

/// Replaces the links of a page, piece by piece: what is not a tag goes through untouched and at once.
pub struct Links<F> {
    replace: F,
    /// The beginning of a tag whose end has not come yet.
    open: Vec<u8>,
    /// The element whose content is text.
    raw: Option<&'static str>,
}

impl<F: Fn(&str) -> Option<String>> Links<F> {
    /// `replace` answers what stands in a link's place; `None`: it stays.
    pub fn new(replace: F) -> Self {
        Self { replace, open: Vec::new(), raw: None }
    }

    /// Takes the next piece and returns what can be passed on.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.open);
        text.extend_from_slice(piece);
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut rest = &text[..];
        while let Some(start) = rest.iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&rest[..start]);
            rest = &rest[start..];
            match self.tag_end(rest) {
                Some(end) => {
                    self.tag(&rest[..end], &mut out);
                    rest = &rest[end..];
                }
                None if rest.len() > LONGEST_TAG => {
                    out.push(b'<');
                    rest = &rest[1..];
                }
                None => {
                    self.open = rest.to_vec();
                    return out;
                }
            }
        }
        out.extend_from_slice(rest);
        out
    }

    /// What is left at the page's end.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.open)
    }

    /// Where what begins with `<` ends: a comment, a tag, or a single character; `None`: not here yet.
    fn tag_end(&self, text: &[u8]) -> Option<usize> {
        if let Some(raw) = self.raw {
            let closing = format!("</{raw}");
            let known = text.len().min(closing.len());
            let same = text[..known].eq_ignore_ascii_case(&closing.as_bytes()[..known]);
            return match (same, known == closing.len()) {
                (true, true) => text.iter().position(|byte| *byte == b'>').map(|at| at + 1),
                (true, false) => None,
                (false, _) => Some(1),
            };
        }
        if text.starts_with(b"<!--") {
            return text.windows(3).skip(2).position(|window| window == b"-->").map(|at| at + 5);
        }
        if text.len() < 4 && b"<!--".starts_with(text) {
            return None;
        }
        if !text[1].is_ascii_alphabetic() && !matches!(text[1], b'/' | b'!' | b'?') {
            return Some(1);
        }
        let mut quote = None;
        for (at, byte) in text.iter().enumerate() {
            match (quote, byte) {
                (None, b'>') => return Some(at + 1),
                (None, b'"' | b'\'') if text[..at].trim_ascii_end().ends_with(b"=") => quote = Some(*byte),
                (Some(open), byte) if open == *byte => quote = None,
                _ => {}
            }
        }
        None
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        if self.raw.is_some() {
            if tag.starts_with(b"</") {
                self.raw = None;
            }
            out.extend_from_slice(tag);
            return;
        }
        let name_end = tag[1..].iter().position(|byte| !byte.is_ascii_alphanumeric());
        let name_end = name_end.map_or(tag.len(), |at| at + 1);
        let name = String::from_utf8_lossy(&tag[1..name_end]).to_ascii_lowercase();
        if !tag.ends_with(b"/>") {
            self.raw = RAW.iter().find(|raw| **raw == name).copied();
        }
        match LINKS.iter().find(|(element, _)| *element == name) {
            Some((_, attributes)) => self.attributes(tag, name_end, attributes, out),
            None => out.extend_from_slice(tag),
        }
    }

    /// Copies a tag, with the values of these attributes replaced.
    fn attributes(&self, tag: &[u8], mut at: usize, wanted: &[&str], out: &mut Vec<u8>) {
        out.extend_from_slice(&tag[..at]);
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/');
        while at < tag.len() {
            let begin = at;
            at += tag[at..].iter().take_while(|byte| ends(byte)).count();
            let name_from = at;
            at += tag[at..].iter().take_while(|byte| !ends(byte)).count();
            let name = String::from_utf8_lossy(&tag[name_from..at]).to_ascii_lowercase();
            let blanks = tag[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if tag.get(at + blanks) != Some(&b'=') {
                out.extend_from_slice(&tag[begin..at]);
                continue;
            }
            at += blanks + 1;
            at += tag[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let quote = tag.get(at).copied().filter(|byte| matches!(byte, b'"' | b'\''));
            let from = at + usize::from(quote.is_some());
            let length = tag[from.min(tag.len())..].iter().take_while(|byte| match quote {
                Some(quote) => **byte != quote,
                None => !byte.is_ascii_whitespace() && **byte != b'>',
            });
            let to = from + length.count();
            at = (to + usize::from(quote.is_some())).min(tag.len());
            let value = std::str::from_utf8(&tag[from..to]).ok();
            let replaced = value
                .filter(|_| wanted.contains(&name.as_str()))
                .and_then(|value| (self.replace)(&value.replace("&amp;", "&")));
            match replaced {
                Some(replaced) => {
                    out.extend_from_slice(&tag[begin..from]);
                    out.extend_from_slice(replaced.replace('&', "&amp;").replace('"', "&#34;").as_bytes());
                    out.extend_from_slice(&tag[to..at]);
                }
                None => out.extend_from_slice(&tag[begin..at]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expect: &str) {
        let replace = |link: &str| link.starts_with('/').then(|| format!("/out{link}"));
        for size in [1, 2, 3, 7, 1000] {
            let mut links = Links::new(replace);
            let mut out = Vec::new();
            page.as_bytes().chunks(size).for_each(|piece| out.extend(links.push(piece)));
            out.extend(links.finish());
            assert_eq!(String::from_utf8(out).unwrap(), expect, "in pieces of {size}");
        }
    }

    #[test]
    fn links_are_replaced_wherever_the_page_is_cut() {
        check(r#"<a href="/rewriteme">test</a>"#, r#"<a href="/out/rewriteme">test</a>"#);
        check("<A id=x HREF = '/a?b=1&amp;c=2' >", "<A id=x HREF = '/out/a?b=1&amp;c=2' >");
        check("<img src=/a usemap=b><img alt='/c'/>", "<img src=/out/a usemap=b><img alt='/c'/>");
        check("<form action=/a>1 < 2 <", "<form action=/out/a>1 < 2 <");
        check("<a title='>' href='/x'>", "<a title='>' href='/out/x'>");
    }

    #[test]
    fn what_is_no_link_stays() {
        for page in [
            "<p href=\"/a\">/b</p>",
            "<!-- <a href=\"/a\"> -->",
            "<script>var a = '<a href=\"/a\">';</script>",
            "<a href>",
            "no tags at all",
            "<a href=\"/never ends",
        ] {
            check(page, page);
        }
        check(
            "<script src=/s.js>'<a href=/x>'</script><a href=/y>",
            "<script src=/out/s.js>'<a href=/x>'</script><a href=/out/y>",
        );
    }
}
