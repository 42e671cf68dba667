//! Gateways: what upstream's conformance cases ask of a proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use minik::client::gateway::{Objects, Resolved};
use minik::client::informer::{Cache, Key};
use minik::client::typed::SecretKey;
use minik::edge::gateway::{NodeWorld, ports};
use minik::edge::proxy::Port;
use minik::edge::secrets::{Known, Look};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::stage::{Stage, echoing, header, listener, shout, told};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("readable"))
}

fn secrets(names: &[&str]) -> BTreeMap<SecretKey, Arc<Known>> {
    let one = |name: &&str| {
        let made = rcgen::generate_simple_self_signed(vec![(*name).to_owned()]).expect("a certificate");
        let part = |text: String| k8s_openapi::ByteString(text.into_bytes());
        let data = [
            ("tls.crt".to_owned(), part(made.cert.pem())),
            ("tls.key".to_owned(), part(made.signing_key.serialize_pem())),
        ];
        let secret = k8s_openapi::api::core::v1::Secret { data: Some(data.into()), ..Default::default() };
        (SecretKey::new("infra", name), Known::of(secret))
    };
    names.iter().map(one).collect()
}

/// The ports of one Gateway with these listeners and routes, each a kind and a spec.
pub(super) fn served(listeners: Value, routes: &[(&str, Value)]) -> BTreeMap<u16, Arc<Port>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut objects = Objects {
        classes: vec![read(
            json!({ "metadata": { "name": "minik" }, "spec": { "controllerName": "minik.dev/gateway" } }),
        )],
        gateways: vec![read(json!({ "metadata": { "name": "gw", "namespace": "infra" },
            "spec": { "gatewayClassName": "minik", "listeners": listeners } }))],
        ..Objects::default()
    };
    for (at, (kind, spec)) in routes.iter().enumerate() {
        let mut spec = spec.clone();
        if spec["parentRefs"].is_null() {
            spec["parentRefs"] = json!([{ "name": "gw" }]);
        }
        let object = json!({ "metadata": { "name": format!("r{at}"), "namespace": "infra" }, "spec": spec });
        match *kind {
            "HTTPRoute" => objects.http.push(read(object)),
            "GRPCRoute" => objects.grpc.push(read(object)),
            _ => objects.tls.push(read(object)),
        }
    }
    let mut look = Look::at(secrets(&["a.example", "b.example"]));
    let namespaces = Cache::default();
    let world = NodeWorld::new(&namespaces, &mut look);
    let resolved = Resolved::of(&objects, &world);
    ports(&resolved, &resolved.gateways[&Key::new("infra", "gw")], &world)
}

async fn stage(routes: &[(&str, Value)]) -> Stage {
    let listeners = json!([
        { "name": "http", "port": 80, "protocol": "HTTP" },
        { "name": "any", "port": 443, "protocol": "HTTPS", "tls": { "certificateRefs": [{ "name": "a.example" }] } },
        { "name": "b", "port": 443, "protocol": "HTTPS", "hostname": "b.example", "tls": { "certificateRefs": [{ "name": "b.example" }] } },
    ]);
    let mut ports = served(listeners, routes);
    let (plain, encrypted) = (ports.remove(&80).expect("port 80"), ports.remove(&443).expect("port 443"));
    let stage = Stage::new(plain, encrypted).await;
    for service in ["one", "two"] {
        let at = echoing(&stage.tasks).await;
        stage.endpoints(&format!("{service}:80"), &[at]);
    }
    stage
}

fn to(service: &str) -> Value {
    json!({ "name": service, "port": 80 })
}

/// Where a Service's answers come from.
fn at(stage: &Stage, service: &str) -> String {
    stage.services.lock().expect("not poisoned")[&format!("{service}:80")].endpoints[0].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_matched_by_path_header_method_and_parameter() {
    let matches = json!([
        { "path": { "type": "Exact", "value": "/exact" } },
        { "headers": [{ "name": "version", "value": "two" }] },
        { "method": "DELETE" },
        { "queryParams": [{ "name": "animal", "value": "whale" }] },
        { "path": { "type": "RegularExpression", "value": "/v[0-9]+/.*" } },
    ]);
    let rules = json!([{ "backendRefs": [to("one")] }, { "matches": matches, "backendRefs": [to("two")] }]);
    let stage = stage(&[("HTTPRoute", json!({ "rules": rules }))]).await;
    let client = stage.client();
    let check = async |request: reqwest::RequestBuilder, expect: &str| {
        let answer = request.send().await.expect("an answer");
        assert_eq!(header(&answer, "x-at"), at(&stage, expect), "{}", told(&answer));
    };
    let get = |path: &str| client.get(stage.url("a.example", path));
    check(get("/"), "one").await;
    check(get("/exact"), "two").await;
    check(get("/exact/"), "one").await;
    check(get("/").header("version", "two"), "two").await;
    check(get("/").header("version", "three"), "one").await;
    check(client.delete(stage.url("a.example", "/")), "two").await;
    check(get("/?animal=whale"), "two").await;
    check(get("/?animal=dolphin"), "one").await;
    check(get("/v12/x"), "two").await;
    check(get("/a/v12/x"), "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_change_requests_and_answers() {
    let set = |name: &str, value: &str| json!([{ "name": name, "value": value }]);
    let route = |path: &str, filters: Value, more: Value| {
        let mut rule =
            json!({ "matches": [{ "path": { "type": "PathPrefix", "value": path } }], "filters": filters });
        json_patch::merge(&mut rule, &more);
        rule
    };
    let one = || json!({ "backendRefs": [to("one")] });
    let rules = json!([
        route(
            "/request",
            json!([{ "type": "RequestHeaderModifier",
            "requestHeaderModifier": { "set": set("x-set", "1"), "add": set("x-add", "2"), "remove": ["x-gone"] } }]),
            one()
        ),
        route(
            "/answer",
            json!([{ "type": "ResponseHeaderModifier",
            "responseHeaderModifier": { "set": set("x-told", "changed"), "add": set("x-new", "1") } }]),
            one()
        ),
        route(
            "/rewrite",
            json!([{ "type": "URLRewrite", "urlRewrite": { "hostname": "inside.example",
            "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } } }]),
            one()
        ),
        route(
            "/moved",
            json!([{ "type": "RequestRedirect", "requestRedirect": { "hostname": "b.example", "statusCode": 301,
            "path": { "type": "ReplaceFullPath", "replaceFullPath": "/there" } } }]),
            json!({})
        ),
        route(
            "/backend",
            json!([]),
            json!({ "backendRefs": [{ "name": "one", "port": 80,
            "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": set("x-backend", "1") } }] }] })
        ),
        route(
            "/unknown",
            json!([{ "type": "ExtensionRef", "extensionRef": { "group": "x", "kind": "Y", "name": "z" } }]),
            one()
        ),
        route("/nothing", json!([]), json!({})),
        route("/missing", json!([]), json!({ "backendRefs": [to("none")] })),
        route("/wrong", json!([]), json!({ "backendRefs": [{ "kind": "Bucket", "name": "b" }] })),
    ]);
    let stage = stage(&[("HTTPRoute", json!({ "rules": rules }))]).await;
    let client = stage.client();
    let get = async |path: &str| {
        let request = client.get(stage.url("a.example", path)).header("x-gone", "1").header("x-add", "1");
        request.send().await.expect("an answer")
    };
    let seen = header(&get("/request").await, "x-seen");
    assert!(seen.contains("x-add=1,2 ") && seen.ends_with("x-set=1") && !seen.contains("x-gone"), "{seen}");
    let answer = get("/answer").await;
    assert_eq!((told(&answer), header(&answer, "x-new")), ("changed".into(), "1".into()));
    let answer = get("/rewrite/x?y=1").await;
    assert!(told(&answer).contains(" /new/x?y=1 host=inside.example "), "{}", told(&answer));
    let answer = get("/moved/x").await;
    let location = format!("http://b.example:{}/there", stage.http.port());
    assert_eq!((answer.status().as_u16(), header(&answer, "location")), (301, location));
    assert!(header(&get("/backend").await, "x-seen").contains("x-backend=1"));
    for path in ["/unknown", "/nothing", "/missing", "/wrong"] {
        assert_eq!(get(path).await.status(), 500, "{path}");
    }
    stage.endpoints("one:80", &[]);
    assert_eq!(get("/request").await.status(), 503, "a Service without endpoints");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_spread_mirrored_and_timed() {
    let weights =
        json!([{ "name": "one", "port": 80, "weight": 3 }, { "name": "two", "port": 80, "weight": 1 }]);
    let prefix = |path: &str| json!([{ "path": { "type": "PathPrefix", "value": path } }]);
    let mirror = json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": to("mirror") } }]);
    let rules = json!([
        { "backendRefs": weights },
        { "matches": prefix("/mirror"), "filters": mirror, "backendRefs": [to("one")] },
        { "matches": prefix("/slow"), "timeouts": { "request": "100ms" }, "backendRefs": [to("slow")] },
        { "matches": prefix("/tries"), "timeouts": { "backendRequest": "100ms" }, "backendRefs": [to("slow")] },
    ]);
    let stage = stage(&[("HTTPRoute", json!({ "rules": rules }))]).await;
    let ((slow, slow_at), (mirror, mirror_at)) = (listener().await, listener().await);
    // It takes connections and says nothing.
    stage.tasks.spawn_until_stop(async move {
        let mut held = Vec::new();
        while let Ok(connection) = slow.accept().await {
            held.push(connection);
        }
    });
    stage.endpoints("slow:80", &[slow_at]);
    stage.endpoints("mirror:80", &[mirror_at]);
    let client = stage.client();
    let mut ones = 0;
    for _ in 0..40 {
        let answer = client.get(stage.url("a.example", "/")).send().await.expect("an answer");
        ones += usize::from(header(&answer, "x-at") == at(&stage, "one"));
    }
    assert!((28..=32).contains(&ones), "{ones} of 40, 30 expected");
    let copied = stage.tasks.spawn(async move {
        let (mut connection, _) = mirror.accept().await.expect("the copy");
        let mut copy = Vec::new();
        while !copy.ends_with(b"the body") {
            connection.read_buf(&mut copy).await.expect("read");
        }
        String::from_utf8(copy).expect("text")
    });
    let answer =
        client.post(stage.url("a.example", "/mirror")).body("the body").send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), "the body");
    let copy =
        tokio::time::timeout(Duration::from_secs(10), copied).await.expect("in time").expect("no panic");
    assert!(copy.starts_with("POST /mirror HTTP/1.1\r\n"), "{copy}");
    for path in ["/slow", "/tries"] {
        let answer = client.get(stage.url("a.example", path)).send().await.expect("an answer");
        assert_eq!(answer.status(), 504, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reaches_the_listener_of_its_name_only() {
    let of = |section: &str, service: &str| json!({ "parentRefs": [{ "name": "gw", "sectionName": section }], "rules": [{ "backendRefs": [to(service)] }] });
    let stage = stage(&[("HTTPRoute", of("any", "one")), ("HTTPRoute", of("b", "two"))]).await;
    let get = async |name: &str, host: &str| {
        let builder = reqwest::Client::builder().danger_accept_invalid_certs(true).http1_only().no_proxy();
        let client = builder.resolve(name, stage.https).build().expect("a client");
        let url = format!("https://{name}:{}/", stage.https.port());
        let answer = client.get(url).header("host", host).send().await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), header(&answer, "x-at"))
    };
    assert_eq!(get("a.example", "a.example").await, (200, at(&stage, "one")));
    assert_eq!(get("b.example", "b.example").await, (200, at(&stage, "two")));
    assert_eq!(get("b.example", "a.example").await.0, 421);
    assert_eq!(get("a.example", "b.example").await.0, 421);
    let plain = stage.client().get(stage.url("a.example", "/")).send().await.expect("an answer");
    assert_eq!(plain.status(), 404, "nothing is attached there");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_matched_by_service_and_method() {
    let rule = |method: Value, service: &str| json!({ "matches": [{ "method": method }], "backendRefs": [to(service)] });
    let rules = json!([
        rule(json!({ "service": "shop.Cart" }), "one"),
        rule(json!({ "service": "shop.Cart", "method": "Pay" }), "two"),
        rule(json!({ "method": "Check" }), "two"),
    ]);
    let stage = stage(&[("GRPCRoute", json!({ "rules": rules }))]).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let call = async |path: &str| {
        let request =
            client.post(format!("http://{}{path}", stage.http)).header("content-type", "application/grpc");
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), header(&answer, "x-at"), told(&answer))
    };
    let (status, from, told) = call("/shop.Cart/Add").await;
    assert_eq!((status, from), (200, at(&stage, "one")));
    assert!(told.starts_with("HTTP/2.0"), "{told}");
    assert_eq!(call("/shop.Cart/Pay").await.1, at(&stage, "two"));
    assert_eq!(call("/health.Health/Check").await.1, at(&stage, "two"));
    assert_eq!(call("/shop.Carts/Add").await.0, 404);
}

/// Speaks TLS with a certificate of this name, and gives bytes back in capitals.
async fn secret_shouting(listener: TcpListener, name: &'static str) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("usable");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        if let Ok(mut stream) = acceptor.accept(stream).await {
            shout(&mut stream).await;
        }
    }
}

async fn plain_shouting(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        shout(&mut stream).await;
    }
}

/// Connects with TLS and asks for a name; answers what is said back.
async fn ask(at: SocketAddr, name: &str) -> Option<String> {
    let config = minik::client::tls::unverified().expect("settings");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(at).await.ok()?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = connector.connect(name, stream).await.ok()?;
    stream.write_all(b"hello").await.ok()?;
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.ok()?;
    Some(String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_connections_go_by_their_name() {
    let tls = |mode: &str, host: &str| {
        let mut listener = json!({ "name": mode.to_ascii_lowercase(), "port": 443, "protocol": "TLS", "hostname": host, "tls": { "mode": mode } });
        if mode == "Terminate" {
            listener["tls"]["certificateRefs"] = json!([{ "name": "b.example" }]);
        }
        listener
    };
    let route = |host: &str, service: &str| json!({ "hostnames": [host], "rules": [{ "backendRefs": [to(service)] }] });
    let listeners = json!([tls("Passthrough", "*.a.example"), tls("Terminate", "b.example")]);
    let routes = [("TLSRoute", route("x.a.example", "secret")), ("TLSRoute", route("b.example", "plain"))];
    let port = served(listeners, &routes).remove(&443).expect("port 443");
    let stage = Stage::new(Arc::default(), port).await;
    let ((secret, secret_at), (plain, plain_at)) = (listener().await, listener().await);
    stage.tasks.spawn_until_stop(secret_shouting(secret, "x.a.example"));
    stage.tasks.spawn_until_stop(plain_shouting(plain));
    stage.endpoints("secret:80", &[secret_at]);
    stage.endpoints("plain:80", &[plain_at]);
    assert_eq!(ask(stage.https, "x.a.example").await.as_deref(), Some("HELLO"), "it goes on unread");
    assert_eq!(ask(stage.https, "b.example").await.as_deref(), Some("HELLO"), "it ends here");
    assert_eq!(ask(stage.https, "y.a.example").await, None, "no route has this name");
}
