//! Whom a request goes to, by the cases with which upstream's conformance suite tries the matching of HTTPRoutes: the rules
//! as data, and for each request the Service that must have it (`-` for 404).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use minik::edge::proxy::{Asked, Port};
use serde_json::{Value, json};

use super::gateway::served;

/// One rule: `SERVICE: MATCH | MATCH`, where a match is made of `=PATH` (exact), `/PATH` (prefix), `METHOD`, `name:value`
/// (header) and `?name=value` (parameter).
fn rule(line: &str) -> Value {
    let (service, matches) = line.split_once(": ").expect("a Service and its matches");
    let matches: Vec<Value> = matches.split(" | ").map(one_match).collect();
    json!({ "matches": matches, "backendRefs": [{ "name": service, "port": 80 }] })
}

fn one_match(text: &str) -> Value {
    let mut all = json!({});
    let mut add = |list: &str, name: &str, value: &str| {
        let known = all.as_object_mut().expect("an object").entry(list).or_insert_with(|| json!([]));
        known.as_array_mut().expect("a list").push(json!({ "name": name, "value": value }));
    };
    for word in text.split(' ') {
        if let Some((name, value)) = word.strip_prefix('?').and_then(|word| word.split_once('=')) {
            add("queryParams", name, value);
        } else if let Some((name, value)) = word.split_once(':') {
            add("headers", name, value);
        }
    }
    for word in text.split(' ').filter(|word| !word.starts_with('?') && !word.contains(':')) {
        match word.strip_prefix('=') {
            Some(path) => all["path"] = json!({ "type": "Exact", "value": path }),
            None if word.starts_with('/') => all["path"] = json!({ "type": "PathPrefix", "value": word }),
            None => all["method"] = json!(word),
        }
    }
    all
}

fn route(extra: Value, rules: &[&str]) -> (&'static str, Value) {
    let mut spec = json!({ "rules": rules.iter().map(|line| rule(line)).collect::<Vec<_>>() });
    json_patch::merge(&mut spec, &extra);
    ("HTTPRoute", spec)
}

/// `[METHOD] [host]/path[?query] [name:value…] -> SERVICE`.
fn check(port: &Port, line: &str) {
    let (request, expect) = line.split_once(" -> ").expect("an arrow");
    let mut headers = HeaderMap::new();
    let (mut method, mut host, mut path) = (Method::GET, "any.example", "/");
    for word in request.split(' ') {
        if let Some(at) = word.find('/') {
            host = if at == 0 { host } else { &word[..at] };
            path = &word[at..];
        } else if let Some((name, value)) = word.split_once(':') {
            let name: HeaderName = name.parse().expect("a name");
            headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        } else {
            method = word.parse().expect("a method");
        }
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let asked = Asked { host, path, query, method: &method, headers: &headers };
    let found = port.sites.get(host).and_then(|site| site.rule(&asked));
    let found = found.and_then(|rule| rule.act.backends.first()).map(|backend| &backend.to);
    let found = found.map_or("-", |to| to.as_ref().map_or("an error", |to| &to.service));
    assert_eq!(found, expect, "{line}");
}

fn check_all(listeners: Value, routes: &[(&str, Value)], lines: &[&str]) {
    let ports: BTreeMap<u16, Arc<Port>> = served(listeners, routes);
    lines.iter().for_each(|line| check(&ports[&80], line));
}

fn plain() -> Value {
    json!([{ "name": "http", "port": 80, "protocol": "HTTP" }])
}

fn check_rules(rules: &[&str], lines: &[&str]) {
    check_all(plain(), &[route(json!({}), rules)], lines);
}

#[test]
fn paths_are_exact_or_whole_parts_and_the_longest_wins() {
    check_rules(
        &["one: =/one", "two: =/two"],
        &["/one -> one", "/two -> two", "/ -> -", "/one/example -> -", "/two/ -> -", "/Two -> -"],
    );
    check_rules(
        &[
            "one: =/match",
            "two: =/match/exact",
            "three: =/match/exact/one",
            "three: /match/",
            "one: /match/prefix/",
            "two: /match/prefix/one",
        ],
        &[
            "/match/exact/one -> three",
            "/match/exact -> two",
            "/match -> one",
            "/match/prefix/one/any -> two",
            "/match/prefix/any -> one",
            "/match/any -> three",
        ],
    );
}

#[test]
fn what_is_more_particular_wins_within_a_route_and_across_routes() {
    let (first, second) = ("one: / | version:one", "two: /v2 | version:two");
    let lines = [
        "/ -> one",
        "/example -> one",
        "/ version:one -> one",
        "/v2 -> two",
        "/v2/example -> two",
        "/ version:two -> two",
        "/v2/ -> two",
        "/v2example -> one",
        "/foo/v2/example -> one",
    ];
    check_rules(&[first, second], &lines);
    let routes = [
        route(json!({ "hostnames": ["example.com", "example.net"] }), &[first]),
        route(json!({ "hostnames": ["example.com"] }), &[second]),
    ];
    check_all(
        plain(),
        &routes,
        &[
            "example.com/ -> one",
            "example.com/example -> one",
            "example.net/example -> one",
            "example.com/example version:one -> one",
            "example.com/v2 -> two",
            "example.net/v2 -> one",
            "example.com/v2/example -> two",
            "example.com/ version:two -> two",
            "example.org/ -> -",
        ],
    );
}

#[test]
fn headers_match_as_a_whole() {
    check_rules(
        &[
            "one: version:one",
            "two: version:two",
            "one: version:two color:orange",
            "one: color:blue | color:green",
            "two: color:red | color:yellow",
        ],
        &[
            "/ version:one -> one",
            "/ version:two -> two",
            "/ version:two color:orange -> one",
            "/ version:two color:blue -> two",
            "/ color:orange -> -",
            "/ some-other-header:one -> -",
            "/ color:blue -> one",
            "/ color:green -> one",
            "/ color:red -> two",
            "/ color:yellow -> two",
            "/ color:purple -> -",
        ],
    );
}

#[test]
fn methods_match_with_paths_and_headers() {
    check_rules(
        &[
            "one: POST",
            "two: GET",
            "one: /path1 GET",
            "two: PUT version:one",
            "three: /path2 POST version:two",
            "one: /path3 PATCH | /path4 DELETE version:three",
            "one: /path5",
            "two: PATCH",
            "three: version:four",
        ],
        &[
            "POST / -> one",
            "GET / -> two",
            "HEAD / -> -",
            "GET /path1 -> one",
            "PUT / version:one -> two",
            "POST /path2 version:two -> three",
            "PATCH /path3 -> one",
            "DELETE /path4 version:three -> one",
            "PUT / -> -",
            "DELETE /path4 -> -",
            "PATCH /path5 -> one",
            "PATCH / version:four -> two",
        ],
    );
}

#[test]
fn parameters_match_as_a_whole() {
    check_rules(
        &[
            "one: ?animal=whale",
            "two: ?animal=dolphin",
            "three: ?animal=dolphin ?color=blue | ?ANIMAL=Whale",
            "one: /path1 ?animal=whale",
            "two: version:one ?animal=whale",
            "three: /path2 version:two ?animal=whale",
            "one: /path3 ?animal=shark | /path4 version:three ?animal=kraken",
            "one: /path5",
            "two: ?animal=hydra",
            "three: version:four",
        ],
        &[
            "/?animal=whale -> one",
            "/?animal=dolphin -> two",
            "/?animal=dolphin&color=blue -> three",
            "/?ANIMAL=Whale -> three",
            "/?animal=whale&otherparam=irrelevant -> one",
            "/?animal=dolphin&color=yellow -> two",
            "/?color=blue -> -",
            "/?animal=dog -> -",
            "/?animal=whaledolphin -> -",
            "/ -> -",
            "/path1?animal=whale -> one",
            "/?animal=whale version:one -> two",
            "/path2?animal=whale version:two -> three",
            "/path3?animal=shark -> one",
            "/path4?animal=kraken version:three -> one",
            "/?animal=shark -> -",
            "/path4?animal=kraken -> -",
            "/path5?animal=hydra -> one",
            "/?animal=hydra version:four -> three",
        ],
    );
}

/// Listeners of port 80, by name and host.
fn listeners(hosts: &[&str]) -> Value {
    let one = |(at, host): (usize, &&str)| json!({ "name": format!("l{at}"), "port": 80, "protocol": "HTTP", "hostname": host });
    hosts.iter().enumerate().map(one).collect()
}

#[test]
fn hosts_are_those_that_listener_and_route_share() {
    let of = |hosts: &[&str], rule: &str| route(json!({ "hostnames": hosts }), &[rule]);
    let routes = [
        of(&["non.matching.com", "*.nonmatchingwildcard.io", "very.specific.com"], "one: /s1"),
        of(
            &["non.matching.com", "wildcard.io", "foo.wildcard.io", "bar.wildcard.io", "foo.bar.wildcard.io"],
            "two: /s2",
        ),
        of(&["non.matching.com", "*.specific.com"], "three: /s3"),
        of(&["*.anotherwildcard.io"], "one: /s4"),
        of(&["specific.but.wrong.com", "wildcard.io"], "two: /s5"),
    ];
    let lines = [
        "very.specific.com/s1 -> one",
        "non.matching.com/s1 -> -",
        "foo.nonmatchingwildcard.io/s1 -> -",
        "foo.wildcard.io/s1 -> -",
        "very.specific.com/non-matching-prefix -> -",
        "foo.wildcard.io/s2 -> two",
        "bar.wildcard.io/s2 -> two",
        "foo.bar.wildcard.io/s2 -> two",
        "non.matching.com/s2 -> -",
        "wildcard.io/s2 -> -",
        "very.specific.com/s2 -> -",
        "very.specific.com/s3 -> three",
        "foo.specific.com/s3 -> -",
        "foo.wildcard.io/s3 -> -",
        "foo.anotherwildcard.io/s4 -> one",
        "foo.bar.anotherwildcard.io/s4 -> one",
        "anotherwildcard.io/s4 -> -",
        "very.specific.com/s4 -> -",
        "specific.but.wrong.com/s5 -> -",
        "wildcard.io/s5 -> -",
    ];
    check_all(listeners(&["very.specific.com", "*.wildcard.io", "*.anotherwildcard.io"]), &routes, &lines);
}

#[test]
fn a_request_belongs_to_the_most_particular_listener() {
    let of = |names: &[&str], service: &str| {
        let parents: Vec<Value> =
            names.iter().map(|name| json!({ "name": "gw", "sectionName": name })).collect();
        route(json!({ "parentRefs": parents }), &[&format!("{service}: /")])
    };
    let routes = [of(&["l0"], "one"), of(&["l1"], "two"), of(&["l2", "l3"], "three")];
    let lines = [
        "bar.com/ -> one",
        "foo.bar.com/ -> two",
        "baz.bar.com/ -> three",
        "multiple.prefixes.bar.com/ -> three",
        "multiple.prefixes.foo.com/ -> three",
        "foo.com/ -> -",
        "no.matching.host/ -> -",
    ];
    check_all(listeners(&["bar.com", "foo.bar.com", "*.bar.com", "*.foo.com"]), &routes, &lines);
}
