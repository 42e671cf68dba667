//! From attached routes to what the proxy serves; no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::HeaderName;
use http::{Method, StatusCode};
use regex::Regex;

use super::filters::filter;
use super::world::NodeWorld;
use crate::proxy::{
    Action, Backend, Filter, Hosts, Match, PathMatch, Port, PortRef, Rule, ServicePort, Settings, Site,
    Stream, ValueMatch, Wildcard,
};
use client::gateway::{
    BackendRef, GatewayState, GrpcMethod, ListenerState, NamedValue, PathValue, Resolved, Route, RouteFilter,
    RouteKind, RouteMatch, RouteRule, Tls, duration,
};

/// What is served at each port of a Gateway.
pub fn ports(resolved: &Resolved, gateway: &GatewayState, world: &NodeWorld<'_>) -> BTreeMap<u16, Arc<Port>> {
    let mut ports = BTreeMap::<u16, Port>::new();
    for listener in gateway.listeners.iter().filter(|listener| listener.usable) {
        let port = ports.entry(listener.port).or_insert_with(|| Port {
            tls: listener.tls != Tls::None,
            sites: Hosts::new(Wildcard::Labels),
            streams: Hosts::new(Wildcard::Labels),
            ..Port::default()
        });
        if port.certificates.by_host.is_empty() {
            port.certificates.by_host = Hosts::new(Wildcard::Labels);
        }
        let certified = listener.certificates.iter().filter_map(|key| world.certified(key));
        port.certificates.by_host.entry(&listener.hostname).extend(certified);
        if listener.kinds == [RouteKind::Tls] {
            streams(&mut port.streams, resolved, listener, world);
        } else {
            *port.sites.entry(&listener.hostname) = Arc::new(site(resolved, listener, world));
        }
    }
    ports.into_iter().map(|(number, port)| (number, Arc::new(port))).collect()
}

/// The routes of a listener with their hosts, the oldest first.
fn attached<'a>(
    resolved: &'a Resolved,
    listener: &'a ListenerState,
) -> impl Iterator<Item = (&'a Route, &'a [String])> {
    listener.attached.iter().filter_map(|one| Some((resolved.route(&one.route)?, one.hosts.as_slice())))
}

fn site(resolved: &Resolved, listener: &ListenerState, world: &NodeWorld<'_>) -> Site {
    let mut site = Site { rules: Hosts::new(Wildcard::Labels), fallback: None };
    for (route, hosts) in attached(resolved, listener) {
        for rule in &route.spec.rules {
            let act = Arc::new(act(resolved, route, rule, world));
            let every = [RouteMatch::default()];
            let matches = if rule.matches.is_empty() { &every } else { rule.matches.as_slice() };
            for when in matches.iter().filter_map(|one| matches_of(route.key.kind, one)) {
                for host in hosts {
                    site.rules.entry(host).push(Rule { when: when.clone(), act: act.clone() });
                }
            }
        }
    }
    site.sort();
    site
}

fn streams(
    streams: &mut Hosts<Stream>,
    resolved: &Resolved,
    listener: &ListenerState,
    world: &NodeWorld<'_>,
) {
    for (route, hosts) in attached(resolved, listener) {
        let Some(rule) = route.spec.rules.first() else { continue };
        let act = Arc::new(act(resolved, route, rule, world));
        for host in hosts {
            let stream = streams.entry(host);
            // Of two routes for one host the older counts.
            if stream.act.backends.is_empty() {
                *stream = Stream { terminate: listener.tls == Tls::Terminate, act: act.clone() };
            }
        }
    }
}

fn act(resolved: &Resolved, route: &Route, rule: &RouteRule, world: &NodeWorld<'_>) -> Action {
    let find = |reference: &BackendRef| {
        let found = resolved.backend(route, reference, world).map_err(|error| error.message);
        found.map(|backend| ServicePort {
            namespace: backend.namespace,
            service: backend.service,
            port: PortRef::Number(backend.port),
        })
    };
    let mirror = |reference: &BackendRef| Backend { to: find(reference), weight: 1, filters: Vec::new() };
    let filters = |of: &[RouteFilter]| -> Vec<Filter> {
        of.iter().map(|one| filter(one, |said| mirror(&said.backend_ref))).collect()
    };
    let backends = rule.backend_refs.iter().map(|reference| Backend {
        to: find(reference),
        weight: reference.weight.unwrap_or(1),
        filters: filters(&reference.filters),
    });
    let time = |text: Option<&String>| text.and_then(|text| duration(text)).filter(|time| !time.is_zero());
    let timeouts = rule.timeouts.as_ref();
    let settings = Settings {
        attempt_timeout: time(timeouts.and_then(|timeouts| timeouts.backend_request.as_ref())),
        request_timeout: time(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
        no_backend: match route.key.kind {
            // What gRPC's clients read as "unavailable".
            RouteKind::Grpc => StatusCode::SERVICE_UNAVAILABLE,
            RouteKind::Http | RouteKind::Tls => StatusCode::INTERNAL_SERVER_ERROR,
        },
        ..Settings::default()
    };
    Action::new(filters(&rule.filters), backends.collect(), settings)
}

/// What a request must be; None where an expression cannot be read (the route's status tells of it).
fn matches_of(kind: RouteKind, of: &RouteMatch) -> Option<Match> {
    let headers =
        of.headers.iter().map(|named| Some((named.name.parse::<HeaderName>().ok()?, value(named)?)));
    let query = of.query_params.iter().map(|named| Some((named.name.clone(), value(named)?)));
    let mut when = Match {
        headers: headers.collect::<Option<_>>()?,
        query: query.collect::<Option<_>>()?,
        ..Match::path(PathMatch::prefix("/"))
    };
    if kind == RouteKind::Grpc {
        if let Some(method) = &of.method {
            when.path = grpc_path(&serde_json::from_value(method.clone()).ok()?)?;
        }
        return Some(when);
    }
    if let Some(said) = &of.path {
        when.path = path(said)?;
    }
    when.method = match of.method.as_ref().and_then(|method| method.as_str()) {
        Some(method) => Some(Method::from_bytes(method.as_bytes()).ok()?),
        None => None,
    };
    Some(when)
}

fn value(named: &NamedValue) -> Option<ValueMatch> {
    match named.r#type.as_deref() {
        Some("RegularExpression") => {
            Regex::new(&format!("^(?:{})$", named.value)).ok().map(ValueMatch::Regex)
        }
        _ => Some(ValueMatch::Exact(named.value.clone())),
    }
}

fn path(said: &PathValue) -> Option<PathMatch> {
    let text = said.value.as_deref().unwrap_or("/");
    match said.r#type.as_deref() {
        Some("Exact") => Some(PathMatch::Exact(text.to_owned())),
        Some("RegularExpression") => Regex::new(&format!("^(?:{text})$")).ok().map(PathMatch::Regex),
        _ => Some(PathMatch::prefix(text)),
    }
}

/// `/service/method` is the path of a call.
fn grpc_path(said: &GrpcMethod) -> Option<PathMatch> {
    let expression = said.r#type.as_deref() == Some("RegularExpression");
    let (service, method) = (said.service.as_deref(), said.method.as_deref());
    match (service, method) {
        (Some(service), Some(method)) if !expression => {
            Some(PathMatch::Exact(format!("/{service}/{method}")))
        }
        (Some(service), None) if !expression => Some(PathMatch::prefix(&format!("/{service}"))),
        (None, None) => Some(PathMatch::prefix("/")),
        _ => {
            let part = |text: Option<&str>| match text {
                Some(text) if expression => format!("(?:{text})"),
                Some(text) => regex::escape(text),
                None => "[^/]+".to_owned(),
            };
            Regex::new(&format!("^/{}/{}$", part(service), part(method))).ok().map(PathMatch::Regex)
        }
    }
}
