//! What is served: ports, sites, and the rules that say where a request goes; no I/O.
//!
//! ```text
//! port --host--> site --host--> rules by precedence --path, method, headers, query--> action: filters, then a backend
//! ```

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use http::{Method, StatusCode};
use regex::Regex;

use super::affinity::Affinity;
use super::certificates::Certificates;
use super::filters::Filter;
use super::hosts::Hosts;

/// How long an endpoint may take to answer when nothing is said, as ingress-nginx has it.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection to an endpoint may take when nothing is said.
const CONNECT: Duration = Duration::from_secs(5);

/// A port by number or name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    pub namespace: String,
    pub service: String,
    pub port: PortRef,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 for gRPC.
    #[default]
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// TLS, then what the endpoint prefers.
    Https,
    /// TLS, then HTTP/2.
    Http2Tls,
}

/// One of the places that requests of a rule go to.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Why it cannot be used, where it cannot.
    pub to: Result<ServicePort, String>,
    pub weight: u32,
    pub filters: Vec<Filter>,
}

impl Backend {
    /// The only backend of a rule.
    pub fn only(to: ServicePort) -> Self {
        Self { to: Ok(to), weight: 1, filters: Vec::new() }
    }
}

/// How requests are treated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest body, in bytes.
    pub body_limit: Option<u64>,
    /// How long a connection to an endpoint may take.
    pub connect_timeout: Duration,
    /// How long one endpoint may take until its answer begins.
    pub attempt_timeout: Option<Duration>,
    /// How long all attempts together may take until an answer begins.
    pub request_timeout: Option<Duration>,
    /// What endpoints speak; None: what the Service's port says.
    pub protocol: Option<Protocol>,
    /// How a client stays with its endpoint.
    pub affinity: Option<Affinity>,
    /// What is answered when there is no backend that could be used.
    pub no_backend: StatusCode,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_limit: None,
            connect_timeout: CONNECT,
            attempt_timeout: Some(TIMEOUT),
            request_timeout: None,
            protocol: None,
            affinity: None,
            no_backend: StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What happens to a request that a rule matches.
#[derive(Debug, Default)]
pub struct Action {
    pub filters: Vec<Filter>,
    pub backends: Vec<Backend>,
    pub settings: Settings,
    /// Counts requests, for their distribution.
    turns: AtomicU64,
}

impl Action {
    /// An action of these parts.
    pub fn new(filters: Vec<Filter>, backends: Vec<Backend>, settings: Settings) -> Self {
        Self { filters, backends, settings, turns: AtomicU64::new(0) }
    }

    /// The next request's backend, by weight; any run of requests is spread as evenly as its length allows.
    pub fn backend(&self) -> Option<&Backend> {
        let total: u64 = self.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        // Steps of the golden ratio never crowd.
        let turn = self.turns.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mut at = u64::try_from((u128::from(turn) * u128::from(total)) >> 64).unwrap_or_default();
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let found = at < weight;
            at = at.saturating_sub(weight);
            found
        })
    }
}

/// What a path must be.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Element by element; without a closing slash.
    Prefix(String),
    /// An expression, at the path's beginning.
    Regex(Regex),
}

impl PathMatch {
    /// Everything that begins with these elements.
    pub fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_owned())
    }

    /// What of `path` comes after this, where it matches.
    pub fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Self::Exact(own) => (own == path).then_some(""),
            Self::Prefix(own) => {
                path.strip_prefix(own.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.find(path).map(|found| &path[found.end()..]),
        }
    }

    fn rank(&self) -> (u8, Reverse<usize>, u8) {
        match self {
            Self::Exact(own) => (0, Reverse(own.len()), 0),
            Self::Regex(regex) => (1, Reverse(regex.as_str().len()), 0),
            // What is cut off counts: `/` is longer than nothing.
            Self::Prefix(own) => (1, Reverse(own.len().max(1)), 1),
        }
    }
}

/// What a header or a parameter must be.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(String),
    Regex(Regex),
}

impl ValueMatch {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(own) => own == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// All that must be so of a request.
#[derive(Clone, Debug)]
pub struct Match {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
}

impl Match {
    /// Only the path counts.
    pub fn path(path: PathMatch) -> Self {
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let header = |name: &HeaderName, value: &ValueMatch| {
            asked.headers.get_all(name).iter().any(|has| has.to_str().is_ok_and(|has| value.matches(has)))
        };
        // Of a parameter that is given twice the first counts.
        let parameter = |name: &str, value: &ValueMatch| {
            let mut all = form_urlencoded::parse(asked.query.as_bytes());
            all.find(|(has, _)| has == name).is_some_and(|(_, has)| value.matches(&has))
        };
        self.path.rest(asked.path).is_some()
            && self.method.as_ref().is_none_or(|method| method == asked.method)
            && self.headers.iter().all(|(name, value)| header(name, value))
            && self.query.iter().all(|(name, value)| parameter(name, value))
    }

    /// Smaller comes first: exact paths, long paths, a method, many headers, many parameters.
    fn rank(&self) -> impl Ord + use<> {
        (self.path.rank(), self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }
}

/// What rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Without a port.
    pub host: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// What to do with which requests.
#[derive(Clone, Debug)]
pub struct Rule {
    pub when: Match,
    pub act: Arc<Action>,
}

/// Rules by host, and what remains.
#[derive(Clone, Debug, Default)]
pub struct Site {
    pub rules: Hosts<Vec<Rule>>,
    pub fallback: Option<Rule>,
}

impl Site {
    /// Puts the rules in the order of their precedence; among equals the one that was added first stays first.
    pub fn sort(&mut self) {
        for rules in self.rules.values_mut() {
            rules.sort_by_key(|rule| rule.when.rank());
        }
    }

    /// The rule for a request.
    pub fn rule(&self, asked: &Asked<'_>) -> Option<&Rule> {
        let rules = self.rules.get(asked.host).map(Vec::as_slice).unwrap_or_default();
        rules.iter().find(|rule| rule.when.matches(asked)).or(self.fallback.as_ref())
    }
}

/// What a port of an address does.
#[derive(Debug, Default)]
pub struct Port {
    /// Connections begin with TLS.
    pub tls: bool,
    /// By the host that is asked for: each listener is a site.
    pub sites: Hosts<Arc<Site>>,
    pub certificates: Certificates,
    /// Connections that go on without HTTP, by the name that TLS asks for.
    pub streams: Hosts<Stream>,
}

/// TLS connections that are not read.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// TLS ends here, and the endpoint gets what was in it.
    pub terminate: bool,
    pub act: Arc<Action>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn backend(name: &str, weight: u32) -> Backend {
        let to = ServicePort { namespace: "shop".into(), service: name.into(), port: PortRef::Number(80) };
        Backend { weight, ..Backend::only(to) }
    }

    #[test]
    fn requests_are_spread_by_weight() {
        let check = |weights: &[u32], requests: u64| {
            let backends = weights.iter().enumerate().map(|(at, weight)| backend(&at.to_string(), *weight));
            let action = Action::new(Vec::new(), backends.collect(), Settings::default());
            let mut counts = BTreeMap::<String, u64>::new();
            for _ in 0..requests {
                let Some(found) = action.backend() else { continue };
                *counts.entry(found.to.as_ref().expect("usable").service.clone()).or_default() += 1;
            }
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (at, weight) in weights.iter().enumerate() {
                let got = counts.get(&at.to_string()).copied().unwrap_or_default();
                let expect = requests * u64::from(*weight) / total.max(1);
                assert!(got.abs_diff(expect) <= 3, "{weights:?} {at}: {got} of {requests}");
            }
        };
        check(&[1], 10);
        check(&[70, 30, 0], 500);
        check(&[1, 1, 1], 99);
        check(&[0, 0], 10);
        assert!(Action::default().backend().is_none());
    }

    #[test]
    fn the_most_particular_rule_counts() {
        let mut site = Site::default();
        let mut add = |name: &str, when: Match| {
            let act = Action::new(Vec::new(), vec![backend(name, 1)], Settings::default());
            site.rules.entry("").push(Rule { when, act: Arc::new(act) });
        };
        let header = HeaderName::from_static("version");
        let prefix = |path: &str| Match::path(PathMatch::prefix(path));
        add("root", prefix("/"));
        add("root too", prefix("/"));
        add("header", Match { headers: vec![(header, ValueMatch::Exact("2".into()))], ..prefix("/") });
        add("post", Match { method: Some(Method::POST), ..prefix("/") });
        add("query", Match { query: vec![("a b".into(), ValueMatch::Exact("1".into()))], ..prefix("/") });
        add("long", prefix("/a/b"));
        add("regex", Match::path(PathMatch::Regex(Regex::new("^/x[0-9]+").expect("an expression"))));
        add("exact", Match::path(PathMatch::Exact("/a".into())));
        site.sort();
        let check = |method: Method, uri: &str, version: Option<&'static str>, expect: &str| {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let headers =
                version.map(|version| ("version".parse().expect("name"), version.parse().expect("value")));
            let headers: HeaderMap = headers.into_iter().collect();
            let asked = Asked { host: "a.example", path, query, method: &method, headers: &headers };
            let found = site.rule(&asked).and_then(|rule| rule.act.backends[0].to.as_ref().ok());
            assert_eq!(found.map_or("none", |to| to.service.as_str()), expect, "{method} {uri} {version:?}");
        };
        check(Method::GET, "/", None, "root");
        check(Method::GET, "/", Some("2"), "header");
        check(Method::GET, "/", Some("3"), "root");
        check(Method::POST, "/", Some("2"), "post");
        check(Method::GET, "/?b=2&a+b=1", None, "query");
        check(Method::GET, "/?a+b=2&a+b=1", None, "root");
        check(Method::POST, "/a/b/c", None, "long");
        check(Method::GET, "/a/bc", None, "root");
        check(Method::GET, "/x12/y", None, "regex");
        check(Method::GET, "/a", Some("2"), "exact");
    }
}
