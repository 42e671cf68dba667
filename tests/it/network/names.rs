//! Cluster DNS: what names mean, and the server on a real socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use minik::node::dns::{Answer, Custom, Listeners, Options, Upstream, Zone, run};
use minik::node::network::{Source, View};
use minik::rt::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use super::objects::view;

const CLUSTER: &str = "
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec:
  clusterIP: 10.43.0.20
  ports: [{ name: http, port: 80 }, { name: quic, port: 443, protocol: UDP }]
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: shop }
spec: { clusterIP: None, ports: [{ name: pg, port: 5432 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: db-1, namespace: shop, labels: { kubernetes.io/service-name: db } }
addressType: IPv4
ports: [{ name: pg, port: 5432 }]
endpoints:
- { addresses: [10.42.0.5], hostname: db-0 }
- { addresses: [10.42.1.6] }
- { addresses: [10.42.1.7], conditions: { ready: false } }
---
apiVersion: v1
kind: Service
metadata: { name: peers, namespace: shop }
spec: { clusterIP: None, publishNotReadyAddresses: true }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: peers-1, namespace: shop, labels: { kubernetes.io/service-name: peers } }
addressType: IPv4
ports: []
endpoints:
- { addresses: [10.42.1.7], hostname: peer-0, conditions: { ready: false } }
---
apiVersion: v1
kind: Service
metadata: { name: empty, namespace: shop }
spec: { clusterIP: None }
---
apiVersion: v1
kind: Service
metadata: { name: outside, namespace: shop }
spec: { type: ExternalName, externalName: www.example.com }
---
apiVersion: v1
kind: Service
metadata: { name: alias, namespace: shop }
spec: { type: ExternalName, externalName: web.shop.svc.cluster.local }
---
apiVersion: v1
kind: Service
metadata: { name: circle, namespace: shop }
spec: { type: ExternalName, externalName: circle.shop.svc.cluster.local }
";

fn options() -> Options {
    Options {
        cluster_domain: "cluster.local".into(),
        dns_ip: Ipv4Addr::new(10, 43, 0, 10),
        networks: vec!["10.43.0.0/16".parse().expect("network"), "10.42.0.0/16".parse().expect("network")],
    }
}

/// An answer as lines: records' data, or what there is instead.
fn text(answer: Answer) -> Vec<String> {
    match answer {
        Answer::Records { answers, additionals } => {
            let line = |r: &hickory_resolver::proto::rr::Record| r.data.to_string();
            let more = additionals.iter().map(|r| format!("+ {} {}", r.name, r.data));
            answers.iter().map(line).chain(more).collect()
        }
        Answer::Alias { target, .. } => vec![format!("-> {target}")],
        Answer::NoData => vec!["no data".into()],
        Answer::NoSuchName => vec!["no such name".into()],
        Answer::Elsewhere => vec!["elsewhere".into()],
    }
}

#[test]
fn names_mean_what_the_specification_says() {
    use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SRV, TXT};
    let (zone, view) = (Zone::new(&options()).expect("a zone"), view(CLUSTER));
    let check = |name: &str, kind: RecordType, expect: &[&str]| {
        let asked = Name::from_ascii(name).expect("a name");
        assert_eq!(text(zone.answer(&view, &asked, kind)), expect, "{name} {kind}");
    };
    let none = &["no such name"];

    check("web.shop.svc.cluster.local.", A, &["10.43.0.20"]);
    check("WEB.Shop.SVC.cluster.LOCAL.", A, &["10.43.0.20"]);
    check("web.shop.svc.cluster.local.", AAAA, &["no data"]);
    check("web.shop.svc.cluster.local.", ANY, &["10.43.0.20"]);
    check("missing.shop.svc.cluster.local.", A, none);
    check("web.other.svc.cluster.local.", AAAA, none);
    check("a.b.web.shop.svc.cluster.local.", A, none);

    check("db.shop.svc.cluster.local.", A, &["10.42.0.5", "10.42.1.6"]);
    check("db-0.db.shop.svc.cluster.local.", A, &["10.42.0.5"]);
    check("10-42-1-6.db.shop.svc.cluster.local.", A, &["10.42.1.6"]);
    check("db-1.db.shop.svc.cluster.local.", A, none);
    check("peers.shop.svc.cluster.local.", A, &["10.42.1.7"]);
    check("peer-0.peers.shop.svc.cluster.local.", A, &["10.42.1.7"]);
    check("empty.shop.svc.cluster.local.", A, &["no data"]);

    let at_web = "+ web.shop.svc.cluster.local. 10.43.0.20";
    check("_http._tcp.web.shop.svc.cluster.local.", SRV, &["0 100 80 web.shop.svc.cluster.local.", at_web]);
    check("_quic._udp.web.shop.svc.cluster.local.", SRV, &["0 100 443 web.shop.svc.cluster.local.", at_web]);
    check("_http._udp.web.shop.svc.cluster.local.", SRV, none);
    check("_http._tcp.web.shop.svc.cluster.local.", A, &["no data"]);
    check("_tcp.web.shop.svc.cluster.local.", A, &["no data"]);
    check(
        "_pg._tcp.db.shop.svc.cluster.local.",
        SRV,
        &[
            "0 50 5432 10-42-1-6.db.shop.svc.cluster.local.",
            "0 50 5432 db-0.db.shop.svc.cluster.local.",
            "+ 10-42-1-6.db.shop.svc.cluster.local. 10.42.1.6",
            "+ db-0.db.shop.svc.cluster.local. 10.42.0.5",
        ],
    );

    check("outside.shop.svc.cluster.local.", A, &["-> www.example.com."]);
    check("outside.shop.svc.cluster.local.", CNAME, &["-> www.example.com."]);
    check("x.outside.shop.svc.cluster.local.", A, none);

    check("20.0.43.10.in-addr.arpa.", PTR, &["web.shop.svc.cluster.local."]);
    check("5.0.42.10.in-addr.arpa.", PTR, &["db-0.db.shop.svc.cluster.local."]);
    check("6.1.42.10.in-addr.arpa.", PTR, &["10-42-1-6.db.shop.svc.cluster.local."]);
    check("99.0.43.10.in-addr.arpa.", PTR, none);
    check("8.8.8.8.in-addr.arpa.", PTR, &["elsewhere"]);

    check("10-42-1-9.shop.pod.cluster.local.", A, &["10.42.1.9"]);
    check("10-42-1-900.shop.pod.cluster.local.", A, none);

    check("cluster.local.", A, &["no data"]);
    check("cluster.local.", NS, &["ns.dns.cluster.local."]);
    check("ns.dns.cluster.local.", A, &["10.43.0.10"]);
    check("svc.cluster.local.", A, &["no data"]);
    check("shop.svc.cluster.local.", A, &["no data"]);
    check("other.svc.cluster.local.", A, none);
    check("dns-version.cluster.local.", TXT, &["1.1.0"]);
    check("www.example.com.", A, &["elsewhere"]);
    check("notcluster.local.", A, &["elsewhere"]);
}

/// A server on a free port of localhost; it ends with its tasks.
struct Running {
    address: SocketAddr,
    tasks: Tasks,
}

async fn start(view: View, upstream: Upstream) -> Running {
    let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners = Listeners::bind(localhost).await.expect("a free port");
    let address = listeners.address().expect("bound");
    let (source, feed) = Source::new();
    source.replace(view);
    let tasks = Tasks::new();
    run(listeners, &options(), feed, upstream, watch::channel(Custom::default()).1, &tasks).expect("started");
    Running { address, tasks }
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

async fn by_udp(to: SocketAddr, message: &Message) -> (Message, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.send_to(&message.to_vec().expect("encoded"), to).await.expect("sent");
    let mut buffer = [0; 65_535];
    let answer = tokio::time::timeout(Duration::from_secs(30), socket.recv(&mut buffer));
    let length = answer.await.expect("in time").expect("received");
    (Message::from_vec(&buffer[..length]).expect("decoded"), length)
}

async fn by_tcp(to: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    let bytes = message.to_vec().expect("encoded");
    stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let length = stream.read_u16().await.expect("a length");
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.expect("an answer");
    Message::from_vec(&answer).expect("decoded")
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn answers_are_complete_messages() {
    let server = start(view(CLUSTER), Upstream::none()).await;
    let ask = async |name: &str, kind| by_udp(server.address, &question(name, kind, Some(1232))).await.0;

    let found = ask("Web.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&found), ["10.43.0.20"]);
    assert!(found.metadata.authoritative && found.metadata.recursion_available);
    assert_eq!((found.metadata.id, found.answers[0].ttl), (4711, 5));
    assert_eq!(found.answers[0].name.to_string(), "Web.shop.svc.cluster.local.", "spelled as asked");
    assert!(found.edns.is_some(), "who asks with EDNS gets EDNS");

    let nothing = ask("web.shop.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!((nothing.metadata.response_code, nothing.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(nothing.authorities[0].record_type(), RecordType::SOA);
    let nobody = ask("nobody.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(nobody.authorities[0].name.to_string(), "cluster.local.");

    let alias = ask("alias.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&alias), ["web.shop.svc.cluster.local.", "10.43.0.20"], "followed to its end");
    let circle = ask("circle.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(circle.metadata.response_code, ResponseCode::ServFail);
    let elsewhere = ask("www.example.com.", RecordType::A).await;
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::ServFail, "no upstream");
    server.tasks.drain(Duration::from_secs(30)).await.expect("stopped");
}

#[tokio::test]
async fn answers_too_long_for_udp_are_cut_and_whole_by_tcp() {
    let endpoints: String = (0..100).map(|n| format!("\n- {{ addresses: [10.42.3.{n}] }}")).collect();
    let many = view(&format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: many, namespace: shop }}
spec: {{ clusterIP: None }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: many-1, namespace: shop, labels: {{ kubernetes.io/service-name: many }} }}
addressType: IPv4
ports: []
endpoints: {endpoints}
"
    ));
    let server = start(many, Upstream::none()).await;
    let plain = question("many.shop.svc.cluster.local.", RecordType::A, None);
    let (cut, length) = by_udp(server.address, &plain).await;
    assert!(cut.metadata.truncation && length <= 512, "{length} bytes");
    let (whole, _) =
        by_udp(server.address, &question("many.shop.svc.cluster.local.", RecordType::A, Some(4096))).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
    assert_eq!(by_tcp(server.address, &plain).await.answers.len(), 100);
    let again = by_tcp(server.address, &plain).await;
    assert_ne!(data(&again), data(&whole), "each client gets an order of its own");
    server.tasks.drain(Duration::from_secs(30)).await.expect("stopped");
}

#[tokio::test]
async fn other_names_are_asked_upstream() {
    // Another instance, with a cluster that stands for the world.
    let world = start(
        view(
            "apiVersion: v1
kind: Service
metadata: { name: www, namespace: example }
spec: { clusterIP: 192.0.2.80 }
",
        ),
        Upstream::none(),
    )
    .await;
    let mut server = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut connection = ConnectionConfig::udp();
    connection.port = world.address.port();
    server.connections = vec![connection];
    let upstream = Upstream::servers(ResolverConfig::from_name_servers(vec![server])).expect("upstream");
    let local = Options { cluster_domain: "other.test".into(), ..options() };
    let listeners = Listeners::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a free port");
    let address = listeners.address().expect("bound");
    let (source, feed) = Source::new();
    source.replace(view(
        "apiVersion: v1
kind: Service
metadata: { name: outside, namespace: shop }
spec: { type: ExternalName, externalName: www.example.svc.cluster.local }
",
    ));
    let tasks = Tasks::new();
    let data_of = [("hosts".to_owned(), "192.0.2.9 build.corp".to_owned())].into();
    let (custom, problems) = Custom::parse(&data_of, &Custom::default());
    assert_eq!(problems, [""; 0]);
    run(listeners, &local, feed, upstream, watch::channel(custom).1, &tasks).expect("started");

    let ask = async |name: &str, kind| by_udp(address, &question(name, kind, Some(1232))).await.0;
    let found = ask("www.example.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&found), ["192.0.2.80"]);
    assert!(!found.metadata.authoritative);
    let alias = ask("outside.shop.svc.other.test.", RecordType::A).await;
    assert_eq!(data(&alias), ["www.example.svc.cluster.local.", "192.0.2.80"]);
    // What people have added, and what a Pod's search list comes to, in one round trip.
    assert_eq!(data(&ask("Build.corp.", RecordType::A).await), ["192.0.2.9"]);
    assert!(data(&ask("build.corp.", RecordType::AAAA).await).is_empty());
    let searched = ask("build.corp.shop.svc.other.test.", RecordType::A).await;
    assert_eq!(data(&searched), ["build.corp.", "192.0.2.9"]);
    let searched = ask("www.example.svc.cluster.local.shop.svc.other.test.", RecordType::A).await;
    assert_eq!(data(&searched), ["www.example.svc.cluster.local.", "192.0.2.80"]);
    let missing = ask("no.such.shop.svc.other.test.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let nobody = ask("nobody.example.svc.cluster.local.", RecordType::A).await;
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(nobody.authorities.len(), 1, "with the SOA that says how long to remember");
    let nothing = ask("www.example.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!((nothing.metadata.response_code, nothing.answers.len()), (ResponseCode::NoError, 0));
    tasks.drain(Duration::from_secs(30)).await.expect("stopped");
    world.tasks.drain(Duration::from_secs(30)).await.expect("stopped");
}

#[tokio::test]
async fn what_is_no_question_is_refused_politely() {
    let server = start(view(CLUSTER), Upstream::none()).await;
    let mut update = question("cluster.local.", RecordType::SOA, None);
    update.metadata.op_code = OpCode::Notify;
    let (answer, _) = by_udp(server.address, &update).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    let mut newer = question("cluster.local.", RecordType::SOA, Some(1232));
    newer.edns.as_mut().expect("EDNS").set_version(3);
    let (answer, _) = by_udp(server.address, &newer).await;
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS shares its number with BADSIG");
    server.tasks.drain(Duration::from_secs(30)).await.expect("stopped");
}
