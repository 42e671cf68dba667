//! What one thing costs when there are many: each figure at 1,000 and at 10,000, in one process, without a disk. The ratio is
//! what counts: 1 is flat, 10 would be a walk over everything.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, ObjectReference, Pod, Service};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use minik::apiserver::{ApiServer, Options, UserInfo};
use minik::client::events::Recorder;
use minik::client::informer::{Cache, Informers};
use minik::pki::Key;
use minik::rt::{SystemClock, Tasks};
use minik::scheduler;
use minik::storage::{self, ListQuery, Payload, Store};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SIZES: [usize; 2] = [1_000, 10_000];
/// What is measured at a size is done so often.
const SAMPLES: usize = 200;
/// How many are sent at once where it is not measured.
const AT_ONCE: usize = 64;

/// Prints what one costs at both sizes.
fn flat(what: &str, costs: [Duration; 2]) {
    let [few, many] = costs.map(|cost| cost.as_secs_f64() * 1e6);
    println!("{what:<44} {few:>9.1} us {many:>9.1} us {:>7.2} x", many / few);
}

fn parse<K: DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}

/// A server in this process.
struct Bench {
    server: ApiServer,
    store: Arc<dyn Store>,
    tasks: Tasks,
    client: Client,
}

impl Bench {
    async fn start() -> Result<Self> {
        let (store, tasks) = (storage::memory(), Tasks::new());
        let options = Options::new(store.clone(), Key::generate()?, tasks.clone());
        let server = ApiServer::build(options).await?;
        let client = server.client(UserInfo::new("admin", &[UserInfo::MASTERS]));
        let bench = Self { server, store, tasks, client };
        bench.namespaces(0..1).await?;
        Ok(bench)
    }

    async fn namespaces(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let names = numbers.map(|n| json!({"metadata": {"name": namespace(n)}}));
        create_all::<Namespace>(&Api::all(self.client.clone()), names).await
    }

    fn api<K>(&self, number: usize) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &namespace(number))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

fn namespace(number: usize) -> String {
    if number == 0 { "default".to_owned() } else { format!("ns-{number}") }
}

async fn create_all<K>(api: &Api<K>, objects: impl Iterator<Item = Value>) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let sent = objects.map(|object| async move {
        let object: K = serde_json::from_value(object)?;
        api.create(&PostParams::default(), &object).await?;
        anyhow::Ok(())
    });
    let sent = futures::stream::iter(sent.map(Ok::<_, anyhow::Error>));
    sent.try_for_each_concurrent(AT_ONCE, |one| one).await
}

pub async fn all() -> Result<()> {
    println!("{:<44} {:>12} {:>12}", "cost of one, of", SIZES[0], SIZES[1]);
    flat("store: entry of a page at an older revision", [older(SIZES[0]).await?, older(SIZES[1]).await?]);
    flat("store: write, watchers of other folders", [watched(SIZES[0]).await?, watched(SIZES[1]).await?]);
    flat("cache: object of one namespace", [cached(SIZES[0])?, cached(SIZES[1])?]);
    flat("API: change of a Service", [services(SIZES[0]).await?, services(SIZES[1]).await?]);
    flat("API: request under RBAC, bindings", [bindings(SIZES[0]).await?, bindings(SIZES[1]).await?]);
    flat("API: OpenAPI document, asked again", [documents(SIZES[0]).await?, documents(SIZES[1]).await?]);
    flat("scheduler: Pod, created to bound", [scheduled(SIZES[0]).await?, scheduled(SIZES[1]).await?]);
    flat("events: note, recorded to written", [recorded(500).await?, recorded(1_000).await?]);
    Ok(())
}

/// One entry of the first page of many, at a revision after which some have changed.
async fn older(count: usize) -> Result<Duration> {
    let store = storage::memory();
    let key = |n: usize| format!("/core/pods/default/{n:06}");
    for n in 0..count {
        store.create(key(n), Payload { data: vec![b'x'; 256].into(), ..Default::default() }).await?;
    }
    let at = store.revision();
    for n in (0..count).step_by(100) {
        let standing = store.get(&key(n)).await?.context("written above")?;
        store.update_if(key(n), standing.revision, Payload::default()).await?;
    }
    let page = ListQuery { prefix: "/core/pods/".into(), at: Some(at), limit: 500, ..Default::default() };
    let begun = Instant::now();
    let mut seen = 0;
    for _ in 0..SAMPLES {
        seen += store.list(page.clone()).await?.entries.len();
    }
    ensure!(seen == 500 * SAMPLES, "pages are full");
    Ok(begun.elapsed() / u32::try_from(seen)?)
}

/// One write to an object that one of many watches, each of a folder of its own.
async fn watched(count: usize) -> Result<Duration> {
    let store = storage::memory();
    let mut watches = Vec::new();
    for n in 0..count {
        watches.push(store.watch(format!("/core/pods/{n}/"), 0)?);
    }
    let tasks = Tasks::new();
    let waiting = Arc::new(AtomicUsize::new(1));
    for mut watch in watches.drain(1..) {
        let waiting = waiting.clone();
        tasks.spawn_until_stop(async move {
            waiting.fetch_add(1, Ordering::Relaxed);
            while watch.next().await.is_ok() {}
        });
    }
    while waiting.load(Ordering::Relaxed) < count {
        tokio::task::yield_now().await;
    }
    let mut own = watches.remove(0);
    let begun = Instant::now();
    for n in 0..SAMPLES {
        store.create(format!("/core/pods/0/{n}"), Payload::default()).await?;
        ensure!(!own.next().await?.events.is_empty(), "the event");
    }
    let cost = begun.elapsed() / u32::try_from(SAMPLES)?;
    tasks.stop().cancel();
    Ok(cost)
}

/// One of the ten objects of a namespace, of many namespaces.
fn cached(count: usize) -> Result<Duration> {
    let cache = Cache::<Pod>::default();
    for n in 0..count {
        let metadata = json!({"name": format!("p{n}"), "namespace": format!("ns-{}", n / 10)});
        cache.apply(parse(json!({"metadata": metadata}))?);
    }
    let begun = Instant::now();
    let mut seen = 0;
    for n in 0..SAMPLES * 10 {
        seen += cache.in_namespace(&format!("ns-{}", n % (count / 10))).len();
    }
    ensure!(seen == SAMPLES * 100, "ten each");
    Ok(begun.elapsed() / u32::try_from(seen)?)
}

/// One change of a Service's labels, and what it does to those who keep its addresses.
async fn services(count: usize) -> Result<Duration> {
    let bench = Bench::start().await?;
    let api = bench.api::<Service>(0);
    let service =
        |n: usize| json!({"metadata": {"name": format!("s{n}")}, "spec": {"ports": [{"port": 80}]}});
    create_all(&api, (0..count).map(service)).await?;
    let begun = Instant::now();
    for n in 0..SAMPLES {
        let patch = json!({"metadata": {"labels": {"changed": n.to_string()}}});
        api.patch(&format!("s{n}"), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(begun.elapsed() / u32::try_from(SAMPLES)?)
}

/// One request of a user whom one of many RoleBindings of the namespace concerns.
async fn bindings(count: usize) -> Result<Duration> {
    let bench = Bench::start().await?;
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    create_all(&bench.api::<Role>(0), std::iter::once(role)).await?;
    let binding = |n: usize| {
        json!({"metadata": {"name": format!("b{n:06}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("u{n}")}]})
    };
    create_all(&bench.api::<RoleBinding>(0), (0..count).map(binding)).await?;
    let user = bench.server.client(UserInfo::new(format!("u{}", count - 1), &[]));
    let pods: Api<Pod> = Api::namespaced(user, "default");
    let begun = Instant::now();
    for _ in 0..SAMPLES {
        ensure!(pods.get_opt("none").await?.is_none(), "it is not there, and may be asked for");
    }
    Ok(begun.elapsed() / u32::try_from(SAMPLES)?)
}

/// One answer of the largest document, which is made once.
async fn documents(count: usize) -> Result<Duration> {
    let bench = Bench::start().await?;
    let ask = || async {
        let request = http::Request::get("/openapi/v3/apis/apps/v1").body(Vec::new())?;
        anyhow::Ok(bench.client.request_text(request).await?.len())
    };
    ask().await?;
    let begun = Instant::now();
    let mut bytes = 0;
    for _ in 0..count / 10 {
        bytes += ask().await?;
    }
    ensure!(bytes > count, "a document");
    Ok(begun.elapsed() / u32::try_from(count / 10)?)
}

/// One Pod of many that come at once, on 50 nodes.
async fn scheduled(count: usize) -> Result<Duration> {
    let bench = Bench::start().await?;
    let nodes: Api<Node> = Api::all(bench.client.clone());
    for n in 0..50 {
        let name = format!("n{n}");
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        nodes.create(&PostParams::default(), &parse(node)?).await?;
        let status = json!({"status": {"allocatable": {"cpu": "100", "memory": "800Gi", "pods": "1000"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    let informers = Informers::new(bench.client.clone(), &bench.tasks);
    scheduler::run(bench.client.clone(), &informers, Arc::new(SystemClock), &bench.tasks);
    let pods = bench.api::<Pod>(0);
    let revision = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = std::pin::pin!(pods.watch(&WatchParams::default(), &revision).await?);
    let pod = |n: usize| {
        json!({"metadata": {"name": format!("p{n}"), "labels": {"app": "x"}}, "spec": {"serviceAccountName": "default",
            "automountServiceAccountToken": false, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "10m"}}}]}})
    };
    // Nobody is here who would take the taint of a new node away: Pods tolerate it.
    let account = json!({"metadata": {"name": "default"}});
    create_all(&bench.api::<k8s_openapi::api::core::v1::ServiceAccount>(0), std::iter::once(account)).await?;
    let begun = Instant::now();
    let bound = async {
        let mut bound = std::collections::HashSet::new();
        while bound.len() < count {
            if let WatchEvent::Modified(pod) = events.try_next().await?.context("an event")?
                && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
            {
                bound.insert(pod.name_any());
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(create_all(&pods, (0..count).map(pod)), bound)?;
    Ok(begun.elapsed() / u32::try_from(count)?)
}

/// One of many notes about different objects that come at once.
async fn recorded(count: usize) -> Result<Duration> {
    let bench = Bench::start().await?;
    let events = bench.api::<Event>(0);
    let mut seen = std::pin::pin!(events.watch(&WatchParams::default(), "0").await?);
    let recorder = Recorder::start(bench.client.clone(), "bench", "", Arc::new(SystemClock), &bench.tasks);
    let begun = Instant::now();
    for n in 0..count {
        let about = ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some("default".to_owned()),
            name: Some(format!("p{n}")),
            ..Default::default()
        };
        recorder.normal(about, "Measured", "as many others");
    }
    let mut written = 0;
    while written < count {
        if let WatchEvent::Added(_) = seen.try_next().await?.context("an event")? {
            written += 1;
        }
    }
    ensure!(bench.store.revision() > 0, "written");
    Ok(begun.elapsed() / u32::try_from(count)?)
}
