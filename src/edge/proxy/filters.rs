//! What is done to a request before it goes on, and to its answer: each filter is a pure function of the request.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use ipnet::IpNet;

use super::auth::Users;
use super::cors::Cors;
use super::rules::{Backend, PathMatch};

/// One step.
#[derive(Clone, Debug)]
pub enum Filter {
    RequestHeaders(HeaderChanges),
    ResponseHeaders(HeaderChanges),
    Redirect(Redirect),
    Rewrite(Rewrite),
    /// A copy of each of so many thousandths of all requests goes there too; its answer is dropped.
    Mirror(Backend, u32),
    Cors(Arc<Cors>),
    /// Only clients that give a name and its password, by HTTP's basic authentication.
    Users {
        users: Arc<Users>,
        realm: String,
    },
    /// Only clients of these networks, and none of those.
    Clients {
        of: Vec<IpNet>,
        but: Vec<IpNet>,
    },
    /// Nobody: why.
    Refuse(StatusCode, String),
}

/// What is set, added to and taken out of headers, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Changes the headers.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            // One line with all values, as most servers expect it.
            let joined = headers.get(name).map(|has| [has.as_bytes(), b",", value.as_bytes()].concat());
            let value = joined.and_then(|joined| HeaderValue::from_bytes(&joined).ok());
            headers.insert(name, value.unwrap_or_else(|| self.added(name)));
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }

    fn added(&self, name: &HeaderName) -> HeaderValue {
        let value = self.add.iter().find(|(added, _)| added == name).map(|(_, value)| value.clone());
        value.unwrap_or_else(|| HeaderValue::from_static(""))
    }
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// This, whatever it was.
    Full(String),
    /// This, in place of what the rule's prefix matched.
    Prefix(String),
    /// This, whose `$1` and so on are what the groups of the rule's expression matched.
    Groups(String),
}

impl PathChange {
    /// The new path of a request that `matched`.
    pub fn apply(&self, matched: &PathMatch, path: &str) -> String {
        let changed = match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(prefix) => match matched.rest(path).unwrap_or_default() {
                "" => prefix.clone(),
                rest => format!("{}{rest}", prefix.trim_end_matches('/')),
            },
            Self::Groups(template) => groups(template, matched, path),
        };
        if changed.starts_with('/') { changed } else { format!("/{changed}") }
    }
}

fn groups(template: &str, matched: &PathMatch, path: &str) -> String {
    let found = match matched {
        PathMatch::Regex(regex) => regex.captures(path),
        PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
    };
    let mut pieces = template.split('$');
    let mut changed = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.len() - piece.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, text) = piece.split_at(digits.min(1));
        if let Ok(number) = number.parse::<usize>() {
            let group = found.as_ref().and_then(|found| found.get(number));
            changed.push_str(group.map(|group| group.as_str()).unwrap_or_default());
        } else {
            changed.push('$');
        }
        changed.push_str(text);
    }
    changed
}

/// What an endpoint shall see instead of what the client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub host: Option<HeaderValue>,
    pub path: Option<PathChange>,
}

/// Where a client shall go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub status: StatusCode,
    /// A whole address, before all parts.
    pub to: Option<String>,
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathChange>,
    /// Who comes by TLS stays.
    pub only_plain: bool,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            status: StatusCode::FOUND,
            to: None,
            scheme: None,
            host: None,
            port: None,
            path: None,
            only_plain: false,
        }
    }
}

/// What redirects look at, beside the rule.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub tls: bool,
    /// The port that clients use: the one they name, or the one they came by.
    pub port: u16,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

impl Redirect {
    /// The address, unless this request stays.
    pub fn location(&self, matched: &PathMatch, seen: &Seen<'_>) -> Option<String> {
        if self.only_plain && seen.tls {
            return None;
        }
        if let Some(to) = &self.to {
            return Some(to.clone());
        }
        let came = if seen.tls { "https" } else { "http" };
        let scheme = self.scheme.as_deref().unwrap_or(came);
        let usual = if scheme == "https" { 443 } else { 80 };
        let port = self.port.unwrap_or(if self.scheme.is_some() { usual } else { seen.port });
        let port = if port == usual { String::new() } else { format!(":{port}") };
        let host = self.host.as_deref().unwrap_or(seen.host);
        let path = self.path.as_ref().map(|change| change.apply(matched, seen.path));
        let path = path.unwrap_or_else(|| seen.path.to_owned());
        let query = seen.query.map(|query| format!("?{query}")).unwrap_or_default();
        Some(format!("{scheme}://{host}{port}{path}{query}"))
    }
}

/// Whether a client is of the networks that may.
pub(super) fn may(client: IpAddr, of: &[IpNet], but: &[IpNet]) -> bool {
    let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
    (of.is_empty() || within(of)) && !within(but)
}

/// Whether a request asks what it may do: browsers do before they send what could change something.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn headers_are_set_added_and_removed() {
        let header = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap =
            [header("a", "1"), header("b", "1"), header("c", "1")].into_iter().collect();
        let changes = HeaderChanges {
            set: vec![header("a", "2")],
            add: vec![header("b", "2"), header("d", "3")],
            remove: vec![HeaderName::from_static("c")],
        };
        changes.apply(&mut headers);
        let text: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("text"))).collect();
        let mut text = text;
        text.sort_unstable();
        assert_eq!(text.join(" "), "a=2 b=1,2 d=3");
    }

    /// The examples of the Gateway API's own table of prefix replacements.
    #[test]
    fn prefixes_are_replaced() {
        for (path, prefix, replacement, expect) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            let change = PathChange::Prefix(replacement.into());
            let got = change.apply(&PathMatch::prefix(prefix), path);
            assert_eq!(got, expect, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn groups_are_filled_in() {
        let check = |regex: &str, template: &str, path: &str, expect: &str| {
            let matched = PathMatch::Regex(Regex::new(regex).expect("an expression"));
            assert_eq!(PathChange::Groups(template.into()).apply(&matched, path), expect, "{regex} {path}");
        };
        check("^/app(/|$)(.*)", "/$2", "/app/x/y", "/x/y");
        check("^/app(/|$)(.*)", "/$2", "/app", "/");
        check("^/a/([^/]+)/b", "/n/$1/m", "/a/7/b", "/n/7/m");
        check("^/a", "/", "/a/b", "/");
        check("^/a", "/$9x$", "/a", "/x$");
    }

    #[test]
    fn redirects_say_no_more_than_needed() {
        let seen = Seen { tls: false, port: 80, host: "a.example", path: "/x/y", query: Some("q=1") };
        let check = |redirect: Redirect, seen: Seen<'_>, expect: Option<&str>| {
            let got = redirect.location(&PathMatch::prefix("/x"), &seen);
            assert_eq!(got.as_deref(), expect, "{redirect:?}");
        };
        let plain = Redirect::default;
        check(plain(), seen, Some("http://a.example/x/y?q=1"));
        check(plain(), Seen { port: 8080, ..seen }, Some("http://a.example:8080/x/y?q=1"));
        let https = || Some("https".to_owned());
        check(
            Redirect { scheme: https(), ..plain() },
            Seen { port: 8080, ..seen },
            Some("https://a.example/x/y?q=1"),
        );
        check(
            Redirect { scheme: https(), port: Some(8443), ..plain() },
            seen,
            Some("https://a.example:8443/x/y?q=1"),
        );
        check(Redirect { port: Some(443), ..plain() }, seen, Some("http://a.example:443/x/y?q=1"));
        let path = Some(PathChange::Prefix("/z".into()));
        check(Redirect { path, host: Some("b".into()), ..plain() }, seen, Some("http://b/z/y?q=1"));
        check(Redirect { only_plain: true, scheme: https(), ..plain() }, Seen { tls: true, ..seen }, None);
        check(Redirect { to: Some("https://c/".into()), ..plain() }, seen, Some("https://c/"));
    }

    #[test]
    fn networks_say_who_may() {
        let net = |text: &str| vec![text.parse::<IpNet>().expect("a network")];
        let client = IpAddr::from([10, 1, 2, 3]);
        assert!(may(client, &[], &[]));
        assert!(may(client, &net("10.0.0.0/8"), &[]));
        assert!(!may(client, &net("10.2.0.0/16"), &[]));
        assert!(!may(client, &net("10.0.0.0/8"), &net("10.1.2.3/32")));
    }
}
