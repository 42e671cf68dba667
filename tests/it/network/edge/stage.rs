//! A proxy on two ports of this machine, and Services behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::any;
use minik::edge::proxy::{Forwarder, Found, Names, Port, PortRef, ServicePort, Services, serve};
use minik::rt::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What Services' ports find, by `name:port`.
pub(super) type Known = Arc<Mutex<BTreeMap<String, Found>>>;

pub(super) struct Stage {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub services: Known,
    changed: watch::Sender<u64>,
    pub tasks: Tasks,
    plain: watch::Sender<Arc<Port>>,
    encrypted: watch::Sender<Arc<Port>>,
}

pub(super) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Tells what it was asked: method, path and some headers; the body comes back.
async fn echo(at: SocketAddr, request: Request) -> axum::response::Response {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned()
    };
    let told = format!(
        "{:?} {} host={} proto={}",
        request.version(),
        request.uri().path_and_query().map_or("", |path| path.as_str()),
        request.uri().host().map_or_else(|| header("host"), str::to_owned),
        header("x-forwarded-proto"),
    );
    let mut seen: Vec<String> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-"))
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or_default()))
        .collect();
    seen.sort_unstable();
    axum::response::Response::builder()
        .header("x-told", told)
        .header("x-seen", seen.join(" "))
        .header("x-at", at.to_string())
        .body(Body::new(request.into_body()))
        .expect("a response")
}

/// A server that tells what it was asked.
pub(super) async fn echoing(tasks: &Tasks) -> SocketAddr {
    let (listener, at) = listener().await;
    let app = Router::new().fallback(any(move |request: Request| echo(at, request)));
    tasks.spawn_until_stop(async move { axum::serve(listener, app).await });
    at
}

/// Answers every upgrade, and gives bytes back in capitals.
pub(super) async fn shouting(listener: TcpListener) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a byte"));
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        client.write_all(answer).await.expect("written");
        shout(&mut client).await;
    }
}

/// Gives bytes back in capitals until the client ends.
pub(super) async fn shout(client: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        client.write_all(buffer[..length].to_ascii_uppercase().as_slice()).await.expect("written");
    }
}

impl Stage {
    pub(super) async fn new(plain: Arc<Port>, encrypted: Arc<Port>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tasks = Tasks::new();
        let services = Known::default();
        let known = services.clone();
        let (changed, changes) = watch::channel(0);
        let find = move |wanted: &ServicePort| {
            let port = match &wanted.port {
                PortRef::Number(number) => number.to_string(),
                PortRef::Name(name) => name.clone(),
            };
            known.lock().expect("not poisoned").get(&format!("{}:{port}", wanted.service)).cloned()
        };
        let services_found = Services::new(find, changes);
        let forwarder = Arc::new(Forwarder::new(services_found, Names::none(), tasks.clone()));
        let ((one, http), (other, https)) = (listener().await, listener().await);
        let serving = |listener, port| {
            let (sender, port) = watch::channel(port);
            let (forwarder, own) = (forwarder.clone(), tasks.clone());
            tasks.spawn_until_stop(async move { serve(listener, port, forwarder, &own).await });
            sender
        };
        let (plain, encrypted) = (serving(one, plain), serving(other, encrypted));
        Self { http, https, services, changed, tasks, plain, encrypted }
    }

    /// What is found behind `name:port` from now on.
    pub(super) fn service(&self, port: &str, found: Found) {
        self.services.lock().expect("not poisoned").insert(port.to_owned(), found);
        self.changed.send_modify(|at| *at += 1);
    }

    /// The same, where only its endpoints matter.
    pub(super) fn endpoints(&self, port: &str, endpoints: &[SocketAddr]) {
        self.service(port, Found { endpoints: endpoints.to_vec(), ..Found::default() });
    }

    pub(super) fn replace(&self, plain: Arc<Port>, encrypted: Arc<Port>) {
        self.plain.send_replace(plain);
        self.encrypted.send_replace(encrypted);
    }

    /// A client that finds every `.example` host here.
    pub(super) fn client(&self) -> reqwest::Client {
        let mut builder = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        for host in ["a.example", "b.example"] {
            builder = builder.resolve(host, self.http);
        }
        builder.build().expect("a client")
    }

    pub(super) fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.http.port())
    }

    /// Connects, and asks for a WebSocket at this path of a host.
    pub(super) async fn web_socket(&self, host: &str, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.http).await.expect("connected");
        let ask = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        client.write_all(ask.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a byte"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        client
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

/// What the echoing server was told.
pub(super) fn told(response: &reqwest::Response) -> String {
    header(response, "x-told")
}

/// A header of an answer; empty where there is none.
pub(super) fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
