//! What kube-proxy tells of itself over HTTP, at its own ports: whether the rules keep up with Services (for load balancers),
//! and how they are kept (for people and their scripts).

use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backend::BackendKind;
use crate::network::Feed;
use rt::Tasks;

/// Where health is asked for, from anywhere.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);
/// Where the rest is, for processes on the node.
const STATUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// Rules that are behind for longer are a fault.
const LATE: Duration = Duration::from_secs(60);

/// How well the rules keep up.
#[derive(Clone, Copy, Debug)]
struct Health {
    /// When the rules were last as Services wanted them; None before the first time.
    updated: Option<Timestamp>,
    /// Since when they are not.
    behind: Option<Instant>,
}

impl Health {
    fn is_good(&self) -> bool {
        self.updated.is_some() && self.behind.is_none_or(|since| since.elapsed() < LATE)
    }
}

/// Answers until `tasks` stops. `applied` is what the proxy's loop tells. A port that something else holds is said, and
/// not served.
pub fn serve_status(kind: BackendKind, feed: &Feed, applied: watch::Receiver<u64>, tasks: &Tasks) {
    let (health, seen) = watch::channel(Health { updated: None, behind: None });
    tasks.spawn_until_stop(follow(feed.services(), applied, health));
    tasks.spawn_until_stop(serve(HEALTH, health_routes(seen)));
    tasks.spawn_until_stop(serve(STATUS, status_routes(kind)));
}

/// Keeps what is known of the rules: they are behind while a newer generation of Services is wanted than was applied.
async fn follow(
    mut wanted: watch::Receiver<u64>,
    mut applied: watch::Receiver<u64>,
    health: watch::Sender<Health>,
) {
    loop {
        let done = *applied.borrow_and_update();
        if done > 0 && done >= *wanted.borrow_and_update() {
            health.send_replace(Health { updated: Some(Timestamp::now()), behind: None });
        } else {
            health.send_modify(|health| health.behind = health.behind.or_else(|| Some(Instant::now())));
        }
        let changed = tokio::select! {
            changed = applied.changed() => changed,
            changed = wanted.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn serve(at: SocketAddr, routes: Router) {
    let served = async {
        let listener = TcpListener::bind(at).await?;
        axum::serve(listener, routes).into_future().await
    };
    if let Err(error) = served.await {
        tracing::warn!(%error, %at, "the service proxy's status is not served");
    }
}

fn health_routes(health: watch::Receiver<Health>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/livez", get(healthz)).with_state(health)
}

fn status_routes(kind: BackendKind) -> Router {
    let mode = match kind {
        BackendKind::Nftables => "nftables",
        BackendKind::Iptables | BackendKind::IptablesLegacy => "iptables",
    };
    Router::new()
        .route("/proxyMode", get(move || async move { mode }))
        .route("/healthz", get(|| async { "ok" }))
}

async fn healthz(State(health): State<watch::Receiver<Health>>) -> Response {
    let health = *health.borrow();
    let status = if health.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "lastUpdated": health.updated.map(|at| at.to_string()).unwrap_or_default(),
        "currentTime": Timestamp::now().to_string(),
        "nodeEligible": true,
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(health: Health) -> u16 {
        healthz(State(watch::channel(health).1)).await.status().as_u16()
    }

    #[tokio::test]
    async fn health_is_whether_rules_keep_up() {
        let now = Instant::now();
        let long_ago = now.checked_sub(LATE);
        let updated = Some(Timestamp::now());
        assert_eq!(answer(Health { updated: None, behind: Some(now) }).await, 503, "nothing was applied yet");
        assert_eq!(answer(Health { updated, behind: None }).await, 200);
        assert_eq!(answer(Health { updated, behind: Some(now) }).await, 200, "there is time");
        assert_eq!(answer(Health { updated, behind: long_ago }).await, 503);
    }

    #[tokio::test]
    async fn rules_are_behind_until_what_is_wanted_is_applied() {
        let (wanted, sees_wanted) = watch::channel(0);
        let (applied, sees_applied) = watch::channel(0);
        let (health, mut seen) = watch::channel(Health { updated: None, behind: None });
        let tasks = rt::Tasks::new();
        tasks.spawn_until_stop(follow(sees_wanted, sees_applied, health));
        seen.wait_for(|health| health.behind.is_some() && health.updated.is_none()).await.unwrap();
        wanted.send_replace(1);
        applied.send_replace(1);
        seen.wait_for(|health| health.behind.is_none() && health.updated.is_some()).await.unwrap();
        wanted.send_replace(2);
        let since = seen.wait_for(|health| health.behind.is_some()).await.unwrap().behind;
        wanted.send_replace(3);
        applied.send_replace(2);
        assert_eq!(seen.borrow_and_update().behind, since, "still behind since then");
        applied.send_replace(3);
        seen.wait_for(|health| health.behind.is_none()).await.unwrap();
    }
}
