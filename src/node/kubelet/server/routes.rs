//! Routes of the kubelet's server.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::access::Access;
use super::{files, logs, splice};
use crate::cri::api::{AttachRequest, ContainerState, ExecRequest};
use crate::cri::{Runtime, labels};
use crate::kubelet::VERSION;
use crate::kubelet::pods::Manager;
use crate::kubelet::stats::{self, Depth, Sampler};
use config::NodeConfig;
use pki::CertificateInfo;
use rt::Tasks;

/// What the server answers from.
pub struct Routes {
    pub access: Access,
    pub node: String,
    pub started: Timestamp,
    pub sampler: Sampler,
    pub manager: Manager,
    pub runtime: Runtime,
    pub tasks: Tasks,
}

pub type Body = BoxBody<Bytes, std::io::Error>;

/// A refusal: status and a line of text, which the API server wraps into its own Status.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    pub fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn missing(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }

    pub fn internal(message: impl ToString) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, message.to_string())
    }
}

/// A whole answer at once.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Answers one request of `who`; `None`: the connection showed no certificate.
pub async fn answer(
    routes: &Arc<Routes>,
    who: Option<&CertificateInfo>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path != "/healthz"
        && let Err(Refusal(status, message)) = routes.access.check(who, &request).await
    {
        return text(status, message);
    }
    match route(routes, &path, request).await {
        Ok(response) => response,
        Err(Refusal(status, message)) => text(status, message),
    }
}

async fn route(
    routes: &Arc<Routes>,
    path: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match (request.method(), parts.as_slice()) {
        (_, ["healthz"]) => Ok(text(StatusCode::OK, "ok")),
        (&Method::GET, ["pods"]) => Ok(pods(&routes.manager)),
        (&Method::GET, ["metrics", ..] | ["stats", "summary"]) => measured(routes, &parts, &query).await,
        (&Method::GET, ["logs", below @ ..]) => files::answer(Path::new(files::LOGS), below).await,
        (&Method::DELETE, ["localVolumes", name]) => remove_volume(routes, name).await,
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            let pod = find(routes, namespace, pod)?;
            logs::answer(routes, &pod, container, &query).await
        }
        (&(Method::GET | Method::POST), ["exec", namespace, pod, .., container]) => {
            let id = running(routes, namespace, pod, container).await?;
            let url = routes.runtime.exec(exec_request(id, &query)).await.map_err(Refusal::internal)?;
            splice::forward(request, &url, &routes.tasks, None).await
        }
        (&(Method::GET | Method::POST), ["attach", namespace, pod, .., container]) => {
            let id = running(routes, namespace, pod, container).await?;
            let life = splice::Life {
                runtime: routes.runtime.clone(),
                id: id.clone(),
                events: routes.manager.events(),
            };
            let attach = AttachRequest {
                container_id: id,
                stdin: query.on(&["input", "stdin"]),
                stdout: query.on(&["output", "stdout"]),
                stderr: query.on(&["error", "stderr"]) && !query.on(&["tty"]),
                tty: query.on(&["tty"]),
            };
            let url = routes.runtime.attach(attach).await.map_err(Refusal::internal)?;
            splice::forward(request, &url, &routes.tasks, Some(life)).await
        }
        (&(Method::GET | Method::POST), ["portForward", namespace, pod, ..]) => {
            let sandbox = sandbox(routes, namespace, pod).await?;
            let ports = query.all("port").filter_map(|port| port.parse().ok()).collect();
            let url = routes.runtime.port_forward(&sandbox, ports).await.map_err(Refusal::internal)?;
            splice::forward(request, &url, &routes.tasks, None).await
        }
        _ => Err(Refusal::missing("404 page not found")),
    }
}

/// Query parameters, repeated ones in order.
pub struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether any of the names (the kubelet's own and the API's) is switched on.
    pub fn on(&self, names: &[&str]) -> bool {
        names.iter().any(|name| matches!(self.get(name), Some("1" | "true" | "True" | "t")))
    }
}

fn exec_request(id: String, query: &Query) -> ExecRequest {
    let tty = query.on(&["tty"]);
    ExecRequest {
        container_id: id,
        cmd: query.all("command").map(str::to_owned).collect(),
        tty,
        stdin: query.on(&["input", "stdin"]),
        stdout: query.on(&["output", "stdout"]),
        // A terminal has one output.
        stderr: query.on(&["error", "stderr"]) && !tty,
    }
}

fn pods(manager: &Manager) -> Response<Body> {
    let items: Vec<Arc<Pod>> = manager.pods();
    let items: Vec<&Pod> = items.iter().map(AsRef::as_ref).collect();
    let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    json_text(&list)
}

/// What the node and its Pods use, in the form the path names.
async fn measured(routes: &Routes, parts: &[&str], query: &Query) -> Result<Response<Body>, Refusal> {
    let light = parts == ["metrics", "resource"] || query.on(&["only_cpu_and_memory"]);
    let depth = if light { Depth::Light } else { Depth::Full };
    let sample = || async { routes.sampler.sample(depth).await.map_err(Refusal::internal) };
    let plain = match parts {
        ["metrics"] => {
            let all = routes.runtime.containers(None).await.map_err(Refusal::internal)?;
            let running = all.iter().filter(|c| c.state() == ContainerState::ContainerRunning).count();
            stats::own(&routes.node, VERSION, routes.manager.pods().len(), running)
        }
        ["metrics", "resource"] => stats::resource(&*sample().await?),
        ["metrics", "cadvisor"] => stats::cadvisor(&*sample().await?),
        ["metrics", "probes"] => stats::probes(&routes.manager.probes().all()),
        ["stats", "summary"] => {
            let summary = stats::summary(&routes.node, routes.started, &*sample().await?);
            return Ok(json_text(&summary));
        }
        _ => return Err(Refusal::missing("404 page not found")),
    };
    let mut response = text(StatusCode::OK, plain);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Removes the data of a volume that was made on this node for a claim that is gone.
async fn remove_volume(routes: &Routes, name: &str) -> Result<Response<Body>, Refusal> {
    if !name.starts_with("pvc-") || name.contains('/') {
        return Err(Refusal::bad(format!("{name:?} is not the name of a volume made for a claim")));
    }
    let path = Path::new(NodeConfig::STATE_DIR).join("volumes").join(name);
    let removed = routes.tasks.spawn_blocking(move || match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    removed.await.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    Ok(text(StatusCode::OK, "removed"))
}

fn json_text(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn find(routes: &Routes, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
    routes
        .manager
        .find(namespace, name)
        .ok_or_else(|| Refusal::missing(format!("pod \"{name}_{namespace}\" does not exist")))
}

/// The id of the running container of that name.
async fn running(routes: &Routes, namespace: &str, pod: &str, container: &str) -> Result<String, Refusal> {
    let pod = find(routes, namespace, pod)?;
    let containers =
        routes.runtime.containers(pod.metadata.uid.as_deref()).await.map_err(Refusal::internal)?;
    let named = |labels: &HashMap<String, String>| {
        labels.get(labels::CONTAINER_NAME).map(String::as_str) == Some(container)
    };
    containers
        .into_iter()
        .filter(|c| named(&c.labels) && c.state() == ContainerState::ContainerRunning)
        .max_by_key(|c| c.created_at)
        .map(|c| c.id)
        .ok_or_else(|| Refusal::missing(format!("container not found (\"{container}\")")))
}

async fn sandbox(routes: &Routes, namespace: &str, pod: &str) -> Result<String, Refusal> {
    let pod = find(routes, namespace, pod)?;
    let sandboxes = routes.runtime.sandboxes(pod.metadata.uid.as_deref()).await.map_err(Refusal::internal)?;
    sandboxes
        .into_iter()
        .filter(|sandbox| sandbox.state == 0)
        .max_by_key(|sandbox| sandbox.created_at)
        .map(|sandbox| sandbox.id)
        .ok_or_else(|| Refusal::missing("the Pod has no sandbox"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_takes_both_spellings() {
        let query = Query::parse("command=sh&command=-c&command=a%20b&input=1&stdout=true&error=1&tty=1");
        let request = exec_request("id".into(), &query);
        assert_eq!(request.cmd, ["sh", "-c", "a b"]);
        assert!(request.stdin && request.stdout && request.tty && !request.stderr);
    }
}
