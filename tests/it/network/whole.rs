//! The node's network as the agent starts it, against an API that a test plays: from the first lists to a load balancer
//! that answers the world, peers that come and go, and Pods that resolve names.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use hickory_resolver::proto::op::{Message, MessageType, OpCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use minik::config::NodeConfig;
use minik::edge::loadbalancer;
use minik::roles::network::{Handles, Local};
use minik::rt::Tasks;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::namespaces::{Place, available, on_node, sh};

const NODE: &str = "192.168.77.1";
const OUTSIDE: &str = "192.168.77.2";

/// One collection: what a list says, and where changes go.
#[derive(Clone)]
struct Collection {
    items: Arc<Mutex<Vec<Value>>>,
    changes: broadcast::Sender<Bytes>,
    kind: &'static str,
    api: &'static str,
}

impl Collection {
    fn new(api: &'static str, kind: &'static str, items: Vec<Value>) -> Self {
        Self { items: Arc::new(Mutex::new(items)), changes: broadcast::channel(64).0, kind, api }
    }

    fn change(&self, how: &str, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = "2".into();
        let line = format!("{}\n", json!({ "type": how, "object": object }));
        self.changes.send(Bytes::from(line)).expect("somebody watches");
    }
}

async fn serve(State(collection): State<Collection>, RawQuery(query): RawQuery) -> Response {
    if query.is_some_and(|query| query.contains("watch=")) {
        let changes = BroadcastStream::new(collection.changes.subscribe());
        return Body::from_stream(changes.map(|line| line.map_err(std::io::Error::other))).into_response();
    }
    let items = collection.items.lock().expect("items").clone();
    let list = json!({
        "apiVersion": collection.api, "kind": format!("{}List", collection.kind),
        "metadata": { "resourceVersion": "1" }, "items": items,
    });
    list.to_string().into_response()
}

/// The API that the test plays.
struct Api {
    services: Collection,
    slices: Collection,
    nodes: Collection,
}

impl Api {
    fn new() -> Self {
        let kubernetes = json!({
            "metadata": { "name": "kubernetes", "namespace": "default" },
            "spec": { "clusterIP": "10.43.0.1", "ports": [{ "name": "https", "port": 443 }] },
        });
        let slice =
            slice("kubernetes", &json!({ "name": "https", "port": 6443, "protocol": "TCP" }), &[NODE]);
        Self {
            services: Collection::new("v1", "Service", vec![kubernetes]),
            slices: Collection::new("discovery.k8s.io/v1", "EndpointSlice", vec![slice]),
            nodes: Collection::new("v1", "Node", vec![node("here", NODE, "10.42.0.0/24")]),
        }
    }

    fn client(&self) -> kube::Client {
        let router = Router::new()
            .route("/api/v1/services", get(serve).with_state(self.services.clone()))
            .route("/apis/discovery.k8s.io/v1/endpointslices", get(serve).with_state(self.slices.clone()))
            .route("/api/v1/nodes", get(serve).with_state(self.nodes.clone()));
        kube::Client::new(router, "default")
    }
}

fn slice(service: &str, port: &Value, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|ip| json!({ "addresses": [ip], "nodeName": "here" })).collect();
    json!({
        "metadata": {
            "name": service, "namespace": "default", "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "ports": [port], "endpoints": endpoints,
    })
}

fn node(name: &str, ip: &str, cidr: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "podCIDR": cidr },
        "status": { "addresses": [{ "type": "InternalIP", "address": ip }] },
    })
}

fn config() -> NodeConfig {
    let ip = |text: &str| text.parse().expect("address");
    NodeConfig {
        node: "here".into(),
        node_ip: ip(NODE),
        server_ip: ip(NODE),
        lb_first: ip("192.168.77.128"),
        lb_last: ip("192.168.77.250"),
        ..NodeConfig::example()
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// The addresses of a name, as a Pod's resolver asks for them.
fn resolve(place: &Place, name: &str) -> Vec<String> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(name).expect("a name");
    message.add_query(hickory_resolver::proto::op::Query::query(name, RecordType::A));
    let bytes = message.to_vec().expect("encoded");
    let answer = place.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        socket.send_to(&bytes, "10.43.0.10:53").expect("sent");
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).expect("an answer");
        buffer[..length].to_vec()
    });
    let answer = Message::from_vec(&answer).expect("decoded");
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn from_first_lists_to_a_load_balancer() {
    if !available() {
        return;
    }
    on_node(|| {
        let pod = Place::pod("10.42.0.11");
        let outside = Place::outside(OUTSIDE, NODE);
        pod.serve(8080);
        let api_server = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 6443))).expect("the API's port");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime in this namespace");
        let (api, tasks) = (Api::new(), Tasks::new());
        let start = Instant::now();
        let handles = runtime.block_on(async {
            let local = Local::prepare(&config(), &tasks).await.expect("prepared");
            local.run(api.client(), &tasks).expect("started")
        });
        let Handles { mut proven, announced, netlink, .. } = handles;
        let proof =
            async { tokio::time::timeout(Duration::from_secs(20), proven.wait_for(|p| *p)).await.map(drop) };
        runtime.block_on(proof).expect("proven in time");
        eprintln!("proven after {:?}", start.elapsed());
        drop(api_server);

        let guard = runtime.enter();
        let range = config().lb_first..=config().lb_last;
        let options = loadbalancer::Options { interface: "eth0".into(), range, announced };
        loadbalancer::run(options, netlink, &tasks);
        drop(guard);

        let mut web = json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "type": "LoadBalancer", "clusterIP": "10.43.0.20", "ports": [{ "port": 80, "nodePort": 30080 }] },
        });
        let start = Instant::now();
        api.services.change("ADDED", &web);
        api.slices.change("ADDED", &slice("web", &json!({ "name": "", "port": 8080 }), &["10.42.0.11"]));
        web["metadata"]["annotations"] = json!({ "minik.dev/announced-by": "here" });
        web["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.168.77.200" }] } });
        api.services.change("MODIFIED", &web);
        eventually("the load balancer answers", || outside.ask("192.168.77.200:80").is_ok());
        eprintln!("exposed to first answer in {:?}", start.elapsed());
        assert_eq!(resolve(&pod, "web.default.svc.cluster.local."), ["10.43.0.20"]);
        assert_eq!(resolve(&pod, "kubernetes.default.svc.cluster.local."), ["10.43.0.1"]);

        let peer = node("peer", OUTSIDE, "10.42.1.0/24");
        api.nodes.change("ADDED", &peer);
        let route = || sh("ip route").contains("10.42.1.0/24 via 192.168.77.2 dev eth0");
        eventually("a route to the peer", route);
        api.nodes.change("DELETED", &peer);
        eventually("the route is gone", || !route());

        // Another node answers from now on; and in the end nobody does.
        web["metadata"]["annotations"] = json!({ "minik.dev/announced-by": "there" });
        api.services.change("MODIFIED", &web);
        eventually("the address is given up", || !sh("ip addr show dev eth0").contains("192.168.77.200"));
        api.services.change("DELETED", &web);
        eventually("the name is gone", || resolve(&pod, "web.default.svc.cluster.local.").is_empty());
        runtime.block_on(tasks.drain(Duration::from_secs(30))).expect("all tasks end");
    });
}
