//! Clients in this process: they call the router itself, and say who they are.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::future::RouteFuture;
use http::{Request, Response};
use tower::Service;

use super::user::UserInfo;

/// The router, with every request's user set.
#[derive(Clone)]
struct As {
    router: Router,
    user: UserInfo,
}

impl Service<Request<kube::client::Body>> for As {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<kube::client::Body>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<kube::client::Body>) -> Self::Future {
        request.extensions_mut().insert(self.user.clone());
        self.router.call(request)
    }
}

/// A client that acts as `user`.
pub fn in_process(router: Router, user: UserInfo) -> kube::Client {
    kube::Client::new(As { router, user }, "default")
}
