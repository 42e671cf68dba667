//! Tests of the Deployments' plan over a small made-up cluster.

use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use serde_json::{Value, from_value, json};

use super::*;

/// A small cluster: a Deployment, its ReplicaSets, and Pods that become available at once.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    check: Option<SignedDuration>,
    works: bool,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut all = json!({"replicas": 3, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}});
        json_patch::merge(&mut all, &spec);
        let deployment = from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1}, "spec": all}))
        .unwrap();
        Self {
            deployment,
            sets: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            check: None,
            works: true,
        }
    }

    fn change(&mut self, spec: Value) {
        let mut value = serde_json::to_value(&self.deployment).unwrap();
        json_patch::merge(&mut value, &json!({"spec": spec}));
        self.deployment = from_value(value).unwrap();
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn step(&mut self) -> bool {
        let running = |uid: &str| {
            self.sets.iter().any(|set| {
                set.uid().as_deref() == Some(uid)
                    && ReplicaSet::clone(set).status.unwrap_or_default().replicas > 0
            })
        };
        let ops = plan(Observed {
            deployment: &self.deployment,
            sets: self.sets.clone(),
            pods_running: &running,
            now: self.now,
        });
        let mut changed = false;
        self.now += SignedDuration::from_secs(1);
        for op in ops {
            changed |= !matches!(op, Op::RequeueAfter(_));
            self.apply(op);
        }
        changed
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Create(mut set) => {
                assert!(self.sets.iter().all(|other| other.name_any() != set.name_any()), "a taken name");
                set.metadata.uid = Some(format!("uid-{}", set.name_any()));
                set.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
                self.sets.push(*set);
            }
            Op::Scale { set, .. } | Op::Update(set) => {
                let at = self.sets.iter().position(|s| s.metadata.uid == set.metadata.uid).unwrap();
                self.sets[at] = *set;
            }
            Op::Delete { name, .. } => self.sets.retain(|set| set.name_any() != name),
            Op::Revision(number) => {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(revision::REVISION.to_owned(), number);
            }
            Op::Status(status) => self.deployment.status = Some(*status),
            Op::RequeueAfter(delay) => self.check = Some(delay),
        }
    }

    /// The ReplicaSet controller and the kubelet, in one. Returns whether anything changed.
    fn pods_follow(&mut self) -> bool {
        let mut changed = false;
        for set in &mut self.sets {
            let size = replicas(set);
            let works = self.works || available(set) >= size;
            let status = ReplicaSetStatus {
                replicas: size,
                ready_replicas: Some(if works { size } else { 0 }),
                available_replicas: Some(if works { size } else { available(set).min(size) }),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            };
            changed |= set.status.as_ref() != Some(&status);
            set.status = Some(status);
        }
        changed
    }

    /// Runs to rest; after every step the bounds must hold.
    fn settle(&mut self, check: impl Fn(&Self)) {
        for _ in 0..100 {
            let stepped = self.step();
            check(self);
            let followed = self.pods_follow();
            check(self);
            if !stepped && !followed {
                return;
            }
        }
        panic!("no rest: {:?} {:#?}", self.sizes(), self.deployment.status);
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(replicas).collect()
    }

    fn progress(&self) -> (String, String) {
        let status = self.deployment.status.as_ref().unwrap();
        let condition = status::find(status, status::PROGRESSING).unwrap();
        (condition.status.clone(), condition.reason.clone().unwrap())
    }

    fn revision(&self) -> &str {
        &self.deployment.annotations()[revision::REVISION]
    }
}

fn image(name: &str) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "c", "image": name}]}}})
}

#[test]
fn a_rollout_keeps_its_bounds_and_completes() {
    let mut world = World::new(json!({"replicas": 10}));
    world.settle(|_| {});
    assert_eq!(world.sizes(), [10]);
    assert_eq!(world.progress(), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    assert_eq!(world.revision(), "1");
    world.change(image("two"));
    world.settle(|world| {
        let total: i32 = world.sizes().iter().sum();
        let up: i32 = world.sets.iter().map(|set| available(set).min(replicas(set))).sum();
        assert!(total <= 13, "{:?}", world.sizes());
        assert!(up >= 8, "{:?}", world.sizes());
    });
    assert_eq!(world.sizes(), [0, 10]);
    assert_eq!(world.revision(), "2");
    let status = world.deployment.status.clone().unwrap();
    assert_eq!(status.updated_replicas, Some(10));
    assert_eq!(status.observed_generation, Some(2));
    world.change(image("one"));
    world.settle(|_| {});
    assert_eq!((world.sizes(), world.revision()), (vec![10, 0], "3"), "undo reuses the old set");
}

#[test]
fn a_scale_keeps_the_revision() {
    let mut world = World::new(json!({}));
    world.settle(|_| {});
    world.change(json!({"replicas": 5}));
    world.settle(|_| {});
    assert_eq!((world.sizes(), world.revision()), (vec![5], "1"));
    world.change(json!({"replicas": 0}));
    world.settle(|_| {});
    assert_eq!(world.sizes(), [0]);
    world.change(json!({"replicas": 2}));
    world.settle(|_| {});
    assert_eq!(world.sizes(), [2]);
}

#[test]
fn recreate_ends_the_old_before_the_new() {
    let mut world = World::new(json!({"strategy": {"type": "Recreate"}}));
    world.settle(|_| {});
    world.change(image("two"));
    world.settle(|world| assert!(world.sizes().iter().filter(|size| **size > 0).count() <= 1));
    assert_eq!(world.sizes(), [0, 3]);
    assert_eq!(world.progress().1, "NewReplicaSetAvailable");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(json!({}));
    world.settle(|_| {});
    world.change(json!({"paused": true}));
    world.change(image("two"));
    world.change(json!({"replicas": 4}));
    world.settle(|_| {});
    assert_eq!((world.sizes(), world.progress().1), (vec![4], "DeploymentPaused".to_owned()));
    world.change(json!({"paused": false}));
    world.settle(|_| {});
    assert_eq!((world.sizes(), world.progress().1), (vec![0, 4], "NewReplicaSetAvailable".to_owned()));
}

#[test]
fn history_is_limited() {
    let mut world = World::new(json!({}));
    for name in ["one", "two", "three", "four", "five"] {
        world.change(image(name));
        world.settle(|_| {});
    }
    assert_eq!(world.sizes(), [0, 0, 3]);
    assert_eq!(world.revision(), "5");
}

#[test]
fn a_stuck_rollout_passes_its_deadline() {
    let mut world = World::new(json!({}));
    world.settle(|_| {});
    world.works = false;
    world.change(image("broken"));
    world.settle(|_| {});
    assert_eq!(world.sizes(), [3, 1]);
    assert_eq!(world.progress().1, "ReplicaSetUpdated");
    let delay = world.check.expect("a time to look again");
    world.now += delay;
    world.settle(|_| {});
    assert_eq!(world.progress(), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
    world.change(image("one"));
    world.settle(|_| {});
    assert_eq!(world.sizes(), [3, 0]);
    assert_eq!(world.progress().1, "NewReplicaSetAvailable");
}
