//! The Ingress proxy on real sockets: other people's clients on one side, servers on the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::any;
use minik::edge::ingress::{Certificates, Forwarder, PortRef, Resolve, Shared, Table, serve};
use minik::rt::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy on two ports of this machine, with one echoing Service `web` and one for WebSockets, `socket`.
struct Stage {
    http: SocketAddr,
    https: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Tells what it was asked: method, path and some headers; the body comes back.
async fn echo(request: Request) -> axum::response::Response {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned()
    };
    let told = format!(
        "{:?} {} host={} proto={}",
        request.version(),
        request.uri().path_and_query().map_or("", |path| path.as_str()),
        header("host"),
        header("x-forwarded-proto"),
    );
    axum::response::Response::builder()
        .header("x-told", told)
        .body(Body::new(request.into_body()))
        .expect("a response")
}

/// Answers every upgrade, and gives bytes back in capitals.
async fn shouting(listener: TcpListener) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a byte"));
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        client.write_all(answer).await.expect("written");
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = client.read(&mut buffer).await {
            client.write_all(buffer[..length].to_ascii_uppercase().as_slice()).await.expect("written");
        }
    }
}

impl Stage {
    async fn new(ingress: Value) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tasks = Tasks::new();
        let ((web, web_at), (socket, socket_at), (gone, gone_at)) =
            (listener().await, listener().await, listener().await);
        drop(gone);
        let app = Router::new().fallback(any(echo));
        tasks.spawn_until_stop(async move { axum::serve(web, app).await });
        tasks.spawn_until_stop(shouting(socket));
        let resolve: Resolve = Arc::new(move |backend| match (backend.service.as_str(), &backend.port) {
            // One of its two endpoints takes no connection.
            ("web", PortRef::Number(80)) => vec![gone_at, web_at],
            ("socket", PortRef::Name(_)) => vec![socket_at],
            _ => Vec::new(),
        });
        let certificates = Certificates::new().expect("a stand-in");
        let shared = Arc::new(Shared::new(Forwarder::new(resolve, tasks.clone()), certificates));
        shared.replace(table(ingress));
        let ((plain, http), (tls, https)) = (listener().await, listener().await);
        for (listener, tls) in [(plain, false), (tls, true)] {
            let (shared, own) = (shared.clone(), tasks.clone());
            tasks.spawn_until_stop(async move { serve(listener, tls, shared, &own).await });
        }
        Self { http, https, shared, tasks }
    }

    /// A client that finds every `.example` host here.
    fn client(&self) -> reqwest::Client {
        let mut builder = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        for host in ["a.example", "b.example"] {
            builder = builder.resolve(host, self.http);
        }
        builder.build().expect("a client")
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.http.port())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

fn table(ingress: Value) -> Table {
    let class = json!({ "metadata": { "name": "minik" }, "spec": { "controller": "minik.dev/ingress" } });
    let class = Arc::new(serde_json::from_value(class).expect("a class"));
    Table::of(&[Arc::new(serde_json::from_value(ingress).expect("an Ingress"))], &[class])
}

fn ingress(annotations: Value) -> Value {
    let path = |path: &str, service: &str, port: Value| json!({ "path": path, "pathType": "Prefix", "backend": { "service": { "name": service, "port": port } } });
    json!({
        "metadata": { "name": "i", "namespace": "shop", "annotations": annotations },
        "spec": { "ingressClassName": "minik", "rules": [{ "host": "a.example", "http": { "paths": [
            path("/", "web", json!({ "number": 80 })),
            path("/socket", "socket", json!({ "name": "ws" })),
            path("/nobody", "nobody", json!({ "number": 80 })),
        ] } }] },
    })
}

fn told(response: &reqwest::Response) -> String {
    response.headers()["x-told"].to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_endpoints_and_bodies_stream_both_ways() {
    let stage = Stage::new(ingress(json!({}))).await;
    let client = stage.client();
    // Twice: each endpoint is tried first once, and one of them is gone.
    for _ in 0..2 {
        let body = vec![7u8; 3 << 20];
        let answer =
            client.post(stage.url("a.example", "/x?y=1")).body(body.clone()).send().await.expect("an answer");
        let host = format!("a.example:{}", stage.http.port());
        assert_eq!(told(&answer), format!("HTTP/1.1 /x?y=1 host={host} proto=http"));
        assert_eq!(answer.bytes().await.expect("a body"), body);
    }
    let status = async |host: &str, path: &str| {
        client.get(stage.url(host, path)).send().await.expect("an answer").status()
    };
    assert_eq!(status("b.example", "/").await, 404);
    assert_eq!(status("a.example", "/nobody").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_http2_are_spoken_and_grpc_goes_on_as_http2() {
    let stage = Stage::new(ingress(json!({}))).await;
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .resolve("a.example", stage.https)
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("https://a.example:{}/x", stage.https.port());
    let answer = client.get(&url).send().await.expect("an answer");
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert!(
        told(&answer).ends_with("proto=https") && told(&answer).starts_with("HTTP/1.1"),
        "{}",
        told(&answer)
    );
    let grpc = client
        .post(&url)
        .header("content-type", "application/grpc")
        .body("x")
        .send()
        .await
        .expect("an answer");
    assert!(told(&grpc).starts_with("HTTP/2.0"), "{}", told(&grpc));
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_outlive_a_change_of_the_table() {
    let stage = Stage::new(ingress(json!({}))).await;
    let mut client = TcpStream::connect(stage.http).await.expect("connected");
    let ask = "GET /socket HTTP/1.1\r\nhost: a.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(ask.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stage.shared.replace(Table::default());
    client.write_all(b"hello").await.expect("written");
    let mut said = [0; 5];
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut said)).await;
    read.expect("in time").expect("read");
    assert_eq!(&said, b"HELLO");
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_redirect_rewrite_and_limit() {
    let nginx = |name: &str, value: &str| {
        let mut all = serde_json::Map::new();
        all.insert(format!("nginx.ingress.kubernetes.io/{name}"), value.into());
        ingress(Value::Object(all))
    };
    let stage = Stage::new(nginx("proxy-body-size", "1k")).await;
    let client = stage.client();
    let post = async |size: usize| {
        let body = reqwest::Body::from(vec![0; size]);
        client.post(stage.url("a.example", "/")).body(body).send().await.expect("an answer").status()
    };
    assert_eq!((post(1024).await.as_u16(), post(1025).await.as_u16()), (200, 413));
    let location = async |stage: &Stage| {
        let answer = client.get(stage.url("a.example", "/x?y")).send().await.expect("an answer");
        let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("-").to_owned();
        (answer.status().as_u16(), to)
    };
    stage.shared.replace(table(nginx("force-ssl-redirect", "true")));
    assert_eq!(location(&stage).await, (308, "https://a.example/x?y".into()));
    stage.shared.replace(table(nginx("temporal-redirect", "https://b.example/")));
    assert_eq!(location(&stage).await, (302, "https://b.example/".into()));
    stage.shared.replace(table(nginx("rewrite-target", "/new/$1")));
    let answer = client.get(stage.url("a.example", "/x?y")).send().await.expect("an answer");
    assert!(told(&answer).contains(" /new/x?y "), "{}", told(&answer));
}
