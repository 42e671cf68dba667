//! The cgroups above Pods: quality of service, and the Pod itself.

use std::sync::Mutex;

use k8s_openapi::api::core::v1::Pod;

use super::status::is_terminal;
use crate::kubelet::container::{Qos, cpu_shares, qos};
use crate::kubelet::spec;
use client::typed::resources::{CPU, requested};
use sys::cgroups::{self, Limits};

/// The groups around all Pods of a class: when processors are scarce, Burstable Pods together get what they requested,
/// and BestEffort Pods what is left.
#[derive(Debug, Default)]
pub struct Parents {
    written: Mutex<Option<u64>>,
}

impl Parents {
    /// Makes the groups for a node with so many thousandths of a CPU.
    pub fn prepare(cpu_milli: u64) {
        for (group, shares) in [("/kubepods", cpu_shares(cpu_milli)), ("/kubepods/besteffort", cpu_shares(0))]
        {
            weigh(group, shares);
        }
    }

    /// Gives the Burstable Pods what they ask for now.
    pub fn follow<'a>(&self, pods: impl Iterator<Item = &'a Pod>) {
        let shares = burstable(pods);
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *written != Some(shares) {
            *written = Some(shares);
            weigh("/kubepods/burstable", shares);
        }
    }
}

fn weigh(group: &str, shares: u64) {
    if let Err(error) = cgroups::create(group, Limits { cpu_shares: Some(shares), ..Limits::default() }) {
        tracing::warn!(%error, group, "a group of Pods has no weight of its own");
    }
}

fn burstable<'a>(pods: impl Iterator<Item = &'a Pod>) -> u64 {
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase.is_some_and(is_terminal)
    };
    let living = pods.filter(|pod| !ended(pod) && qos(spec(pod)) == Qos::Burstable);
    let milli = living.filter_map(|pod| u64::try_from(*requested(pod).get(CPU)?).ok()).sum();
    cpu_shares(milli)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing;
    use serde_json::json;

    #[test]
    fn burstable_pods_weigh_what_they_request() {
        let pod = |cpu: &str, phase: &str| {
            testing::pod(json!({"metadata": {"name": "a"}, "status": {"phase": phase},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
        };
        let idle = testing::pod(json!({"metadata": {"name": "b"}, "spec": {"containers": [{"name": "c"}]}}));
        let pods = [pod("500m", "Running"), pod("1", "Pending"), pod("4", "Succeeded"), idle];
        assert_eq!(burstable(pods.iter()), 1536);
        assert_eq!(burstable([].iter()), 2);
    }
}
