//! The kinds that keep a number of Pods of one template.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

use client::informer::Object;

/// A kind that keeps a number of Pods of one template, as ReplicaSets do.
pub(super) trait Replicas:
    Object + kube::Resource<Scope = NamespaceResourceScope> + Serialize
{
    /// Returns the object as a ReplicaSet, for the plan that all such kinds share.
    fn as_replica_set(&self) -> Cow<'_, ReplicaSet>;

    /// Returns the object with this status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicas for ReplicaSet {
    fn as_replica_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicas for ReplicationController {
    fn as_replica_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.as_ref().map(|spec| ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: LabelSelector { match_labels: spec.selector.clone(), match_expressions: None },
            template: spec.template.clone(),
        });
        let status = self.status.as_ref().map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions: status.conditions.as_ref().map(|all| all.iter().map(from_condition).collect()),
        });
        Cow::Owned(ReplicaSet { metadata: self.metadata.clone(), spec, status })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|all| all.into_iter().map(into_condition).collect()),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

fn from_condition(condition: &ReplicationControllerCondition) -> ReplicaSetCondition {
    let ReplicationControllerCondition { type_, status, reason, message, last_transition_time } =
        condition.clone();
    ReplicaSetCondition { type_, status, reason, message, last_transition_time }
}

fn into_condition(condition: ReplicaSetCondition) -> ReplicationControllerCondition {
    let ReplicaSetCondition { type_, status, reason, message, last_transition_time } = condition;
    ReplicationControllerCondition { type_, status, reason, message, last_transition_time }
}
