//! The engine through its router, without a socket.

mod access;
mod aggregation;
mod apply;
mod basics;
mod conversion;
mod faults;
mod identity;
mod made_up;
mod media;
mod pods;
mod quotas;
mod reservations;
mod semantics;
mod statuses;
mod told;
mod upstream;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use api::resources::{Resource, builtin};
use pki::Key;
use rt::{Clock, Tasks};
use storage::{self, Store};

use super::user::UserInfo;
use super::{ApiServer, Options};

/// The machine's clock, until it breaks.
#[derive(Clone, Default)]
struct TestClock {
    broken: Arc<AtomicBool>,
}

impl Clock for TestClock {
    fn now(&self) -> jiff::Timestamp {
        assert!(!self.broken.load(Ordering::Relaxed), "the clock is broken");
        jiff::Timestamp::now()
    }
}

struct Server {
    router: axum::Router,
    api: ApiServer,
    store: Arc<dyn Store>,
    clock: TestClock,
}

impl Server {
    async fn new() -> Self {
        Self::over(storage::memory()).await
    }

    /// A server over a store of the test's own.
    async fn over(store: Arc<dyn Store>) -> Self {
        Self::with(store, |_| {}).await
    }

    /// A server of other resources.
    async fn of_rows(store: Arc<dyn Store>, resources: Vec<Arc<Resource>>) -> Self {
        Self::with(store, |options| options.resources = resources).await
    }

    /// A server with options of the test's own.
    async fn with(store: Arc<dyn Store>, change: impl FnOnce(&mut Options)) -> Self {
        let clock = TestClock::default();
        let mut options = Options {
            clock: Arc::new(clock.clone()),
            ..Options::new(store.clone(), Key::generate().expect("a key"), Tasks::new())
        };
        change(&mut options);
        let api = ApiServer::build(options).await.expect("a server");
        let server = Self { router: api.router(), api, store, clock };
        server.create("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
        server
    }

    async fn raw(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).expect("request");
        request.extensions_mut().insert(UserInfo::api_server());
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    async fn send(&self, method: &str, uri: &str, body: &Value) -> (StatusCode, Value) {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.raw(method, uri, &[("content-type", content_type)], body).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, uri: &str) -> (StatusCode, Value) {
        self.send("GET", uri, &Value::Null).await
    }

    async fn create(&self, uri: &str, body: Value) -> Value {
        let (code, made) = self.send("POST", uri, &body).await;
        assert_eq!(code, 201, "{made}");
        made
    }

    async fn map(&self, name: &str) -> Value {
        self.create(MAPS, json!({"metadata": {"name": name, "labels": {"n": name}}, "data": {"k": "v"}}))
            .await
    }

    async fn watch(&self, uri: &str) -> Events {
        let response = self.raw("GET", uri, &[], Body::empty()).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }
}

struct Events {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Events {
    /// The next event; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("one event a line"));
            }
            let chunk = tokio::time::timeout(std::time::Duration::from_secs(5), self.body.next()).await;
            self.rest.extend_from_slice(&chunk.expect("an event in time")?.expect("body"));
        }
    }

    /// The next event as `TYPE name`.
    async fn said(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let kind = event["type"].as_str().expect("a type");
        format!("{kind} {}", event["object"]["metadata"]["name"].as_str().unwrap_or_default())
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a version")
}
