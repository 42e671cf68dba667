//! Ingresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use minik::client::typed::SecretKey;
use minik::edge::ingress::{Ports, ports};
use minik::edge::proxy::{Certificates, Found, Protocol, stand_in};
use minik::edge::secrets::{Known, Look};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::stage::{Stage, echoing, header, listener, shouting, told};

/// An echoing Service `web`, one of whose endpoints takes no connection, and one for WebSockets, `socket`.
async fn stage(ingress: Value) -> Stage {
    let ports = served(ingress, BTreeMap::new());
    let stage = Stage::new(ports.http, ports.https).await;
    let ((socket, socket_at), (gone, gone_at)) = (listener().await, listener().await);
    drop(gone);
    stage.tasks.spawn_until_stop(shouting(socket));
    stage.endpoints("web:80", &[gone_at, echoing(&stage.tasks).await]);
    stage.endpoints("socket:ws", &[socket_at]);
    stage.endpoints("nobody:80", &[]);
    stage
}

fn served(ingress: Value, secrets: BTreeMap<SecretKey, Arc<Known>>) -> Ports {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let class = json!({ "metadata": { "name": "minik" }, "spec": { "controller": "minik.dev/ingress" } });
    let class = Arc::new(serde_json::from_value(class).expect("a class"));
    let ingress = Arc::new(serde_json::from_value(ingress).expect("an Ingress"));
    let certificates =
        Certificates { stand_in: Some(stand_in().expect("a stand-in")), ..Certificates::default() };
    ports(&[ingress], &[class], &mut Look::at(secrets), certificates)
}

fn replace(stage: &Stage, ingress: Value, secrets: BTreeMap<SecretKey, Arc<Known>>) {
    let ports = served(ingress, secrets);
    stage.replace(ports.http, ports.https);
}

fn ingress(annotations: Value) -> Value {
    let path = |path: &str, service: &str, port: Value| json!({ "path": path, "pathType": "Prefix", "backend": { "service": { "name": service, "port": port } } });
    json!({
        "metadata": { "name": "i", "namespace": "shop", "annotations": annotations },
        "spec": { "ingressClassName": "minik", "tls": [{ "hosts": ["a.example"], "secretName": "cert" }],
            "rules": [{ "host": "a.example", "http": { "paths": [
                path("/", "web", json!({ "number": 80 })),
                path("/socket", "socket", json!({ "name": "ws" })),
                path("/nobody", "nobody", json!({ "number": 80 })),
                path("/missing", "missing", json!({ "number": 80 })),
        ] } }] },
    })
}

fn nginx(pairs: &[(&str, &str)]) -> Value {
    let all = pairs.iter().map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), json!(value)));
    ingress(Value::Object(all.collect()))
}

fn secret(name: &str, data: &[(&str, &str)]) -> BTreeMap<SecretKey, Arc<Known>> {
    let data: BTreeMap<_, _> =
        data.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let data = data.into_iter().map(|(name, text)| (name, k8s_openapi::ByteString(text.into_bytes())));
    let secret = k8s_openapi::api::core::v1::Secret { data: Some(data.collect()), ..Default::default() };
    BTreeMap::from([(SecretKey::new("shop", name), Known::of(secret))])
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_endpoints_and_bodies_stream_both_ways() {
    let stage = stage(ingress(json!({}))).await;
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
    assert_eq!(status("a.example", "/missing").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_http2_are_spoken_and_grpc_goes_on_as_http2() {
    let stage = stage(ingress(json!({}))).await;
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
    // Twice: the second one finds the connection open.
    for _ in 0..2 {
        let grpc = client
            .post(&url)
            .header("content-type", "application/grpc")
            .body("x")
            .send()
            .await
            .expect("an answer");
        assert!(told(&grpc).starts_with("HTTP/2.0"), "{}", told(&grpc));
        assert!(told(&grpc).contains("host=a.example"), "{}", told(&grpc));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_outlive_a_change_of_the_table() {
    let stage = stage(ingress(json!({}))).await;
    let mut client = stage.web_socket("a.example", "/socket").await;
    stage.replace(Arc::default(), Arc::default());
    client.write_all(b"hello").await.expect("written");
    let mut said = [0; 5];
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut said)).await;
    read.expect("in time").expect("read");
    assert_eq!(&said, b"HELLO");
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_redirect_rewrite_and_limit() {
    let stage = stage(nginx(&[("proxy-body-size", "1k")])).await;
    let client = stage.client();
    let post = async |size: usize| {
        let body = reqwest::Body::from(vec![0; size]);
        client.post(stage.url("a.example", "/")).body(body).send().await.expect("an answer").status()
    };
    assert_eq!((post(1024).await.as_u16(), post(1025).await.as_u16()), (200, 413));
    let get = async |path: &str| client.get(stage.url("a.example", path)).send().await.expect("an answer");
    let location = async |path: &str| {
        let answer = get(path).await;
        (answer.status().as_u16(), header(&answer, "location"))
    };
    let none = BTreeMap::new;
    replace(&stage, nginx(&[("force-ssl-redirect", "true")]), none());
    assert_eq!(location("/x?y").await, (308, "https://a.example/x?y".into()));
    replace(&stage, nginx(&[("temporal-redirect", "https://b.example/")]), none());
    assert_eq!(location("/x").await, (302, "https://b.example/".into()));
    replace(&stage, nginx(&[("app-root", "/start")]), none());
    assert_eq!(location("/").await, (302, "/start".into()));
    replace(
        &stage,
        nginx(&[("rewrite-target", "/new"), ("x-forwarded-prefix", "/x"), ("upstream-vhost", "inside")]),
        none(),
    );
    let answer = get("/x?y").await;
    assert!(told(&answer).contains(" /new?y host=inside "), "{}", told(&answer));
    assert!(header(&answer, "x-seen").contains("x-forwarded-prefix=/x "), "{}", header(&answer, "x-seen"));
    replace(&stage, nginx(&[("denylist-source-range", "127.0.0.0/8")]), none());
    assert_eq!(get("/").await.status(), 403);
    replace(&stage, nginx(&[("auth-url", "http://x/")]), none());
    assert_eq!(get("/").await.status(), 503, "nothing is open that should be protected");
    replace(&stage, nginx(&[("enable-cors", "true"), ("cors-allow-origin", "https://shop.example")]), none());
    let ask = client.request(reqwest::Method::OPTIONS, stage.url("a.example", "/"));
    let ask = ask.header("origin", "https://shop.example").header("access-control-request-method", "PUT");
    let answer = ask.send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "access-control-allow-origin")),
        (204, "https://shop.example".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_let_in_by_password() {
    let basic = || nginx(&[("auth-type", "basic"), ("auth-secret", "people"), ("auth-realm", "the shop")]);
    let stage = stage(basic()).await;
    let client = stage.client();
    let get = || client.get(stage.url("a.example", "/"));
    assert_eq!(get().send().await.expect("an answer").status(), 503, "nobody is let in without the Secret");
    replace(&stage, basic(), secret("people", &[("auth", "ben:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")]));
    let answer = get().send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "www-authenticate")),
        (401, "Basic realm=\"the shop\"".into())
    );
    for (password, expect) in [("wrong", 401), ("password", 200)] {
        let answer = get().basic_auth("ben", Some(password)).send().await.expect("an answer");
        assert_eq!(answer.status(), expect, "{password}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_keeps_a_client_at_its_endpoint() {
    let stage = stage(nginx(&[("affinity", "cookie"), ("session-cookie-name", "route")])).await;
    let all = [echoing(&stage.tasks).await, echoing(&stage.tasks).await, echoing(&stage.tasks).await];
    stage.endpoints("web:80", &all);
    let client = stage.client();
    let get = async |cookie: &str| {
        let answer = client.get(stage.url("a.example", "/")).header("cookie", cookie).send().await;
        let answer = answer.expect("an answer");
        (header(&answer, "x-at"), header(&answer, "set-cookie"))
    };
    let (at, cookie) = get("a=b").await;
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    assert!(cookie.starts_with("route="), "{cookie}");
    for _ in 0..4 {
        assert_eq!(get(&cookie).await, (at.clone(), String::new()));
    }
    let others: Vec<SocketAddr> = all.into_iter().filter(|other| other.to_string() != at).collect();
    stage.endpoints("web:80", &others);
    let (elsewhere, new) = get(&cookie).await;
    assert!(elsewhere != at && new.starts_with("route=") && !new.starts_with(&cookie), "{elsewhere} {new}");
}

/// Speaks TLS, and HTTP/1.1 or HTTP/2 in it.
async fn encrypted(listener: TcpListener, alpn: &'static [u8]) {
    let certified = stand_in().expect("a certificate");
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let told = format!("{:?} sni={name}", request.version());
            async move { hyper::Response::builder().header("x-told", told).body(String::new()) }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        // The client ends it.
        let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_may_want_tls_or_http2() {
    let stage = stage(nginx(&[("backend-protocol", "HTTPS")])).await;
    let ((plain, at), (h2, h2_at)) = (listener().await, listener().await);
    stage.tasks.spawn_until_stop(encrypted(plain, b"http/1.1"));
    stage.tasks.spawn_until_stop(encrypted(h2, b"h2"));
    stage.endpoints("web:80", &[at]);
    let client = stage.client();
    let get = async || told(&client.get(stage.url("a.example", "/")).send().await.expect("an answer"));
    assert_eq!(get().await, "HTTP/1.1 sni=a.example");
    replace(&stage, nginx(&[("backend-protocol", "GRPCS")]), BTreeMap::new());
    stage.endpoints("web:80", &[h2_at]);
    assert_eq!(get().await, "HTTP/2.0 sni=a.example");
    // What the Service's port says counts where the Ingress says nothing; names outside are asked for by their name.
    replace(&stage, ingress(json!({})), BTreeMap::new());
    let name = Some(("127.0.0.1".to_owned(), at.port()));
    stage.service("web:80", Found { name, protocol: Protocol::of_port("HTTPS"), ..Found::default() });
    assert_eq!(get().await, "HTTP/1.1 sni=");
    let h2c = echoing(&stage.tasks).await;
    stage.service(
        "web:80",
        Found { endpoints: vec![h2c], protocol: Protocol::of_port("kubernetes.io/h2c"), ..Found::default() },
    );
    assert!(get().await.starts_with("HTTP/2.0 / host=a.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_connections_go_on() {
    let stage = stage(ingress(json!({}))).await;
    let made = || rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("a certificate");
    let put = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        replace(&stage, ingress(json!({})), secret("cert", &[("tls.crt", &cert), ("tls.key", &key)]));
    };
    let client = |trusted: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let root = reqwest::Certificate::from_pem(trusted.cert.pem().as_bytes()).expect("a certificate");
        let builder = reqwest::Client::builder().tls_certs_only([root]).resolve("a.example", stage.https);
        builder.no_proxy().build().expect("a client")
    };
    let url = format!("https://a.example:{}/", stage.https.port());
    let (old, new) = (made(), made());
    put(&old);
    let (before, after) = (client(&old), client(&new));
    assert_eq!(before.get(&url).send().await.expect("the old one is shown").status(), 200);
    put(&new);
    assert_eq!(before.get(&url).send().await.expect("the connection goes on").status(), 200);
    assert_eq!(after.get(&url).send().await.expect("the new one is shown").status(), 200);
    assert!(client(&old).get(&url).send().await.is_err(), "the old one is not shown again");
}

/// Takes connections and ends each when it has read the request.
async fn deaf(listener: TcpListener) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut buffer = [0; 1024];
        let _ = client.read(&mut buffer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_done_twice_is_tried_elsewhere() {
    let stage = stage(ingress(json!({}))).await;
    let (deaf_listener, deaf_at) = listener().await;
    stage.tasks.spawn_until_stop(deaf(deaf_listener));
    stage.endpoints("web:80", &[deaf_at, echoing(&stage.tasks).await]);
    let client = stage.client();
    for _ in 0..4 {
        assert_eq!(client.get(stage.url("a.example", "/")).send().await.expect("an answer").status(), 200);
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let post = client.post(stage.url("a.example", "/")).body("once").send().await.expect("an answer");
        statuses.push(post.status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502], "a POST is not sent twice");
}

/// All that is known has gone before what comes in its place is known: the request waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_the_endpoints_of_a_roll() {
    let stage = stage(ingress(json!({}))).await;
    let (deaf_listener, deaf_at) = listener().await;
    let (gone_listener, gone_at) = listener().await;
    drop(gone_listener);
    let (asked, mut seen) = tokio::sync::mpsc::unbounded_channel();
    stage.tasks.spawn_until_stop(async move {
        while let Ok((client, _)) = deaf_listener.accept().await {
            drop(client);
            let _ = asked.send(());
        }
    });
    stage.endpoints("web:80", &[deaf_at, gone_at]);
    let asking = stage.tasks.spawn(stage.client().get(stage.url("a.example", "/")).send());
    seen.recv().await.expect("the old one is asked");
    stage.endpoints("web:80", &[]);
    stage.endpoints("web:80", &[deaf_at, echoing(&stage.tasks).await]);
    assert_eq!(asking.await.expect("no panic").expect("an answer").status(), 200);
    stage.endpoints("web:80", &[gone_at]);
    let refused = stage.client().get(stage.url("a.example", "/")).send().await.expect("an answer");
    assert_eq!(refused.status(), 502, "nothing came");
}

/// Endpoints come and go under load: not one request fails.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_endpoints_roll() {
    let stage = stage(ingress(json!({}))).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let first = minik::rt::Tasks::new();
    stage.endpoints("web:80", &[echoing(&first).await]);
    let load = (0..8).map(|_| {
        let (client, url, stop, done) =
            (stage.client(), stage.url("a.example", "/"), stop.clone(), done.clone());
        stage.tasks.spawn(async move {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match client.get(&url).send().await {
                    Ok(answer) if answer.status() == 200 => {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    other => failed.push(format!("{other:?}")),
                }
            }
            failed
        })
    });
    let load: Vec<_> = load.collect();
    let mut old = first;
    for _ in 0..20 {
        let next = minik::rt::Tasks::new();
        let before = done.load(Ordering::Relaxed);
        // The new one is ready before the old one goes, which is cut off in the middle of what it does.
        stage.endpoints("web:80", &[echoing(&next).await]);
        old.stop().cancel();
        old = next;
        let more = async {
            while done.load(Ordering::Relaxed) < before + 50 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), more).await.expect("requests are answered");
    }
    stop.store(true, Ordering::Relaxed);
    for load in load {
        assert_eq!(load.await.expect("no panic"), Vec::<String>::new());
    }
}
