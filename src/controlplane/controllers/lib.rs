//! One file per controller, and the list of all of them.
//!
//! Every controller is a pure function from what it observes to what is to be done, and a reconciler that does it:
//! `change -> key in a queue -> plan(observed) -> operations`. A reconciler only ever gets keys, so a restart and the
//! steady state are one path; the [`harness`] runs it.

mod autoscaler;
mod bootstrap_tokens;
mod certificates;
mod claim;
mod cluster_role_aggregation;
mod context;
mod cron_job;
mod custom_resources;
mod daemon_set;
mod deployment;
mod discovered;
mod disruption;
mod endpoint_mirror;
mod endpoint_slice;
mod endpoints;
mod expectations;
mod flow_control;
mod garbage;
mod gateway;
mod harness;
mod hash;
mod heartbeat;
mod history;
mod indexes;
mod ingress;
mod job;
mod load_balancer;
mod managed_slices;
mod metrics;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_zones;
mod pod_control;
mod pod_gc;
mod rank;
mod replica_set;
mod resource_quota;
mod root_ca;
mod service_account;
mod service_pods;
mod stateful_set;
mod system_namespaces;
mod taint_eviction;
mod token_secrets;
mod ttl_after_finished;
mod volume;
mod writes;

use std::sync::Arc;

pub use context::{Context, Error, Settings};
use kube::Client;
pub use metrics::Metrics;

use client::informer::Informers;
use rt::Tasks;

/// A control loop: its name, as logs and Events say it, and how it starts.
pub struct Controller {
    pub name: &'static str,
    start: fn(&Context),
}

/// Every controller, by name.
pub const ALL: &[Controller] = &[
    Controller { name: "certificate-controller", start: certificates::start },
    Controller { name: "clusterrole-aggregation-controller", start: cluster_role_aggregation::start },
    Controller { name: "cronjob-controller", start: cron_job::start },
    Controller { name: "customresourcedefinition-controller", start: custom_resources::start },
    Controller { name: "daemonset-controller", start: daemon_set::start },
    Controller { name: "deployment-controller", start: deployment::start },
    Controller { name: "disruption-controller", start: disruption::start },
    Controller { name: "endpoint-controller", start: endpoints::start },
    Controller { name: "endpoint-slice-controller", start: endpoint_slice::start },
    Controller { name: "endpoint-slice-mirroring-controller", start: endpoint_mirror::start },
    Controller { name: "ephemeral-volume-controller", start: volume::start_ephemeral },
    Controller { name: "flow-control-controller", start: flow_control::start },
    Controller { name: "garbage-collector-controller", start: garbage::start },
    Controller { name: "gateway-controller", start: gateway::start },
    Controller { name: "horizontal-pod-autoscaler-controller", start: autoscaler::start },
    Controller { name: "ingress-controller", start: ingress::start },
    Controller { name: "job-controller", start: job::start },
    Controller { name: "namespace-controller", start: namespace::start },
    Controller { name: "node-controller", start: node_lifecycle::start },
    Controller { name: "node-ipam-controller", start: node_ipam::start },
    Controller { name: "persistentvolume-attach-detach-controller", start: volume::start_attach },
    Controller { name: "persistentvolume-binder-controller", start: volume::start },
    Controller { name: "pod-garbage-collector-controller", start: pod_gc::start },
    Controller { name: "replicaset-controller", start: replica_set::start },
    Controller { name: "replicationcontroller-controller", start: replica_set::start_replication },
    Controller { name: "resourcequota-controller", start: resource_quota::start },
    Controller { name: "root-ca-publisher", start: root_ca::start },
    Controller { name: "service-account-controller", start: service_account::start },
    Controller { name: "service-controller", start: load_balancer::start },
    Controller { name: "serviceaccount-token-controller", start: token_secrets::start },
    Controller { name: "statefulset-controller", start: stateful_set::start },
    Controller { name: "system-namespaces-controller", start: system_namespaces::start },
    Controller { name: "taint-eviction-controller", start: taint_eviction::start },
    Controller { name: "token-cleaner-controller", start: bootstrap_tokens::start },
    Controller { name: "ttl-after-finished-controller", start: ttl_after_finished::start },
];

/// Starts every controller. They read through `informers`, which may be shared with the scheduler,
/// write through `client`, and end when `tasks` stop. Returns what counts their work.
pub fn run(client: Client, informers: &Informers, settings: Settings, tasks: &Tasks) -> Metrics {
    let context = Context::new(client, informers.clone(), Arc::new(settings), tasks.clone());
    let without = context.settings.without.clone();
    for controller in ALL.iter().filter(|controller| !without.contains(&controller.name)) {
        (controller.start)(&context.named(controller.name));
    }
    context.metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_stand_by_name_once() {
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
