//! Clients in this process: they call the router itself, and say who they are.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tower::Service;

use super::user::UserInfo;
use metrics::{Counter, Family, Kind, Text};

/// What these clients were answered, by method and code.
#[derive(Default)]
pub struct Answers(Family<Counter>);

impl Answers {
    /// Tells it under the name that all of upstream's clients use.
    pub fn tell(&self, text: &mut Text) {
        let name = "rest_client_requests_total";
        let about = "Requests of clients in this process: controllers and scheduler.";
        text.family(name, Kind::Counter, about);
        for (values, count) in self.0.all() {
            let labels = [("code", &*values[0]), ("host", "in-process"), ("method", &*values[1])];
            text.sample(name, &labels, count.get() as f64);
        }
    }
}

/// The router, with every request's user set.
#[derive(Clone)]
struct As {
    router: Router,
    user: UserInfo,
    answers: Arc<Answers>,
}

impl Service<Request<kube::client::Body>> for As {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<kube::client::Body>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<kube::client::Body>) -> Self::Future {
        request.extensions_mut().insert(self.user.clone());
        let (answers, method) = (self.answers.clone(), request.method().clone());
        let count = move |answer: &Result<Response<Body>, Infallible>| {
            let Ok(answer) = answer else { return };
            answers.0.of(&[answer.status().as_str(), method.as_str()]).add(1);
        };
        self.router.call(request).inspect(count).boxed()
    }
}

/// A client that acts as `user`.
pub fn in_process(router: Router, user: UserInfo, answers: Arc<Answers>) -> kube::Client {
    kube::Client::new(As { router, user, answers }, "default")
}
