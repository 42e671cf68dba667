//! Answers on the healthCheckNodePorts of Services with externalTrafficPolicy Local: 200 while this node has an
//! endpoint, 503 otherwise, as load balancers expect it from kube-proxy.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::net::Ipv4Addr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::plan::HealthCheck;
use rt::{Stop, Tasks};

struct Served {
    check: watch::Sender<HealthCheck>,
    stop: Stop,
    task: JoinHandle<()>,
}

/// The servers, one per port.
pub(super) struct HealthServers {
    tasks: Tasks,
    served: BTreeMap<u16, Served>,
}

impl HealthServers {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { tasks, served: BTreeMap::new() }
    }

    /// Serves exactly `wanted`. A port that something else holds is said once per change, and tried again at the next.
    pub(super) async fn update(&mut self, wanted: &BTreeMap<u16, HealthCheck>) {
        for (_, gone) in self.served.extract_if(.., |port, _| !wanted.contains_key(port)) {
            gone.stop.cancel();
            // Once it has ended, the port is free for whoever gets it next.
            if let Err(error) = gone.task.await {
                tracing::warn!(%error, "health check server failed");
            }
        }
        for (port, check) in wanted {
            if let Some(served) = self.served.get(port) {
                served.check.send_replace(check.clone());
                continue;
            }
            match TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).await {
                Ok(listener) => {
                    let served = self.serve(listener, check.clone());
                    self.served.insert(*port, served);
                }
                Err(error) => {
                    tracing::warn!(%error, port, service = %check.service, "health check node port not served");
                }
            }
        }
    }

    fn serve(&self, listener: TcpListener, check: HealthCheck) -> Served {
        let (check, seen) = watch::channel(check);
        let stop = self.tasks.stop().child_token();
        let router = Router::new().fallback(answer).with_state(seen);
        let stopped = stop.clone();
        let task = self.tasks.spawn(async move {
            let served = stopped.run_until_cancelled(axum::serve(listener, router).into_future()).await;
            if let Some(Err(error)) = served {
                tracing::warn!(%error, "health check server ended");
            }
        });
        Served { check, stop, task }
    }
}

async fn answer(State(check): State<watch::Receiver<HealthCheck>>) -> Response {
    let check = check.borrow().clone();
    let count = check.local_endpoints;
    let status = if count > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "service": { "namespace": check.service.namespace, "name": check.service.name },
        "localEndpoints": count,
        "serviceProxyHealthy": true,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::HeaderName::from_static("x-load-balancing-endpoint-weight"), count.to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}
