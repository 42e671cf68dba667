//! What network policies mean: upstream's cases as a truth table between nine Pods in three namespaces, judged by the plan
//! and by the rules in a real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use minik::node::network::Protocol;
use minik::node::policy::{Member, Observed, plan, table};
use minik::sys::nftables::Known;
use serde_json::{Value, json};

use super::namespaces::{Place, available, on_node, sh};

/// Pods a, b and c of namespaces x, y and z: 10.42.0.1 is x/a, 10.42.0.9 is z/c.
fn ip(pod: &str) -> Ipv4Addr {
    let (namespace, name) = pod.split_once('/').expect("namespace/name");
    let at = |text: &str, first: u8| text.as_bytes()[0] - first;
    Ipv4Addr::new(10, 42, 0, 11 + 3 * at(namespace, b'x') + at(name, b'a'))
}

fn all() -> Vec<String> {
    ["x", "y", "z"].iter().flat_map(|ns| ["a", "b", "c"].map(|pod| format!("{ns}/{pod}"))).collect()
}

fn pod(name: &str) -> Member {
    let (namespace, short) = name.split_once('/').expect("namespace/name");
    let object: Pod = serde_json::from_value(json!({
        "metadata": { "name": short, "namespace": namespace, "uid": name, "labels": { "pod": short } },
        "spec": { "nodeName": "here", "containers": [{ "name": "c", "ports": [
            { "name": "serve-80", "containerPort": 80 }, { "name": "serve-81", "containerPort": 81 },
        ] }] },
        "status": { "podIP": ip(name).to_string() },
    }))
    .expect("a Pod");
    Member::of(&object, "here", None).expect("a member")
}

fn observed(policies: &[Value]) -> Observed {
    let mut observed = Observed { pods: all().iter().map(|name| pod(name)).collect(), ..Observed::default() };
    for name in ["x", "y", "z"] {
        let namespace = json!({ "metadata": { "name": name, "labels": { "ns": name } } });
        observed.put_namespace(&serde_json::from_value::<Namespace>(namespace).expect("a namespace"));
    }
    for (at, spec) in policies.iter().enumerate() {
        let policy = json!({ "metadata": { "name": format!("p{at}"), "namespace": "x" }, "spec": spec });
        let policy: NetworkPolicy = serde_json::from_value(policy).expect("a policy");
        observed.policies.push(Arc::new(policy));
    }
    observed
}

/// Who may reach whom, as `from>to` for every pair that may not; everything else may.
struct Case {
    name: &'static str,
    policies: Vec<Value>,
    port: u16,
    /// From whom (`*` for all others) to whom (`*` for all) connections fail.
    refused: fn(&str, &str) -> bool,
}

fn in_ns(pod: &str, namespace: &str) -> bool {
    pod.starts_with(namespace)
}

fn deny(kind: &str) -> Value {
    json!({ "podSelector": {}, "policyTypes": [kind] })
}

/// An ingress policy for x/a.
fn to_a(rules: Value) -> Value {
    json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "policyTypes": ["Ingress"], "ingress": rules })
}

/// An egress policy for x/a.
fn from_a(rules: Value) -> Value {
    json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "policyTypes": ["Egress"], "egress": rules })
}

/// The cases of upstream's network policy suite, by their names there.
fn cases() -> Vec<Case> {
    let mut cases = ingress_cases();
    cases.extend(egress_cases());
    cases
}

#[allow(clippy::too_many_lines)] // a table
fn ingress_cases() -> Vec<Case> {
    let ns = |name: &str| json!({ "matchLabels": { "ns": name } });
    let is = |name: &str| json!({ "matchLabels": { "pod": name } });
    let case = |name, policies, port, refused| Case { name, policies, port, refused };
    vec![
        case("no policy", vec![], 80, |_, _| false),
        case("default-deny-ingress", vec![deny("Ingress")], 80, |_, to| in_ns(to, "x")),
        case(
            "allow all, then deny: what one allows is allowed",
            vec![deny("Ingress"), json!({ "podSelector": {}, "ingress": [{}] })],
            80,
            |_, _| false,
        ),
        case(
            "ingress from Pods by label",
            vec![to_a(json!([{ "from": [{ "podSelector": is("b") }] }]))],
            80,
            |from, to| to == "x/a" && from != "x/b",
        ),
        case(
            "ingress from namespaces by label",
            vec![to_a(json!([{ "from": [{ "namespaceSelector": ns("y") }] }]))],
            80,
            |from, to| to == "x/a" && !in_ns(from, "y"),
        ),
        case(
            "namespaceSelector with expressions",
            vec![to_a(json!([{ "from": [{ "namespaceSelector": { "matchExpressions": [
                { "key": "ns", "operator": "NotIn", "values": ["x"] }] } }] }]))],
            80,
            |from, to| to == "x/a" && in_ns(from, "x"),
        ),
        case(
            "the namespace's name is a label",
            vec![to_a(json!([{ "from": [{ "namespaceSelector": {
                "matchLabels": { "kubernetes.io/metadata.name": "z" } } }] }]))],
            80,
            |from, to| to == "x/a" && !in_ns(from, "z"),
        ),
        case(
            "podSelector OR namespaceSelector",
            vec![to_a(json!([{ "from": [{ "namespaceSelector": ns("y") }, { "podSelector": is("b") }] }]))],
            80,
            |from, to| to == "x/a" && !in_ns(from, "y") && from != "x/b",
        ),
        case(
            "podSelector AND namespaceSelector",
            vec![to_a(json!([{ "from": [{ "namespaceSelector": ns("y"), "podSelector": is("b") }] }]))],
            80,
            |from, to| to == "x/a" && from != "y/b",
        ),
        case("a port", vec![to_a(json!([{ "ports": [{ "port": 81 }] }]))], 80, |_, to| to == "x/a"),
        case("the port", vec![to_a(json!([{ "ports": [{ "port": 80 }] }]))], 80, |_, _| false),
        case("a named port", vec![to_a(json!([{ "ports": [{ "port": "serve-80" }] }]))], 80, |_, _| false),
        case(
            "another named port",
            vec![to_a(json!([{ "ports": [{ "port": "serve-81" }] }]))],
            80,
            |_, to| to == "x/a",
        ),
        case(
            "a range of ports",
            vec![to_a(json!([{ "ports": [{ "port": 79, "endPort": 81 }] }]))],
            80,
            |_, _| false,
        ),
        case("another protocol", vec![to_a(json!([{ "ports": [{ "protocol": "UDP" }] }]))], 80, |_, to| {
            to == "x/a"
        }),
        case(
            "ports of some peers, other ports of others",
            vec![to_a(json!([
                { "from": [{ "podSelector": is("b") }], "ports": [{ "port": 80 }] },
                { "from": [{ "podSelector": is("c") }], "ports": [{ "port": 81 }] },
            ]))],
            80,
            |from, to| to == "x/a" && from != "x/b",
        ),
        case(
            "ipBlock with except",
            vec![to_a(
                json!([{ "from": [{ "ipBlock": { "cidr": "10.42.0.0/24", "except": ["10.42.0.14/32", "10.42.0.16/31"] } }] }]),
            )],
            80,
            |from, to| to == "x/a" && ["y/a", "y/c", "z/a"].contains(&from),
        ),
        case(
            "no peer at all",
            vec![to_a(json!([{ "from": [{ "podSelector": is("nobody") }] }]))],
            80,
            |_, to| to == "x/a",
        ),
    ]
}

fn egress_cases() -> Vec<Case> {
    let ns = |name: &str| json!({ "matchLabels": { "ns": name } });
    let is = |name: &str| json!({ "matchLabels": { "pod": name } });
    let case = |name, policies, port, refused| Case { name, policies, port, refused };
    vec![
        case(
            "default-deny-all",
            vec![json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })],
            80,
            |from, to| in_ns(from, "x") || in_ns(to, "x"),
        ),
        case("deny egress", vec![deny("Egress")], 80, |from, _| in_ns(from, "x")),
        case(
            "egress to a namespace",
            vec![from_a(json!([{ "to": [{ "namespaceSelector": ns("y") }] }]))],
            80,
            |from, to| from == "x/a" && !in_ns(to, "y"),
        ),
        case(
            "egress on a named port",
            vec![from_a(json!([{ "to": [{ "podSelector": is("b") }], "ports": [{ "port": "serve-80" }] }]))],
            80,
            |from, to| from == "x/a" && to != "x/b",
        ),
        case(
            "egress to an ipBlock",
            vec![from_a(json!([{ "to": [{ "ipBlock": { "cidr": "10.42.0.14/31" } }] }]))],
            80,
            |from, to| from == "x/a" && to != "y/a" && to != "y/b",
        ),
        case(
            "both directions",
            vec![json!({ "podSelector": is("a"), "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{ "from": [{ "podSelector": is("b") }] }], "egress": [{ "to": [{ "podSelector": is("c") }] }] })],
            80,
            |from, to| (to == "x/a" && from != "x/b") || (from == "x/a" && to != "x/c"),
        ),
        case(
            "egress rules without types",
            vec![json!({ "podSelector": is("a"), "egress": [{ "to": [{ "podSelector": is("b") }] }] })],
            80,
            |from, to| to == "x/a" || (from == "x/a" && to != "x/b"),
        ),
        case(
            "two policies add up",
            vec![
                to_a(json!([{ "from": [{ "podSelector": is("b") }] }])),
                to_a(json!([{ "from": [{ "namespaceSelector": ns("z") }] }])),
            ],
            80,
            |from, to| to == "x/a" && from != "x/b" && !in_ns(from, "z"),
        ),
    ]
}

fn expect(case: &Case, from: &str, to: &str) -> bool {
    from == to || !(case.refused)(from, to)
}

#[test]
fn the_plan_says_what_upstreams_cases_want() {
    for case in cases() {
        let plan = plan(&observed(&case.policies));
        for (from, to) in all().iter().flat_map(|from| all().into_iter().map(move |to| (from.clone(), to))) {
            let allowed = plan.allows(ip(&from), ip(&to), Protocol::Tcp, case.port);
            assert_eq!(allowed, expect(&case, &from, &to), "{}: {from} > {to}", case.name);
        }
    }
}

/// The whole table, by connections between nine namespaces of a real kernel.
#[test]
fn the_kernel_does_what_upstreams_cases_want() {
    if !available() {
        return;
    }
    on_node(|| {
        minik::node::routes::apply_settings();
        let places: BTreeMap<String, Place> =
            all().into_iter().map(|name| (name.clone(), Place::pod(&ip(&name).to_string()))).collect();
        places.values().for_each(|place| place.serve(80));
        let mut known = Known::default();
        for case in cases() {
            let (batch, next) = known.batch(&table(&plan(&observed(&case.policies))));
            known = next;
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &batch).expect("written");
            sh(&format!("nft -f {}", file.path().display()));
            for (from, place) in &places {
                // All at once: what is dropped is waited for.
                let targets: Vec<(String, Ipv4Addr)> =
                    all().into_iter().map(|to| (to.clone(), ip(&to))).collect();
                let reached: BTreeSet<String> = place.inside(move || reach(&targets, 80));
                for to in all() {
                    assert_eq!(
                        reached.contains(&to),
                        expect(&case, from, &to),
                        "{}: {from} > {to}\n{batch}",
                        case.name
                    );
                }
            }
        }
    });
}

/// The targets that take a connection within a moment.
fn reach(targets: &[(String, Ipv4Addr)], port: u16) -> BTreeSet<String> {
    use std::net::{SocketAddr, TcpStream};
    let patience = std::time::Duration::from_millis(150);
    let tries: Vec<_> = targets
        .iter()
        .cloned()
        .map(|(name, ip)| {
            let namespace = std::fs::File::open("/proc/thread-self/ns/net").expect("the namespace");
            std::thread::spawn(move || {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("entered");
                TcpStream::connect_timeout(&SocketAddr::from((ip, port)), patience).is_ok().then_some(name)
            })
        })
        .collect();
    tries.into_iter().filter_map(|one| one.join().expect("no panic")).collect()
}

#[test]
fn the_clusters_names_and_self_are_reached_as_allowed() {
    let policy = json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{
        "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "y" } },
                 "podSelector": { "matchLabels": { "pod": "a" } } }],
        "ports": [{ "port": 53, "protocol": "UDP" }],
    }] });
    let plan = plan(&observed(&[policy]));
    let udp = |to: &str, port| plan.allows(ip("x/b"), ip(to), Protocol::Udp, port);
    assert!(udp("y/a", 53) && !udp("y/a", 54) && !udp("y/b", 53) && udp("x/b", 9));
    assert!(!plan.allows(ip("x/b"), ip("y/a"), Protocol::Tcp, 53));
}
