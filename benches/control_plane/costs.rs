//! What policies, webhooks, fairness, many definitions, many watchers and many objects cost: absolute figures, in one process.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use minik::apiserver::{ApiServer, Options, UserInfo, serve};
use minik::client::tls;
use minik::pki::{Authority, Key};
use minik::rt::Tasks;
use minik::storage;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const CUSTOM_KINDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
/// A request is repeated so often; the median counts.
const SAMPLES: usize = 2_000;
const POLICIES: u32 = 10;
const DEFINITIONS: usize = 1_000;
const WATCHERS: usize = 1_000;
/// Updates while all watch, and how many in a second.
const UPDATES: u32 = 500;
const RATE: u32 = 100;
const OBJECTS: usize = 100_000;

pub async fn all() -> Result<()> {
    policies().await?;
    webhook().await?;
    fairness().await?;
    definitions().await?;
    watchers().await?;
    objects().await
}

pub fn show(what: &str, value: f64, unit: &str, aim: &str) {
    println!("{what:<52} {value:>10.2} {unit:<4} (aim: {aim})");
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The resident memory of this process, in MiB.
pub fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split(' ').nth(1).context("pages")?.parse()?;
    Ok(pages * 4096.0 / f64::from(1 << 20))
}

/// A server in this process, asked without a socket.
pub struct Bench {
    pub server: ApiServer,
    pub router: Router,
    pub tasks: Tasks,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

impl Bench {
    pub async fn start(store: Arc<dyn storage::Store>) -> Result<Self> {
        let tasks = Tasks::new();
        let server = ApiServer::build(Options::new(store, Key::generate()?, tasks.clone())).await?;
        Ok(Self { router: server.router(), server, tasks })
    }

    async fn with_namespace() -> Result<Self> {
        let bench = Self::start(storage::memory()).await?;
        bench.create("/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await?;
        Ok(bench)
    }

    async fn open(
        &self,
        user: &UserInfo,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, Body)> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", kind).body(body)?;
        request.extensions_mut().insert(user.clone());
        let response = self.router.clone().oneshot(request).await?;
        Ok((response.status(), response.into_body()))
    }

    pub async fn send(&self, method: Method, path: &str, body: String) -> Result<(StatusCode, Vec<u8>)> {
        let (status, body) = self.open(&UserInfo::api_server(), method, path, Body::from(body)).await?;
        Ok((status, body.collect().await?.to_bytes().to_vec()))
    }

    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let (status, body) = self.send(Method::POST, path, object.to_string()).await?;
        ensure!(status == StatusCode::CREATED, "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    pub async fn patch(&self, path: &str, patch: &Value) -> Result<(StatusCode, Vec<u8>)> {
        self.send(Method::PATCH, path, patch.to_string()).await
    }

    /// Makes a definition, and says of it what its controller would.
    pub async fn define(&self, number: usize) -> Result<()> {
        let mut made = self.create(CUSTOM_KINDS, &definition(number)).await?;
        made["status"]["acceptedNames"] = made["spec"]["names"].clone();
        made["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        let path = format!("{CUSTOM_KINDS}/things{number}.example.com/status");
        let (status, _) = self.send(Method::PUT, &path, made.to_string()).await?;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    }

    /// The median of a request that is the same each time.
    async fn median(&self, user: &UserInfo, method: &Method, path: &str, body: &str) -> Result<Duration> {
        let mut times = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            let (status, body) = self.open(user, method.clone(), path, Body::from(body.to_owned())).await?;
            body.collect().await?;
            times.push(begun.elapsed());
            ensure!(status.is_success(), "{path}: {status}");
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }

    /// The median of a create of a ConfigMap of 1 KiB as a dry run.
    async fn dry(&self) -> Result<Duration> {
        let path = format!("{MAPS}?dryRun=All");
        self.median(&UserInfo::new("jane", &[UserInfo::MASTERS]), &Method::POST, &path, &config_map("m"))
            .await
    }
}

fn config_map(name: &str) -> String {
    let value = "x".repeat(1024);
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "a"}}, "data": {"k": value}})
        .to_string()
}

/// What one policy adds to a write that it admits.
async fn policies() -> Result<()> {
    let bench = Bench::with_namespace().await?;
    let without = bench.dry().await?;
    for n in 0..POLICIES {
        let name = format!("p{n}");
        let spec = json!({
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
            "validations": [{"expression":
                "object.data.all(k, size(k) < 64) && has(object.metadata.labels) && !('forbidden' in object.metadata.labels)"}]});
        let policy = json!({"metadata": {"name": name}, "spec": spec});
        bench.create(&format!("{CONFIGURATIONS}/validatingadmissionpolicies"), &policy).await?;
        let binding =
            json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        bench.create(&format!("{CONFIGURATIONS}/validatingadmissionpolicybindings"), &binding).await?;
    }
    bench.server.index().caught_up().await;
    let refused =
        json!({"metadata": {"name": "m", "labels": {"forbidden": "x"}}, "data": {"k": "v"}}).to_string();
    let (status, _) = bench.send(Method::POST, &format!("{MAPS}?dryRun=All"), refused).await?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY, "the policies hold: {status}");
    let with = bench.dry().await?;
    show(
        "a CEL policy, of a create",
        micros(with.saturating_sub(without)) / f64::from(POLICIES),
        "us",
        "under 50",
    );
    Ok(())
}

/// What a webhook adds to a write beside the time that the hook itself takes.
async fn webhook() -> Result<()> {
    let bench = Bench::with_namespace().await?;
    let authority = Authority::generate("hooks")?;
    let serving = authority.sign_server("hook", &["127.0.0.1".to_owned()])?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let answer = |body: String| async move {
        let review: Value = serde_json::from_str(&body).unwrap_or_default();
        let response = json!({"uid": review["request"]["uid"], "allowed": true});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
            .to_string()
    };
    let hooks = Router::new().fallback(answer);
    serve::serve(listener, hooks, serve::tls(&serving, authority.certificate_pem())?, &bench.tasks);
    let without = bench.dry().await?;
    let bundle = BASE64_STANDARD.encode(authority.certificate_pem());
    let url = format!("https://127.0.0.1:{port}/ask");
    let configuration = json!({"metadata": {"name": "hook"}, "webhooks": [{"name": "a.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": url, "caBundle": bundle},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]});
    bench.create(&format!("{CONFIGURATIONS}/validatingwebhookconfigurations"), &configuration).await?;
    bench.server.index().caught_up().await;
    let with = bench.dry().await?;
    let trust = tls::config(authority.certificate_pem(), None)?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(trust).no_proxy().build()?;
    let object: Value = serde_json::from_str(&config_map("m"))?;
    let question = json!({"request": {"uid": "u", "object": object}}).to_string();
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        client.post(&url).body(question.clone()).send().await?.bytes().await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let own = with.saturating_sub(without).saturating_sub(times[times.len() / 2]);
    show("a webhook, beside its own answer", micros(own) / 1e3, "ms", "under 1");
    Ok(())
}

/// What finding a seat and asking RBAC cost a request.
async fn fairness() -> Result<()> {
    let bench = Bench::with_namespace().await?;
    bench.create(MAPS, &serde_json::from_str(&config_map("m"))?).await?;
    let role = json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    bench.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await?;
    let binding = json!({"metadata": {"name": "all"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    bench.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await?;
    bench.server.index().caught_up().await;
    let path = format!("{MAPS}/m");
    let exempt = UserInfo::new("root", &[UserInfo::MASTERS]);
    let ordinary = UserInfo::new("jane", &["system:authenticated"]);
    let free = bench.median(&exempt, &Method::GET, &path, "").await?;
    let queued = bench.median(&ordinary, &Method::GET, &path, "").await?;
    show("a GET by an exempt user", micros(free), "us", "-");
    show("a seat of a level and RBAC, of a GET", micros(queued.saturating_sub(free)), "us", "under 10");
    Ok(())
}

pub fn definition(number: usize) -> Value {
    let text = json!({"type": "string", "description": "A field of a kind of which there are many."});
    let fields: serde_json::Map<String, Value> =
        (0..20).map(|n| (format!("field{n}"), text.clone())).collect();
    let names = json!({"plural": format!("things{number}"), "singular": format!("thing{number}"),
        "kind": format!("Thing{number}"), "listKind": format!("Thing{number}List")});
    json!({"metadata": {"name": format!("things{number}.example.com")}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": names, "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}}}]}})
}

/// Discovery of many definitions, and the memory that they take.
pub async fn definitions() -> Result<()> {
    let bench = Bench::with_namespace().await?;
    let before = resident()?;
    for number in 0..DEFINITIONS {
        bench.define(number).await?;
    }
    bench.server.index().caught_up().await;
    let begun = Instant::now();
    let (status, body) = bench.send(Method::GET, "/apis/example.com/v1", String::new()).await?;
    let took = begun.elapsed();
    let found: Value = serde_json::from_slice(&body)?;
    let kinds = found["resources"].as_array().map_or(0, Vec::len);
    ensure!(status == StatusCode::OK && kinds == 2 * DEFINITIONS, "{status}, {kinds} resources");
    show("discovery of 1,000 definitions, the first time", micros(took) / 1e3, "ms", "under 50");
    show("their memory", resident()? - before, "MiB", "under 100");
    let begun = Instant::now();
    let (status, _) = bench.send(Method::GET, "/openapi/v3/apis/example.com/v1", String::new()).await?;
    ensure!(status == StatusCode::OK, "{status}");
    show("their OpenAPI document, the first time", micros(begun.elapsed()) / 1e3, "ms", "-");
    Ok(())
}

/// How late events come to many watchers of an object that changes often.
async fn watchers() -> Result<()> {
    let bench = Bench::with_namespace().await?;
    let object = bench.create(MAPS, &json!({"metadata": {"name": "m"}, "data": {"n": "0"}})).await?;
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let path = format!("{MAPS}?watch=true&resourceVersion={version}");
    let begun = Instant::now();
    let (seen, mut late) = mpsc::unbounded_channel::<Vec<u64>>();
    for _ in 0..WATCHERS {
        let (status, body) = bench.open(&UserInfo::api_server(), Method::GET, &path, Body::empty()).await?;
        ensure!(status == StatusCode::OK, "{status}");
        let seen = seen.clone();
        bench.tasks.spawn_until_stop(async move {
            let mut frames = body.into_data_stream();
            let (mut rest, mut late) = (Vec::new(), Vec::new());
            while late.len() < UPDATES as usize {
                let Some(Ok(piece)) = frames.next().await else { break };
                let now = begun.elapsed().as_micros();
                rest.extend_from_slice(&piece);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    late.extend(
                        sent(&rest[..end]).map(|sent| u64::try_from(now).unwrap_or(0).saturating_sub(sent)),
                    );
                    rest.drain(..=end);
                }
            }
            let _ = seen.send(late);
        });
    }
    drop(seen);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    for _ in 0..UPDATES {
        ticks.tick().await;
        let body =
            json!({"metadata": {"name": "m"}, "data": {"sent": begun.elapsed().as_micros().to_string()}});
        let (status, _) = bench.send(Method::PUT, &format!("{MAPS}/m"), body.to_string()).await?;
        ensure!(status == StatusCode::OK, "{status}");
    }
    let mut all = Vec::new();
    for _ in 0..WATCHERS {
        all.extend(late.recv().await.context("every watcher ends")?);
    }
    ensure!(all.len() == WATCHERS * UPDATES as usize, "{} events", all.len());
    all.sort_unstable();
    #[allow(clippy::cast_precision_loss)] // microseconds
    let at = |share: usize| all[all.len() * share / 100] as f64 / 1e3;
    show("1,000 watchers, 100 updates/s: median", at(50), "ms", "-");
    show("1,000 watchers, 100 updates/s: p99", at(99), "ms", "under 20");
    Ok(())
}

/// When an event was sent, as it says itself.
fn sent(frame: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(frame).ok()?;
    text.split_once("\"sent\":\"")?.1.split('"').next()?.parse().ok()
}

/// Start over many objects, in a process of its own.
async fn objects() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let file = folder.path().join("many.redb");
    let mut encoded = 0;
    {
        let bench = Bench::start(storage::open(storage::Config::embedded(file.clone())).await?).await?;
        bench.create("/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await?;
        let names: Vec<usize> = (0..OBJECTS).collect();
        for some in names.chunks(256) {
            let made = some.iter().map(|n| {
                let bench = &bench;
                async move {
                    let (status, body) = bench.send(Method::POST, MAPS, config_map(&format!("m{n}"))).await?;
                    ensure!(status == StatusCode::CREATED, "{status}");
                    anyhow::Ok(body.len())
                }
            });
            for size in futures::future::join_all(made).await {
                encoded += size?;
            }
        }
        let _ = bench.tasks.drain(Duration::from_secs(30)).await;
    }
    let output = Command::new(std::env::current_exe()?).arg("--start-over").arg(&file).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut said = text.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(millis)), Some(Ok(memory))) = (said.next(), said.next()) else {
        anyhow::bail!("{text} {}", String::from_utf8_lossy(&output.stderr));
    };
    #[allow(clippy::cast_precision_loss)] // bytes
    let encoded = encoded as f64 / f64::from(1 << 20);
    show("100,000 objects: start to /readyz", millis, "ms", "under 2,000");
    show("100,000 objects: memory, of their encoded size", memory / encoded, "x", "under 4");
    Ok(())
}

/// Starts over a store; says the milliseconds until `/readyz` is ok, and the MiB that it takes.
pub async fn start_over(file: &Path) -> Result<()> {
    let before = resident()?;
    let begun = Instant::now();
    let bench = Bench::start(storage::open(storage::Config::embedded(file.to_owned())).await?).await?;
    let (status, _) = bench.send(Method::GET, "/readyz", String::new()).await?;
    ensure!(status == StatusCode::OK, "/readyz: {status}");
    println!("{} {}", begun.elapsed().as_secs_f64() * 1e3, resident()? - before);
    Ok(())
}
