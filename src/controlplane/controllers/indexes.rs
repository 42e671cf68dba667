//! The indexes several controllers share.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::context::Context;
use client::informer::{Cache, Object};
use client::typed::controller_of;

const BY_OWNER: &str = "owner";
const BY_NODE: &str = "node";

fn controller_uid(meta: &ObjectMeta) -> Vec<String> {
    controller_of(meta).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// Pods, found by controller, node and namespace.
pub(super) fn pods(context: &Context) -> Cache<Pod> {
    let pods = by_owner::<Pod>(context);
    pods.index(BY_NODE, |pod| {
        pod.spec.iter().filter_map(|spec| spec.node_name.clone()).filter(|name| !name.is_empty()).collect()
    });
    pods
}

/// Objects of a kind, found by controller.
pub(super) fn by_owner<K: Object>(context: &Context) -> Cache<K> {
    let cache = context.cache::<K>();
    cache.index(BY_OWNER, |object| controller_uid(object.meta()));
    cache
}

/// What the owner with this uid controls.
pub(super) fn controlled_by<K: Object>(cache: &Cache<K>, uid: &str) -> Vec<Arc<K>> {
    cache.find(BY_OWNER, uid)
}

/// The Pods bound to a node.
pub(super) fn on_node(cache: &Cache<Pod>, node: &str) -> Vec<Arc<Pod>> {
    cache.find(BY_NODE, node)
}
