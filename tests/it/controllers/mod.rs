//! Controllers and scheduler against the API server, in one process, with nodes that only pretend.

mod definitions;
mod quota;
mod roles;
mod workloads;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use minik::apiserver::UserInfo;
use minik::client::informer::{Informers, Key};
use minik::client::queue::Queue;
use minik::rt::{SystemClock, Tasks};
use minik::scheduler;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::TestApi;

const LONG: Duration = Duration::from_secs(20);

struct Cluster {
    client: Client,
    /// Its tasks end with it.
    server: TestApi,
}

impl Cluster {
    async fn start(grace: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let server = TestApi::start(dir.path()).await;
        let tasks = server.tasks.clone();
        let informers = server.run_controllers(grace);
        let scheduler = server.api.client(UserInfo::new("system:kube-scheduler", &["system:authenticated"]));
        scheduler::run(scheduler, &informers, Arc::new(SystemClock), &tasks);
        let client = server.api.client(UserInfo::api_server());
        pretend_kubelet(&client, &tasks);
        Self { client, server }
    }

    async fn node(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        nodes.create(&PostParams::default(), &parse(node)).await.expect("a node");
        let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    }

    /// Lets a node report, as its kubelet does, until the task is aborted.
    fn beat(&self, name: &'static str) -> tokio::task::JoinHandle<Option<()>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        self.server.tasks.spawn_until_stop(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            loop {
                ticks.tick().await;
                let now = jiff::Timestamp::now().to_string();
                let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
                    "reason": "KubeletReady", "lastHeartbeatTime": now}]}});
                let _ = nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await;
            }
        })
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>(namespace).list(&ListParams::default()).await.expect("a list").items
    }

    async fn deploy(&self, namespace: &str, name: &str, replicas: i32) {
        let deployment = json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "one", "ports": [{"containerPort": 8080}]}]}}}});
        self.api::<Deployment>(namespace)
            .create(&PostParams::default(), &parse(deployment))
            .await
            .expect("a deployment");
    }

    async fn patch(&self, namespace: &str, name: &str, patch: Value) {
        let params = PatchParams::default();
        self.api::<Deployment>(namespace)
            .patch(name, &params, &Patch::Strategic(patch))
            .await
            .expect("a patch");
    }

    /// Waits for a rollout as `kubectl rollout status` does.
    async fn rolled_out(&self, namespace: &str, name: &str, replicas: i32) {
        eventually(&format!("{name} rolled out to {replicas}"), || async {
            let deployment = self.api::<Deployment>(namespace).get(name).await.expect("there");
            let status = deployment.status.unwrap_or_default();
            let generation = deployment.metadata.generation;
            assert!(generation.is_some(), "Deployments count generations");
            let current = status.observed_generation == generation;
            let all = [status.replicas, status.updated_replicas, status.available_replicas];
            current && all.iter().all(|count| count.unwrap_or(0) == replicas)
        })
        .await;
    }
}

fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LONG, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes bound Pods run and deleted ones end, as kubelets do.
fn pretend_kubelet(client: &Client, tasks: &Tasks) {
    let (client, queue) = (client.clone(), Queue::<Key>::default());
    let pods = Informers::new(client.clone(), tasks).cache::<Pod>();
    let changed = queue.clone();
    pods.on_change(move |change| {
        if let Some(pod) = change.new {
            changed.add(Key::of(&pod.metadata));
        }
    });
    tasks.spawn_until_stop(async move {
        let mut last = 1;
        loop {
            let key = queue.next().await;
            queue.done(&key);
            let Some(pod) = pods.get(&key) else { continue };
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let running = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
            let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
            if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                let _ = api.delete(&key.name, &now).await;
            } else if bound && !running {
                last += 1;
                let address = format!("10.42.{}.{}", last / 250, last % 250);
                let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
                let status = json!({ "status": pretended(image.as_deref().unwrap_or_default(), &address) });
                let _ = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(status)).await;
            }
        }
    });
}

/// The status of a Pod that has been started: the images `succeeds` and `fails` end at once.
fn pretended(image: &str, address: &str) -> Value {
    let now = jiff::Timestamp::now().to_string();
    let ended = |phase: &str, code: i32| {
        json!({"phase": phase, "podIP": address, "containerStatuses": [{"name": "c", "image": image, "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": now}}}]})
    };
    match image {
        "succeeds" => ended("Succeeded", 0),
        "fails" => ended("Failed", 1),
        _ => json!({"phase": "Running", "podIP": address,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_lives_its_whole_life() {
    let cluster = Cluster::start(Duration::from_secs(3600)).await;
    for name in ["n1", "n2", "n3"] {
        cluster.node(name).await;
    }
    eventually("nodes have Pod ranges and no taints", || async {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let nodes = nodes.list(&ListParams::default()).await.expect("nodes").items;
        nodes.iter().all(|node| {
            let spec = node.spec.clone().unwrap_or_default();
            spec.pod_cidr.is_some() && spec.taints.unwrap_or_default().is_empty()
        })
    })
    .await;
    eventually("the namespace has its first objects", || async {
        let accounts = cluster.list::<ServiceAccount>("default").await;
        let maps = cluster.list::<ConfigMap>("default").await;
        accounts.iter().any(|a| a.name_any() == "default")
            && maps.iter().any(|m| m.name_any() == "kube-root-ca.crt")
    })
    .await;

    let start = Instant::now();
    cluster.deploy("default", "web", 3).await;
    cluster.rolled_out("default", "web", 3).await;
    println!("three replicas available after {:?}", start.elapsed());
    let pods = cluster.list::<Pod>("default").await;
    assert_eq!(pods.len(), 3);
    let mut nodes: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2", "n3"], "replicas spread over nodes");

    services(&cluster).await;
    ingresses(&cluster).await;

    cluster.patch("default", "web", json!({"spec": {"replicas": 5}})).await;
    cluster.rolled_out("default", "web", 5).await;
    cluster.patch("default", "web", image("two")).await;
    cluster.rolled_out("default", "web", 5).await;
    let sets = cluster.list::<ReplicaSet>("default").await;
    assert_eq!(sets.len(), 2, "{:#?}", cluster.list::<Deployment>("default").await);
    let revision =
        |deployment: &Deployment| deployment.annotations()["deployment.kubernetes.io/revision"].clone();
    let deployment = cluster.api::<Deployment>("default").get("web").await.expect("there");
    assert_eq!(revision(&deployment), "2");
    cluster.patch("default", "web", image("one")).await;
    cluster.rolled_out("default", "web", 5).await;
    eventually("five pods of the first template", || async {
        let pods = cluster.list::<Pod>("default").await;
        let one =
            |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some("one"));
        pods.len() == 5 && pods.iter().all(one)
    })
    .await;
    let deployment = cluster.api::<Deployment>("default").get("web").await.expect("there");
    assert_eq!(revision(&deployment), "3");
    eventually("events tell the story", || async {
        let events = cluster.list::<Event>("default").await;
        ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "EnsuredLoadBalancer"]
            .iter()
            .all(|reason| events.iter().any(|event| event.reason.as_deref() == Some(reason)))
    })
    .await;

    let victim = cluster.list::<Pod>("default").await.remove(0).name_any();
    cluster.api::<Pod>("default").delete(&victim, &DeleteParams::default()).await.expect("deleted");
    eventually("a deleted Pod is replaced", || async {
        let pods = cluster.list::<Pod>("default").await;
        pods.len() == 5 && pods.iter().all(|pod| pod.name_any() != victim)
    })
    .await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::background()).await.expect("deleted");
    eventually("everything the Deployment owned is gone", || async {
        cluster.list::<ReplicaSet>("default").await.is_empty()
            && cluster.list::<Pod>("default").await.is_empty()
    })
    .await;
}

fn image(name: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}})
}

async fn services(cluster: &Cluster) {
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}]}});
    let services = cluster.api::<Service>("default");
    services.create(&PostParams::default(), &parse(service)).await.expect("a service");
    let ready = || async {
        let slices = cluster.list::<EndpointSlice>("default").await;
        let mine = slices
            .iter()
            .filter(|s| s.labels().get("kubernetes.io/service-name").is_some_and(|n| n == "web"));
        let endpoints = mine.flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    };
    eventually("three endpoints", || async { ready().await == 3 }).await;
    eventually("an external address", || async {
        let service = services.get("web").await.expect("there");
        let by = service.annotations().get("minik.dev/announced-by").cloned();
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|lb| lb.ingress);
        ingress.is_some_and(|all| all[0].ip.as_deref() == Some("172.20.1.1")) && by.is_some()
    })
    .await;
    let pods = cluster.api::<Pod>("default");
    let name = cluster.list::<Pod>("default").await[0].name_any();
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(not_ready)).await.expect("a status");
    eventually("endpoints follow readiness", || async { ready().await == 2 }).await;
    let again = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(again)).await.expect("a status");
    eventually("and come back", || async { ready().await == 3 }).await;
}

/// An Ingress has an address once it leads somewhere; until then its status is left to whoever writes it.
async fn ingresses(cluster: &Cluster) {
    let ingresses = cluster.api::<Ingress>("default");
    let create = async |name: &str, service: &str| {
        let ingress = json!({"metadata": {"name": name}, "spec": {"ingressClassName": "minik",
            "defaultBackend": {"service": {"name": service, "port": {"number": 80}}}}});
        ingresses.create(&PostParams::default(), &parse(ingress)).await.expect("an Ingress")
    };
    let address = async |name: &str| {
        let status = ingresses.get(name).await.expect("there").status;
        let all =
            status.and_then(|status| status.load_balancer).and_then(|lb| lb.ingress).unwrap_or_default();
        all.first().and_then(|entry| entry.ip.clone())
    };
    let early = create("early", "late").await;
    create("web", "web").await;
    let served = async |name| address(name).await.as_deref() == Some("172.20.1.2");
    eventually("an address for what leads to a Service", || served("web")).await;
    let seen = ingresses.get("early").await.expect("there");
    assert_eq!(seen.resource_version(), early.resource_version(), "nobody wrote what leads nowhere");
    let service = json!({"metadata": {"name": "late"}, "spec": {"ports": [{"port": 80}]}});
    let services = cluster.api::<Service>("default");
    services.create(&PostParams::default(), &parse(service)).await.expect("a service");
    eventually("an address once the Service is there", || served("early")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_in_the_foreground_orphans_and_whole_namespaces() {
    let cluster = Cluster::start(Duration::from_secs(3600)).await;
    cluster.node("n1").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = json!({"metadata": {"name": "shop"}});
    namespaces.create(&PostParams::default(), &parse(namespace)).await.expect("a namespace");
    for name in ["front", "keep", "rest"] {
        cluster.deploy("shop", name, 2).await;
    }
    for name in ["front", "keep", "rest"] {
        cluster.rolled_out("shop", name, 2).await;
    }
    let deployments = cluster.api::<Deployment>("shop");
    deployments.delete("front", &DeleteParams::foreground()).await.expect("deleted");
    eventually("front is gone with all it had", || async {
        let pods = cluster.list::<Pod>("shop").await;
        deployments.get_opt("front").await.expect("an answer").is_none()
            && pods.iter().all(|pod| pod.labels()["app"] != "front")
    })
    .await;
    deployments.delete("keep", &DeleteParams::orphan()).await.expect("deleted");
    eventually("keep is gone", || async { deployments.get_opt("keep").await.expect("an answer").is_none() })
        .await;
    let sets = cluster.list::<ReplicaSet>("shop").await;
    let kept = sets.iter().find(|set| set.labels()["app"] == "keep").expect("its ReplicaSet stays");
    assert!(kept.owner_references().is_empty());
    let start = Instant::now();
    namespaces.delete("shop", &DeleteParams::default()).await.expect("deleted");
    eventually("the namespace is gone", || async {
        namespaces.get_opt("shop").await.expect("an answer").is_none()
    })
    .await;
    println!("namespace gone after {:?}", start.elapsed());
    assert!(cluster.list::<Pod>("shop").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_loses_its_pods() {
    let cluster = Cluster::start(Duration::from_secs(3)).await;
    cluster.node("n1").await;
    // Another node goes on answering: when none does, nobody's Pods are touched.
    cluster.node("n2").await;
    let beats = cluster.beat("n2");
    // It falls silent once it has the Pod, however long that takes.
    let first_beats = cluster.beat("n1");
    let here = json!({"kubernetes.io/hostname": "n1"});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": here, "containers": [{"name": "c", "image": "i"}],
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 1}]}});
    let pods = cluster.api::<Pod>("default");
    eventually("a Pod can be created", || async {
        pods.create(&PostParams::default(), &parse(pod.clone())).await.is_ok()
    })
    .await;
    eventually("it is bound", || async {
        pods.get("p").await.expect("there").spec.is_some_and(|spec| spec.node_name.is_some())
    })
    .await;
    first_beats.abort();
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually("the node is unreachable", || async {
        let node = nodes.get("n1").await.expect("there");
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        taints
            .iter()
            .any(|taint| taint.key == "node.kubernetes.io/unreachable" && taint.effect == "NoExecute")
    })
    .await;
    eventually("its Pod is evicted", || async { pods.get_opt("p").await.expect("an answer").is_none() })
        .await;
    beats.abort();
    nodes.delete("n2", &DeleteParams::default()).await.expect("deleted");
    let waits = json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &parse(waits)).await.expect("a pod");
    eventually("the next Pod says why it waits", || async {
        let pod = pods.get("q").await.expect("there");
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        let text =
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }";
        conditions.iter().any(|c| c.message.as_deref().is_some_and(|message| message.starts_with(text)))
    })
    .await;
}
