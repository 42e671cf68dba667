//! What the service rules mean: packets traced through them, and their text in golden files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use minik::node::network::{Protocol, ServiceKey, View};
use minik::node::proxy::{self, Backend, BackendKind, Plan, Settings, open, plan, trace};
use minik::sys::exec::Recorder;

use super::nft::Nft;
use super::objects::view;
use super::tracer::{From, Packet, Tracer};

const NODE: &str = "172.18.0.3";
const POD: &str = "10.42.1.77";
const WORLD: &str = "203.0.113.5";

pub fn settings() -> Settings {
    Settings {
        node: "here".into(),
        node_ip: NODE.parse().expect("address"),
        pod_cidr: "10.42.0.0/16".parse().expect("network"),
        service_cidr: Some("10.43.0.0/16".parse().expect("network")),
        answered_here: BTreeSet::from([Ipv4Addr::new(10, 43, 0, 10)]),
    }
}

/// What goes to a backend's tool on a fresh node.
pub fn batch(view: &View, kind: BackendKind) -> String {
    Written::new(kind).follow(view, &plan(view, &settings()))
}

/// A backend, and what went to its tool.
struct Written {
    recorder: Recorder,
    backend: Box<dyn Backend>,
    seen: Option<u64>,
}

impl Written {
    fn new(kind: BackendKind) -> Self {
        let recorder = Recorder::default();
        let backend = open(kind, Arc::new(recorder.clone()));
        Self { recorder, backend, seen: None }
    }

    /// What goes to the tool now, for what has changed since the last time.
    fn follow(&mut self, view: &View, plan: &Plan) -> String {
        let changed = view.changed_since(self.seen);
        self.seen = Some(view.revision());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.backend.apply(plan, &changed)).expect("recorded");
        let inputs = self.recorder.take().into_iter().filter_map(|invocation| invocation.stdin);
        inputs.map(|input| String::from_utf8(input).expect("text")).collect()
    }
}

/// The addresses that the node has.
const LOCAL: [&str; 4] = ["127.0.0.1", NODE, "172.18.128.9", "10.43.0.10"];

/// A plan, and what each backend makes of it.
pub struct Tracers {
    plan: Plan,
    pub local: BTreeSet<Ipv4Addr>,
    pub iptables: Tracer,
    pub nftables: Nft,
    written: [Written; 2],
}

pub fn tracer(view: &View) -> Tracers {
    let local: BTreeSet<Ipv4Addr> = LOCAL.iter().map(|ip| ip.parse().expect("address")).collect();
    let mut tracers = Tracers {
        plan: plan(&View::default(), &settings()),
        iptables: Tracer::of(local.clone()),
        nftables: Nft::of(local.clone()),
        local,
        written: [BackendKind::Iptables, BackendKind::Nftables].map(Written::new),
    };
    tracers.follow(view);
    tracers
}

impl Tracers {
    /// Takes in a view that has changed.
    pub fn follow(&mut self, view: &View) {
        self.plan = plan(view, &settings());
        let [iptables, nftables] = self.written.each_mut().map(|written| written.follow(view, &self.plan));
        self.iptables.apply(&iptables);
        self.nftables.apply(&nftables);
    }
}

/// `source -> address:port/protocol`; from the node where the source is one of its addresses.
pub fn packet(line: &str) -> Packet {
    let (source, rest) = line.split_once(" -> ").expect("an arrow");
    let (to, protocol) = rest.split_once('/').expect("a protocol");
    let (to, port) = to.split_once(':').expect("a port");
    let source: Ipv4Addr = source.parse().expect("source");
    Packet {
        from: if source.is_loopback() || source.to_string() == NODE { From::Node } else { From::Wire },
        source,
        to: to.parse().expect("destination"),
        port: port.parse().expect("port"),
        protocol: match protocol {
            "udp" => "udp",
            "sctp" => "sctp",
            _ => "tcp",
        },
    }
}

impl Tracers {
    /// What the plan says, in the words of the other two.
    fn planned(&self, packet: &Packet) -> BTreeMap<String, f64> {
        let packet = proxy::Packet {
            source: packet.source,
            to: packet.to,
            port: packet.port,
            protocol: match packet.protocol {
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
        };
        let (fates, why) = trace(&self.plan, &packet, |ip| self.local.contains(&ip));
        assert!(!why.is_empty());
        fates.into_iter().map(|(fate, chance)| (fate.to_string(), chance)).collect()
    }

    /// What all say that knows nothing of the packet's source.
    pub fn all(&self, packet: &Packet) -> [(&'static str, BTreeMap<String, f64>); 3] {
        [
            ("iptables", self.iptables.trace(packet)),
            ("nftables", self.nftables.trace(packet)),
            ("plan", self.planned(packet)),
        ]
    }
}

fn check(tracers: &Tracers, line: &str, expect: &[&str]) {
    for (who, fates) in tracers.all(&packet(line)) {
        check_fates(&format!("{who}: {line}"), &fates, expect);
    }
}

fn check_fates(line: &str, fates: &BTreeMap<String, f64>, expect: &[&str]) {
    let total: f64 = fates.values().sum();
    assert!((total - 1.0).abs() < 1e-6, "{line}: probabilities sum to {total}: {fates:?}");
    let found: Vec<&str> = fates.keys().map(String::as_str).collect();
    assert_eq!(found, expect, "{line}");
    // Whatever is chosen among is chosen with equal probability.
    let share = 1.0 / expect.len() as f64;
    assert!(fates.values().all(|chance| (chance - share).abs() < 1e-6), "{line}: {fates:?}");
}

fn manifest(service: &str, endpoints: &str) -> View {
    view(&format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: shop }}
spec:
  clusterIP: 10.43.0.20
  ports: [{{ name: http, port: 80, targetPort: 8080, nodePort: 30080 }}]
{service}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: web-1, namespace: shop, labels: {{ kubernetes.io/service-name: web }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080 }}]
endpoints:
{endpoints}
"
    ))
}

const THREE: &str = "
- { addresses: [10.42.0.1], nodeName: there }
- { addresses: [10.42.1.2], nodeName: here }
- { addresses: [10.42.1.3], nodeName: here }";
const AWAY: &str = "
- { addresses: [10.42.0.1], nodeName: there }";
const BALANCER: &str = "
  type: LoadBalancer
status: { loadBalancer: { ingress: [{ ip: 172.18.128.9 }] } }";

#[test]
fn connections_spread_evenly_over_ready_endpoints() {
    for count in (1..=9).chain([31, 32, 33, 70]) {
        let endpoints: String =
            (1..=count).map(|n| format!("\n- {{ addresses: [10.42.1.{n}], nodeName: here }}")).collect();
        let tracer = tracer(&manifest("", &endpoints));
        let mut expect: Vec<String> = (1..=count).map(|n| format!("10.42.1.{n}:8080")).collect();
        expect.sort_unstable();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(&tracer, &format!("{POD} -> 10.43.0.20:80/tcp"), &expect);
    }
}

#[test]
fn sources_are_kept_inside_and_hidden_where_answers_would_get_lost() {
    let tracer = tracer(&manifest("", AWAY));
    check(&tracer, &format!("{POD} -> 10.43.0.20:80/tcp"), &["10.42.0.1:8080"]);
    check(&tracer, &format!("{NODE} -> 10.43.0.20:80/tcp"), &["10.42.0.1:8080 as node"]);
    check(&tracer, &format!("{WORLD} -> 10.43.0.20:80/tcp"), &["10.42.0.1:8080 as node"]);
    check(&tracer, "10.42.0.1 -> 10.43.0.20:80/tcp", &["10.42.0.1:8080 as node"]);
    check(&tracer, &format!("{WORLD} -> {NODE}:30080/tcp"), &["10.42.0.1:8080 as node"]);
    check(&tracer, "127.0.0.1 -> 127.0.0.1:30080/tcp", &["10.42.0.1:8080 as node"]);
    // Other ports and protocols are not the Service's.
    check(&tracer, &format!("{POD} -> 10.43.0.20:81/tcp"), &["dropped"]);
    check(&tracer, &format!("{WORLD} -> {NODE}:30080/udp"), &["untouched 172.18.0.3:30080"]);
}

#[test]
fn pods_leave_the_cluster_as_their_node() {
    let tracer = tracer(&manifest("", AWAY));
    check(&tracer, &format!("{POD} -> {WORLD}:443/tcp"), &["untouched 203.0.113.5:443 as node"]);
    check(&tracer, &format!("{POD} -> 10.42.0.9:443/tcp"), &["untouched 10.42.0.9:443"]);
    check(&tracer, &format!("{POD} -> {NODE}:10250/tcp"), &["untouched 172.18.0.3:10250"]);
    check(&tracer, &format!("{NODE} -> {WORLD}:443/tcp"), &["untouched 203.0.113.5:443"]);
}

#[test]
fn no_endpoint_means_refused() {
    let tracer = tracer(&manifest(BALANCER, " []"));
    check(&tracer, &format!("{POD} -> 10.43.0.20:80/tcp"), &["refused"]);
    check(&tracer, &format!("{NODE} -> 10.43.0.20:80/tcp"), &["refused"]);
    check(&tracer, &format!("{WORLD} -> {NODE}:30080/tcp"), &["refused"]);
    check(&tracer, &format!("{WORLD} -> 172.18.128.9:80/tcp"), &["refused"]);
}

#[test]
fn local_policies() {
    let external = format!("{}{BALANCER}", "  externalTrafficPolicy: Local");
    let near = tracer(&manifest(&external, THREE));
    let (local, all) =
        (["10.42.1.2:8080", "10.42.1.3:8080"], ["10.42.0.1:8080", "10.42.1.2:8080", "10.42.1.3:8080"]);
    check(&near, &format!("{WORLD} -> {NODE}:30080/tcp"), &local);
    check(&near, &format!("{WORLD} -> 172.18.128.9:80/tcp"), &local);
    check(&near, &format!("{POD} -> 172.18.128.9:80/tcp"), &all);
    check(&near, &format!("{POD} -> 10.43.0.20:80/tcp"), &all);
    let as_node = all.map(|to| format!("{to} as node"));
    check(&near, &format!("{NODE} -> {NODE}:30080/tcp"), &as_node.each_ref().map(String::as_str));

    let away = tracer(&manifest(&external, AWAY));
    check(&away, &format!("{WORLD} -> {NODE}:30080/tcp"), &["dropped"]);
    check(&away, &format!("{POD} -> 172.18.128.9:80/tcp"), &["10.42.0.1:8080"]);

    let internal = "  internalTrafficPolicy: Local";
    check(&tracer(&manifest(internal, THREE)), &format!("{POD} -> 10.43.0.20:80/tcp"), &local);
    check(&tracer(&manifest(internal, AWAY)), &format!("{POD} -> 10.43.0.20:80/tcp"), &["dropped"]);
    check(&tracer(&manifest(internal, " []")), &format!("{POD} -> 10.43.0.20:80/tcp"), &["refused"]);
}

#[test]
fn endpoints_that_end_serve_only_when_nothing_else_does() {
    let ending = "
- { addresses: [10.42.1.2], nodeName: here, conditions: { ready: false, serving: true, terminating: true } }
- { addresses: [10.42.1.3], nodeName: here, conditions: { ready: false, serving: false, terminating: true } }";
    let starting = "
- { addresses: [10.42.1.4], nodeName: here, conditions: { ready: false } }";
    let ready = "
- { addresses: [10.42.0.1], nodeName: there, conditions: { ready: true } }";
    let to_service = format!("{POD} -> 10.43.0.20:80/tcp");
    check(&tracer(&manifest("", &format!("{ending}{starting}"))), &to_service, &["10.42.1.2:8080"]);
    check(&tracer(&manifest("", &format!("{ending}{ready}"))), &to_service, &["10.42.0.1:8080"]);
    check(&tracer(&manifest("", starting)), &to_service, &["refused"]);
    // For outside clients of a Local Service, what ends here is better than what is ready elsewhere.
    let local = manifest("  externalTrafficPolicy: Local\n  type: NodePort", &format!("{ending}{ready}"));
    check(&tracer(&local), &format!("{WORLD} -> {NODE}:30080/tcp"), &["10.42.1.2:8080"]);
}

#[test]
fn source_ranges_and_external_addresses() {
    let ranges = format!("{}{BALANCER}", "  loadBalancerSourceRanges: [198.51.100.0/24]");
    let guarded = tracer(&manifest(&ranges, AWAY));
    check(&guarded, "198.51.100.9 -> 172.18.128.9:80/tcp", &["10.42.0.1:8080 as node"]);
    check(&guarded, &format!("{WORLD} -> 172.18.128.9:80/tcp"), &["dropped"]);
    check(&guarded, &format!("{WORLD} -> {NODE}:30080/tcp"), &["10.42.0.1:8080 as node"]);

    let external = tracer(&manifest("  externalIPs: [192.0.2.7]", AWAY));
    check(&external, &format!("{WORLD} -> 192.0.2.7:80/tcp"), &["10.42.0.1:8080 as node"]);
    let external = tracer(&manifest("  externalIPs: [192.0.2.7]", " []"));
    check(&external, &format!("{POD} -> 192.0.2.7:80/tcp"), &["refused"]);
}

#[test]
fn clients_with_affinity_return_to_their_endpoint() {
    let view = manifest("  sessionAffinity: ClientIP", THREE);
    let mut tracer = tracer(&view);
    let all = ["10.42.0.1:8080", "10.42.1.2:8080", "10.42.1.3:8080"];
    check(&tracer, &format!("{POD} -> 10.43.0.20:80/tcp"), &all);
    let text = batch(&view, BackendKind::Iptables);
    let known = text.lines().find(|l| l.contains("DNAT --to-destination 10.42.1.3:8080")).expect("a rule");
    tracer.iptables.recent.insert(known.split(' ').nth(1).expect("its chain").to_owned());
    let nft = batch(&view, BackendKind::Nftables);
    let known =
        nft.lines().find(|l| l.starts_with("add set") && l.contains("10.42.1.3/8080")).expect("a set");
    tracer.nftables.recent.insert(known.split(' ').nth(4).expect("its name").to_owned());
    assert!(known.contains("timeout 10800s;"), "{known}");
    let again = packet(&format!("{POD} -> 10.43.0.20:80/tcp"));
    for fates in [tracer.iptables.trace(&again), tracer.nftables.trace(&again)] {
        check_fates("a known client", &fates, &["10.42.1.3:8080"]);
    }
    assert!(
        text.contains("--rcheck --seconds 10800 --reap"),
        "three hours unless the Service says otherwise"
    );
}

#[test]
fn hints_for_nodes_keep_traffic_at_home() {
    let hinted = "
- { addresses: [10.42.0.1], nodeName: there, hints: { forNodes: [{ name: there }] } }
- { addresses: [10.42.1.2], nodeName: here, hints: { forNodes: [{ name: here }] } }";
    let to_service = format!("{POD} -> 10.43.0.20:80/tcp");
    check(&tracer(&manifest("", hinted)), &to_service, &["10.42.1.2:8080"]);
    let partly = format!("{hinted}\n- {{ addresses: [10.42.1.3], nodeName: here }}");
    let all = ["10.42.0.1:8080", "10.42.1.2:8080", "10.42.1.3:8080"];
    check(&tracer(&manifest("", &partly)), &to_service, &all);
}

#[test]
fn hints_for_zones_keep_traffic_near() {
    let near = "
- { addresses: [10.42.0.1], nodeName: there, hints: { forZones: [{ name: a }] } }
- { addresses: [10.42.1.2], nodeName: here, hints: { forZones: [{ name: b }] } }";
    let node = |zone: &str| {
        format!(
            "\n---\nkind: Node\napiVersion: v1\nmetadata: {{ name: here, labels: {{ topology.kubernetes.io/zone: {zone} }} }}"
        )
    };
    let to_service = format!("{POD} -> 10.43.0.20:80/tcp");
    let both = ["10.42.0.1:8080", "10.42.1.2:8080"];
    check(&tracer(&manifest("", near)), &to_service, &both);
    check(&tracer(&manifest("", &format!("{near}{}", node("a")))), &to_service, &["10.42.0.1:8080"]);
    check(&tracer(&manifest("", &format!("{near}{}", node("c")))), &to_service, &both);
}

#[test]
fn two_services_with_one_address_do_not_stop_the_rules() {
    let claim = |name: &str, ip: &str, endpoint: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ clusterIP: {ip}, \
             externalIPs: [192.0.2.7], ports: [{{ port: 80 }}] }}\n---\napiVersion: discovery.k8s.io/v1\nkind: \
             EndpointSlice\nmetadata: {{ name: {name}, namespace: shop, labels: {{ kubernetes.io/service-name: {name} \
             }} }}\naddressType: IPv4\nports: [{{ port: 80 }}]\nendpoints: [{{ addresses: [{endpoint}] }}]\n---\n"
        )
    };
    let (a, b) = (claim("a", "10.43.0.20", "10.42.0.1"), claim("b", "10.43.0.21", "10.42.0.2"));
    let to_both = format!("{WORLD} -> 192.0.2.7:80/tcp");
    let mut now = view(&[b, a.clone()].concat());
    let mut tracer = tracer(&now);
    check(&tracer, &to_both, &["10.42.0.1:80 as node"]);
    // Who was second has it when the first goes, and not when it comes back.
    now.remove_service(&ServiceKey::new("shop", "a"));
    tracer.follow(&now);
    check(&tracer, &to_both, &["10.42.0.2:80 as node"]);
    let back = view(&a).service(&ServiceKey::new("shop", "a")).cloned().expect("a");
    now.put_service(back);
    tracer.follow(&now);
    check(&tracer, &to_both, &["10.42.0.1:80 as node"]);
    // Nothing has changed: nothing is written.
    assert_eq!(tracer.written.each_mut().map(|written| written.follow(&now, &tracer.plan)), ["", ""]);
}

#[test]
fn dns_is_answered_here_and_other_proxies_services_are_theirs() {
    let view = view(
        "apiVersion: v1
kind: Service
metadata: { name: kube-dns, namespace: kube-system }
spec: { clusterIP: 10.43.0.10, ports: [{ name: dns, port: 53, protocol: UDP }] }
---
apiVersion: v1
kind: Service
metadata: { name: meshed, namespace: shop, labels: { service.kubernetes.io/service-proxy-name: mesh } }
spec: { clusterIP: 10.43.0.21, ports: [{ port: 80 }] }
",
    );
    let tracer = tracer(&view);
    check(&tracer, &format!("{POD} -> 10.43.0.10:53/udp"), &["untouched 10.43.0.10:53"]);
    check(&tracer, &format!("{NODE} -> 10.43.0.10:53/udp"), &["untouched 10.43.0.10:53"]);
    // Nobody took it on its way.
    check(&tracer, &format!("{NODE} -> 10.43.0.21:80/tcp"), &["dropped"]);
}

#[test]
fn what_has_the_address_of_no_service_stays_in_the_cluster() {
    let labelled = manifest("", AWAY);
    let mut service = labelled.service(&ServiceKey::new("shop", "web")).cloned().expect("web");
    let to_service = format!("{POD} -> 10.43.0.20:80/tcp");
    let mut now = labelled;
    let mut tracer = tracer(&now);
    check(&tracer, &to_service, &["10.42.0.1:8080"]);
    service.unproxied = true;
    now.put_service(service.clone());
    tracer.follow(&now);
    check(&tracer, &to_service, &["dropped"]);
    service.unproxied = false;
    now.put_service(service);
    tracer.follow(&now);
    check(&tracer, &to_service, &["10.42.0.1:8080"]);
    now.remove_service(&ServiceKey::new("shop", "web"));
    tracer.follow(&now);
    for from in [POD, NODE, WORLD] {
        check(&tracer, &format!("{from} -> 10.43.0.20:80/tcp"), &["dropped"]);
        check(&tracer, &format!("{from} -> 10.43.200.1:53/udp"), &["dropped"]);
    }
    check(&tracer, &format!("{NODE} -> 10.44.0.1:80/tcp"), &["untouched 10.44.0.1:80"]);
}

#[test]
fn localhost_is_not_reached_from_the_network() {
    let tracer = tracer(&View::default());
    check(&tracer, &format!("{WORLD} -> 127.0.0.1:6443/tcp"), &["dropped"]);
    check(&tracer, "127.0.0.1 -> 127.0.0.1:6443/tcp", &["untouched 127.0.0.1:6443"]);
}

#[test]
fn the_text_is_as_written_down() {
    let full = format!(
        "  externalTrafficPolicy: Local
  healthCheckNodePort: 31234
  sessionAffinity: ClientIP
  sessionAffinityConfig: {{ clientIP: {{ timeoutSeconds: 600 }} }}
  loadBalancerSourceRanges: [172.18.0.0/16]
  externalIPs: [192.0.2.7]{BALANCER}"
    );
    let cases = BTreeMap::from([
        ("empty", View::default()),
        ("cluster-ip", manifest("", THREE)),
        ("everything", manifest(&full, THREE)),
        ("no-endpoints", manifest(&full, " []")),
        ("elsewhere", manifest(&full, AWAY)),
    ]);
    for (name, view) in cases {
        golden(&format!("proxy/{name}.rules"), &batch(&view, BackendKind::Iptables));
        golden(&format!("proxy/{name}.nft"), &batch(&view, BackendKind::Nftables));
    }
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expect, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}
