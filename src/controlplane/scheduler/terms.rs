//! Which Pods a Pod-affinity term means.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::PodAffinityTerm;

use super::snapshot::PodInfo;
use client::typed::{Labels, selects};

/// Whether a Pod-affinity term of a Pod in `namespace` means `pod`.
pub(super) fn pod_term(
    term: &PodAffinityTerm,
    namespace: &str,
    pod: &PodInfo,
    namespaces: &HashMap<String, Labels>,
) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let there = pod.namespace();
    let by_selector =
        term.namespace_selector.as_ref().is_some_and(|selector| selects(selector, namespaces.get(there)));
    let own = listed.is_empty() && term.namespace_selector.is_none() && there == namespace;
    let in_scope = own || by_selector || listed.iter().any(|name| name == there);
    // A term without a selector means no Pod.
    in_scope && term.label_selector.as_ref().is_some_and(|selector| selects(selector, pod.labels()))
}
