//! URLs, as Go's `url.ParseRequestURI` reads them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Entry;
use crate::cel::fault::Fault;
use crate::cel::value::{Key, Text, Val};

/// A URL's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub text: String,
    scheme: String,
    /// With its port.
    host: String,
    path: String,
    query: String,
}

pub const ALL: &[Entry] = &[
    ("url", "(string) URL", |budget, args| match args {
        [Val::Str(text)] => {
            budget.charge_text(text.len() as u64)?;
            let parsed = Url::parse(text);
            parsed.map(|url| Val::Url(Rc::new(url))).map_err(|why| {
                Fault::new(format!(
                    "URL parse error during conversion from string: parse {:?}: {why}",
                    &**text
                ))
            })
        }
        _ => Err(Fault::no_overload()),
    }),
    ("isURL", "(string) bool", |budget, args| match args {
        [Val::Str(text)] => {
            budget.charge_text(text.len() as u64)?;
            Ok(Val::Bool(Url::parse(text).is_ok()))
        }
        _ => Err(Fault::no_overload()),
    }),
    ("getScheme", "URL.() string", |_, args| of(args, |url| url.scheme.clone())),
    ("getHost", "URL.() string", |_, args| of(args, |url| url.host.clone())),
    ("getHostname", "URL.() string", |_, args| of(args, |url| url.split_host().0.to_owned())),
    ("getPort", "URL.() string", |_, args| of(args, |url| url.split_host().1.to_owned())),
    ("getEscapedPath", "URL.() string", |_, args| of(args, |url| url.path.clone())),
    ("getQuery", "URL.() map<string, list<string>>", |_, args| match args {
        [Val::Url(url)] => {
            let mut made: BTreeMap<Key<'_>, Vec<Val<'_>>> = BTreeMap::new();
            for (key, value) in form_urlencoded::parse(url.query.as_bytes()) {
                let key = Key::Str(Text::Made(key.into_owned().into()));
                made.entry(key).or_default().push(Val::text(value.into_owned()));
            }
            Ok(Val::map(made.into_iter().map(|(key, values)| (key, Val::list(values))).collect()))
        }
        _ => Err(Fault::no_overload()),
    }),
];

fn of<'a>(args: &[Val<'a>], part: fn(&Url) -> String) -> Result<Val<'a>, Fault> {
    match args {
        [Val::Url(url)] => Ok(Val::text(part(url))),
        _ => Err(Fault::no_overload()),
    }
}

impl Url {
    /// Reads an absolute URL or an absolute path. Fails with Go's reason.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("empty url");
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err("net/url: invalid control character in URL");
        }
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            Some(("", _)) => return Err("missing protocol scheme"),
            _ => (String::new(), text),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            return Err("invalid URI for request");
        }
        let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
            return Err("invalid port after host");
        }
        if host.starts_with('[') && !host.contains(']') {
            return Err("missing ']' in host");
        }
        if host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
            return Err("invalid character in host name");
        }
        if !well_escaped(path) {
            return Err("invalid URL escape");
        }
        let path = path.replace(' ', "%20");
        Ok(Self { text: text.to_owned(), scheme, host: host.to_owned(), path, query: query.to_owned() })
    }

    /// Name and port; without the brackets of an IPv6 address.
    fn split_host(&self) -> (&str, &str) {
        let (name, port) = match self.host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (self.host.as_str(), ""),
        };
        (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn well_escaped(path: &str) -> bool {
    let bytes = path.as_bytes();
    (0..bytes.len())
        .filter(|at| bytes[*at] == b'%')
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}
