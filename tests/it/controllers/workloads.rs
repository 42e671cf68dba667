//! The other workloads, each through its whole life.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::EvictParams;

use super::*;

/// A cluster with nodes n1, n2 and so on, in which Pods can be made.
async fn cluster(nodes: usize) -> Cluster {
    let cluster = Cluster::start(Duration::from_secs(3600)).await;
    for number in 1..=nodes {
        cluster.node(&format!("n{number}")).await;
    }
    eventually("the namespace has its account", || async {
        cluster.list::<ServiceAccount>("default").await.iter().any(|account| account.name_any() == "default")
    })
    .await;
    cluster
}

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

impl Cluster {
    async fn create<K>(&self, value: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::Serialize
            + DeserializeOwned,
    {
        self.api::<K>("default").create(&PostParams::default(), &parse(value)).await.expect("created")
    }

    async fn merge<K>(&self, name: &str, value: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let patch = Patch::Strategic(value);
        self.api::<K>("default").patch(name, &PatchParams::default(), &patch).await.expect("patched");
    }

    async fn get<K>(&self, name: &str) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>("default").get(name).await.expect("there")
    }

    async fn pod_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.list::<Pod>("default").await.iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }
}

fn image_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_keeps_its_pods() {
    let cluster = cluster(1).await;
    let spec = json!({"replicas": 2, "selector": {"app": "rc"}, "template": template("rc", "one")});
    cluster.create::<ReplicationController>(json!({"metadata": {"name": "rc"}, "spec": spec})).await;
    let ready = async |count: i32| {
        let status = cluster.get::<ReplicationController>("rc").await.status.unwrap_or_default();
        status.replicas == count && status.available_replicas.unwrap_or(0) == count
    };
    eventually("two replicas", || ready(2)).await;
    // A Pod that loses its labels is released and replaced.
    let released = cluster.pod_names().await.remove(0);
    cluster.merge::<Pod>(&released, json!({"metadata": {"labels": {"app": "free"}}})).await;
    eventually("one is released and another made", || async {
        let pod = cluster.get::<Pod>(&released).await;
        pod.owner_references().is_empty() && cluster.pod_names().await.len() == 3
    })
    .await;
    cluster.merge::<ReplicationController>("rc", json!({"spec": {"replicas": 0}})).await;
    eventually("none is left but the released one", || async {
        cluster.pod_names().await == [released.clone()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_counts_and_evictions_spend() {
    let cluster = cluster(2).await;
    cluster.deploy("default", "web", 3).await;
    cluster.rolled_out("default", "web", 3).await;
    let spec = json!({"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}});
    cluster.create::<PodDisruptionBudget>(json!({"metadata": {"name": "b"}, "spec": spec})).await;
    let counted = async |allowed: i32, healthy: i32| {
        let budget = cluster.get::<PodDisruptionBudget>("b").await;
        let status = budget.status.unwrap_or_default();
        status.disruptions_allowed == Some(allowed)
            && status.current_healthy == Some(healthy)
            && status.observed_generation == budget.metadata.generation
    };
    eventually("nothing may go", || counted(0, 3)).await;
    let pods = cluster.api::<Pod>("default");
    let name = cluster.pod_names().await.remove(0);
    let refused = pods.evict(&name, &EvictParams::default()).await.expect_err("refused");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 429), "{refused}");
    cluster.merge::<PodDisruptionBudget>("b", json!({"spec": {"minAvailable": 2}})).await;
    eventually("one may go", || counted(1, 3)).await;
    pods.evict(&name, &EvictParams::default()).await.expect("evicted");
    eventually("it is gone, and another took its place", || async {
        !cluster.pod_names().await.contains(&name) && counted(1, 3).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_has_a_pod_on_every_node() {
    let cluster = cluster(2).await;
    let spec = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template("d", "one")});
    cluster.create::<DaemonSet>(json!({"metadata": {"name": "d"}, "spec": spec})).await;
    let rolled = async |image: &str, count: i32| {
        let set = cluster.get::<DaemonSet>("d").await;
        let status = set.status.unwrap_or_default();
        let pods = cluster.list::<Pod>("default").await;
        status.observed_generation == set.metadata.generation
            && status.desired_number_scheduled == count
            && status.number_available.unwrap_or(0) == count
            && status.updated_number_scheduled.unwrap_or(0) == count
            && pods.iter().all(|pod| image_of(pod) == image)
    };
    eventually("one on each of two", || rolled("one", 2)).await;
    cluster.node("n3").await;
    eventually("one on the new node", || rolled("one", 3)).await;
    let two = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    cluster.merge::<DaemonSet>("d", two).await;
    eventually("all of the second template", || rolled("two", 3)).await;
    let numbers = async || {
        let mut all: Vec<i64> = cluster
            .list::<ControllerRevision>("default")
            .await
            .iter()
            .map(|revision| revision.revision)
            .collect();
        all.sort_unstable();
        all
    };
    assert_eq!(numbers().await, [1, 2]);
    // What `kubectl rollout undo` does: the first revision's data is the patch.
    let first = cluster.list::<ControllerRevision>("default").await;
    let first = first.into_iter().find(|revision| revision.revision == 1).and_then(|revision| revision.data);
    cluster.merge::<DaemonSet>("d", first.expect("data").0).await;
    eventually("all of the first template again", || rolled("one", 3)).await;
    assert_eq!(numbers().await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_fail_and_are_cleaned_away() {
    let cluster = cluster(1).await;
    let job = |name: &str, image: &str, rest: Value| {
        let mut spec = json!({"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": image}]}}});
        json_patch::merge(&mut spec, &rest);
        json!({"metadata": {"name": name}, "spec": spec})
    };
    cluster.create::<Job>(job("good", "succeeds", json!({"completions": 5, "parallelism": 2}))).await;
    cluster.create::<Job>(job("bad", "fails", json!({"backoffLimit": 0}))).await;
    let indexed = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    cluster.create::<Job>(job("indexed", "succeeds", indexed)).await;
    cluster.create::<Job>(job("brief", "succeeds", json!({"ttlSecondsAfterFinished": 0}))).await;
    let ended = async |name: &str, kind: &str| {
        let status = cluster.get::<Job>(name).await.status.unwrap_or_default();
        status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
    eventually("the good one completes", || ended("good", "Complete")).await;
    eventually("the indexed one completes", || ended("indexed", "Complete")).await;
    eventually("the bad one fails", || ended("bad", "Failed")).await;
    let status = cluster.get::<Job>("good").await.status.unwrap_or_default();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(5), None, None));
    assert!(status.completion_time.is_some());
    let status = cluster.get::<Job>("indexed").await.status.unwrap_or_default();
    assert_eq!(status.completed_indexes.as_deref(), Some("0-2"));
    let status = cluster.get::<Job>("bad").await.status.unwrap_or_default();
    assert_eq!(status.failed, Some(1));
    // The brief one may be on its way still.
    eventually("no Pod is held", || async {
        cluster.list::<Pod>("default").await.iter().all(|pod| pod.finalizers().is_empty())
    })
    .await;
    eventually("the brief one is gone", || async {
        cluster.api::<Job>("default").get_opt("brief").await.expect("an answer").is_none()
    })
    .await;
    // A Job that is deleted while it runs lets its Pods go.
    cluster.create::<Job>(job("running", "one", json!({"parallelism": 2}))).await;
    let of = async |name: &str| {
        let pods = cluster.list::<Pod>("default").await;
        pods.iter().filter(|pod| pod.labels().get("job-name").is_some_and(|job| job == name)).count()
    };
    eventually("two run", || async { of("running").await == 2 }).await;
    cluster.api::<Job>("default").delete("running", &DeleteParams::background()).await.expect("deleted");
    eventually("its Pods are gone", || async { of("running").await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_its_job_and_its_labels_is_let_go() {
    let cluster = cluster(1).await;
    cluster
        .create::<Pod>(
            json!({"metadata": {"name": "lost", "finalizers": ["batch.kubernetes.io/job-tracking"]},
            "spec": {"containers": [{"name": "c", "image": "one"}]}}),
        )
        .await;
    eventually("nobody holds it", || async {
        cluster.list::<Pod>("default").await.iter().all(|pod| pod.finalizers().is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_makes_jobs() {
    let cluster = cluster(1).await;
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "succeeds"}]}}}});
    let spec = json!({"schedule": "@every 1s", "jobTemplate": template});
    cluster.create::<CronJob>(json!({"metadata": {"name": "cron"}, "spec": spec})).await;
    eventually("a Job of it has succeeded, and it knows", || async {
        let status = cluster.get::<CronJob>("cron").await.status.unwrap_or_default();
        let jobs = cluster.list::<Job>("default").await;
        let done =
            jobs.iter().any(|job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1)));
        done && status.last_schedule_time.is_some() && status.last_successful_time.is_some()
    })
    .await;
    let job = cluster.list::<Job>("default").await.remove(0);
    assert!(job.annotations().contains_key("batch.kubernetes.io/cronjob-scheduled-timestamp"));
    cluster.merge::<CronJob>("cron", json!({"spec": {"suspend": true}})).await;
    cluster.api::<CronJob>("default").delete("cron", &DeleteParams::foreground()).await.expect("deleted");
    eventually("everything went with it", || async {
        cluster.list::<Job>("default").await.is_empty() && cluster.pod_names().await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_keeps_names_claims_and_order() {
    let cluster = cluster(1).await;
    let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(cluster.client.clone());
    // Nobody makes volumes of this class: the Pods are placed, and the claims wait.
    let class = json!({"metadata": {"name": "none"}, "provisioner": "example.com/none",
        "volumeBindingMode": "WaitForFirstConsumer"});
    classes.create(&PostParams::default(), &parse(class)).await.expect("a class");
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "resources": {"requests": {"storage": "1Mi"}}}});
    let spec = json!({"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": template("web", "one"), "volumeClaimTemplates": [claim],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}});
    cluster.create::<StatefulSet>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    eventually("three claims, as the Pods come one by one", || async {
        cluster.list::<PersistentVolumeClaim>("default").await.len() == 3
    })
    .await;
    let rolled = async |replicas: i32, updated: i32| {
        let set = cluster.get::<StatefulSet>("web").await;
        let status = set.status.unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && status.replicas == replicas
            && status.ready_replicas.unwrap_or(0) == replicas
            && status.updated_replicas.unwrap_or(0) == updated
    };
    eventually("three in order", || rolled(3, 3)).await;
    assert_eq!(cluster.pod_names().await, ["web-0", "web-1", "web-2"]);
    let born = |pod: &Pod| pod.metadata.creation_timestamp.clone();
    let pods = [cluster.get::<Pod>("web-0").await, cluster.get::<Pod>("web-2").await];
    assert!(born(&pods[0]) <= born(&pods[1]));

    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}},
        "template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    cluster.merge::<StatefulSet>("web", partition).await;
    eventually("only the last is of the second template", || rolled(3, 1)).await;
    assert_eq!(image_of(&cluster.get::<Pod>("web-2").await), "two");
    assert_eq!(image_of(&cluster.get::<Pod>("web-1").await), "one");
    let whole = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    cluster.merge::<StatefulSet>("web", whole).await;
    eventually("all are", || rolled(3, 3)).await;

    cluster.merge::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    eventually("one is left, and the claims of the others went with their Pods", || async {
        let claims = cluster.list::<PersistentVolumeClaim>("default").await;
        rolled(1, 1).await && claims.len() == 1 && claims[0].name_any() == "data-web-0"
    })
    .await;
    cluster.api::<StatefulSet>("default").delete("web", &DeleteParams::background()).await.expect("deleted");
    eventually("no Pod is left", || async { cluster.pod_names().await.is_empty() }).await;
    assert_eq!(cluster.list::<PersistentVolumeClaim>("default").await.len(), 1, "its claim is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_s_volume_is_attached_where_its_pod_is_and_let_go_when_it_is_unmounted() {
    let cluster = cluster(1).await;
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "default", "name": "data"},
        "csi": {"driver": "d.example.com", "volumeHandle": "h"}}});
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    volumes.create(&PostParams::default(), &parse(volume)).await.expect("a volume");
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "pv",
        "resources": {"requests": {"storage": "1Gi"}}});
    cluster.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "data"}, "spec": spec})).await;
    let spec = json!({"containers": [{"name": "c", "image": "one"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    cluster.create::<Pod>(json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let attachments: Api<VolumeAttachment> = Api::all(cluster.client.clone());
    let all = || async { attachments.list(&ListParams::default()).await.expect("a list").items };
    eventually("the volume is to be attached", || async {
        let specs: Vec<_> = all().await.into_iter().map(|attachment| attachment.spec).collect();
        specs.iter().any(|spec| spec.attacher == "d.example.com" && spec.node_name == "n1")
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let used = |volumes: Value| Patch::Merge(json!({"status": {"volumesInUse": volumes}}));
    let params = PatchParams::default();
    let mounted = used(json!(["kubernetes.io/csi/d.example.com^h"]));
    nodes.patch_status("n1", &params, &mounted).await.expect("in use");
    cluster
        .api::<Pod>("default")
        .delete("p", &DeleteParams::default().grace_period(0))
        .await
        .expect("deleted");
    eventually("the Pod is gone", || async { cluster.pod_names().await.is_empty() }).await;
    assert_eq!(all().await.len(), 1, "the node has it mounted");
    nodes.patch_status("n1", &params, &used(json!([]))).await.expect("unmounted");
    eventually("it is let go", || async { all().await.is_empty() }).await;
}
