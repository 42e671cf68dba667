//! An API server for tests that holds one Pod.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// An API server that holds one Pod: it takes its status and its deletion, and knows of nothing else.
#[derive(Clone, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    pod: Value,
    revision: u64,
    deleted: bool,
    /// So many writes are refused yet.
    faults: u32,
    writes: u32,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl FakeApi {
    /// One that holds `pod`.
    pub fn with(pod: &Pod) -> Self {
        let mut state =
            State { pod: serde_json::to_value(pod).expect("JSON"), revision: 1, ..State::default() };
        state.touch();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Refuses the next writes.
    pub fn fail(&self, writes: u32) {
        self.lock().faults = writes;
    }

    /// Changes the Pod as another client would; the Pod after that.
    pub fn change(&self, patch: &Value) -> Pod {
        let mut state = self.lock();
        json_patch::merge(&mut state.pod, patch);
        state.touch();
        serde_json::from_value(state.pod.clone()).expect("a Pod")
    }

    /// The Pod as it is.
    pub fn pod(&self) -> Pod {
        serde_json::from_value(self.lock().pod.clone()).expect("a Pod")
    }

    /// The status of one condition; empty where it is missing.
    pub fn condition(&self, kind: &str) -> String {
        let status = self.pod().status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == kind).map(|c| c.status).unwrap_or_default()
    }

    pub fn phase(&self) -> String {
        self.pod().status.and_then(|status| status.phase).unwrap_or_default()
    }

    /// How often the status was written.
    pub fn writes(&self) -> u32 {
        self.lock().writes
    }

    pub fn is_deleted(&self) -> bool {
        self.lock().deleted
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if watches {
            let silent = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
            return Response::new(BodyExt::boxed(silent));
        }
        match (&method, path.as_str()) {
            (&Method::PATCH, path) if path.ends_with("/status") => self.patch(&body),
            (&Method::DELETE, _) => {
                self.lock().deleted = true;
                whole(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            (&Method::POST | &Method::PATCH, path) if path.contains("/events") => {
                whole(StatusCode::CREATED, &body)
            }
            _ => whole(StatusCode::NOT_FOUND, &failure(404)),
        }
    }

    fn patch(&self, body: &Value) -> Answer {
        let mut state = self.lock();
        if state.faults > 0 {
            state.faults -= 1;
            return whole(StatusCode::INTERNAL_SERVER_ERROR, &failure(500));
        }
        state.writes += 1;
        let patch = json!({ "status": body["status"] });
        json_patch::merge(&mut state.pod, &patch);
        state.touch();
        whole(StatusCode::OK, &state.pod)
    }
}

impl State {
    fn touch(&mut self) {
        self.revision += 1;
        self.pod["metadata"]["resourceVersion"] = json!(self.revision.to_string());
    }
}

fn failure(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "made-up", "reason": "X", "code": code})
}

fn whole(status: StatusCode, body: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = status;
    response
}
