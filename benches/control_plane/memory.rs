//! What the control plane's memory grows by, and what of that stays, when many kinds and objects came and went.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::body::Body;
use futures::StreamExt as _;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use minik::apiserver::UserInfo;
use minik::{storage, sys};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::costs::{Bench, CUSTOM_KINDS, definition, resident, show};

const KINDS: usize = 60;
const NAMESPACES: usize = 100;
/// Pods in each of them.
const PODS: usize = 30;
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const OPENAPI: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// What the allocator has handed out, in MiB.
fn in_use() -> f64 {
    // SAFETY: it has no precondition.
    let info = unsafe { nix::libc::mallinfo2() };
    #[allow(clippy::cast_precision_loss)] // bytes
    let bytes = (info.uordblks + info.hblkhd) as f64;
    bytes / f64::from(1 << 20)
}

fn tell(what: &str) -> Result<()> {
    show(what, resident()?, "MiB", "-");
    show("  of that handed out", in_use(), "MiB", "-");
    Ok(())
}

/// A load like that of upstream's suite: kinds that come and go while clients ask for documents, Pods that live for a moment
/// under all kinds of watches.
pub async fn all() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let store = storage::open(storage::Config::embedded(folder.path().join("memory.redb"))).await?;
    let bench = Arc::new(Bench::start(store).await?);
    bench.create("/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await?;
    sys::memory::keep_slim(&bench.tasks);
    tell("memory: a server that has started")?;
    kinds(&bench).await?;
    tell("memory: after kinds came and went")?;
    objects(&bench).await?;
    tell("memory: after Pods came and went")?;
    tokio::time::sleep(Duration::from_secs(45)).await;
    bench.create("/api/v1/namespaces", &json!({"metadata": {"name": "later"}})).await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    tell("memory: a minute later")
}

async fn kinds(bench: &Bench) -> Result<()> {
    for number in 0..KINDS {
        bench.define(number).await?;
        bench.server.index().caught_up().await;
        get(bench, "/openapi/v2", OPENAPI).await?;
        get(bench, "/openapi/v3", JSON).await?;
        get(bench, "/openapi/v3/apis/example.com/v1", JSON).await?;
        get(bench, "/openapi/v3/api/v1", JSON).await?;
        get(bench, "/apis", JSON).await?;
        let name = definition(number)["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let (status, _) =
            bench.send(Method::DELETE, &format!("{CUSTOM_KINDS}/{name}"), String::new()).await?;
        ensure!(status.is_success(), "{status}");
    }
    Ok(())
}

async fn get(bench: &Bench, path: &str, accept: &str) -> Result<()> {
    let body = ask(bench, path, accept).await?;
    body.collect().await?;
    Ok(())
}

async fn ask(bench: &Bench, path: &str, accept: &str) -> Result<Body> {
    let mut request = Request::builder().uri(path).header("accept", accept).body(Body::empty())?;
    request.extensions_mut().insert(UserInfo::api_server());
    let response = bench.router.clone().oneshot(request).await?;
    ensure!(response.status() == StatusCode::OK, "{path}: {}", response.status());
    Ok(response.into_body())
}

async fn objects(bench: &Arc<Bench>) -> Result<()> {
    let mut watches = Vec::new();
    for accept in [JSON, PROTOBUF, PARTIAL] {
        let body = ask(bench, "/api/v1/pods?watch=true", accept).await?;
        watches.push(bench.tasks.spawn(async move {
            let mut frames = body.into_data_stream();
            while let Some(Ok(_)) = frames.next().await {}
        }));
    }
    let work = (0..NAMESPACES).map(|number| {
        let bench = Arc::clone(bench);
        async move { namespace(&bench, number).await }
    });
    let mut work = futures::stream::iter(work).buffer_unordered(8);
    while let Some(done) = work.next().await {
        done?;
    }
    watches.iter().for_each(|watch| watch.abort());
    Ok(())
}

/// Pods that are made, come to run, and go.
async fn namespace(bench: &Bench, number: usize) -> Result<()> {
    let name = format!("n{number}");
    bench.create("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await?;
    let account = json!({"metadata": {"name": "default"}});
    bench.create(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    let pods = format!("/api/v1/namespaces/{name}/pods");
    for pod in 0..PODS {
        let path = format!("{pods}/p{pod}");
        bench.create(&pods, &self::pod(pod)).await?;
        for phase in ["Pending", "Running", "Succeeded"] {
            let status = json!({"status": {"phase": phase, "conditions": conditions(phase)}});
            let (code, body) = bench.patch(&format!("{path}/status"), &status).await?;
            ensure!(code == StatusCode::OK, "{code} {}", String::from_utf8_lossy(&body));
        }
        let now = json!({"gracePeriodSeconds": 0}).to_string();
        let (code, _) = bench.send(Method::DELETE, &path, now).await?;
        ensure!(code == StatusCode::OK, "{code}");
    }
    Ok(())
}

fn pod(number: usize) -> Value {
    let environment: Vec<Value> =
        (0..8).map(|n| json!({"name": format!("NAME_{n}"), "value": format!("value {n}")})).collect();
    json!({"metadata": {"name": format!("p{number}"), "labels": {"app": "load", "number": number.to_string()}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/load:1", "env": environment,
            "command": ["sh", "-c", "while true; do sleep 1; done"]}]}})
}

fn conditions(phase: &str) -> Vec<Value> {
    let kinds = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let made =
        kinds.map(|kind| json!({"type": kind, "status": "True", "reason": phase, "lastProbeTime": null}));
    made.to_vec()
}
