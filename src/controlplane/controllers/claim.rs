//! Who controls what: an owner adopts orphans that its selector matches, and releases what no longer matches.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use client::informer::{Cache, Object};
use client::typed::{controller_of, owner_ref, selects};

/// What an owner finds among the objects of its namespace.
#[derive(Debug)]
pub(super) struct Claim<K> {
    /// Controlled by the owner and selected by it.
    pub owned: Vec<Arc<K>>,
    /// Selected, and controlled by nobody.
    pub adopt: Vec<Arc<K>>,
    /// Controlled, but no longer selected.
    pub release: Vec<Arc<K>>,
}

/// Sorts candidates. An owner that is being deleted adopts and releases nothing.
pub(super) fn claim<O: Object, K: Object>(
    owner: &O,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let leaving = owner.meta().deletion_timestamp.is_some();
    for candidate in candidates {
        let meta = candidate.meta();
        let selected = selects(selector, meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if controller.uid != uid => {}
            Some(_) if selected => claim.owned.push(candidate),
            Some(_) if !leaving => claim.release.push(candidate),
            Some(_) => {}
            None if selected && !leaving && meta.deletion_timestamp.is_none() => claim.adopt.push(candidate),
            None => {}
        }
    }
    claim
}

/// What may concern an owner: what it controls, and the orphans of its namespace.
pub(super) fn candidates<O: Object, K: Object>(owner: &O, cache: &Cache<K>) -> Vec<Arc<K>> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let mine_or_free =
        |object: &Arc<K>| controller_of(object.meta()).is_none_or(|controller| controller.uid == uid);
    cache.in_namespace(namespace).into_iter().filter(mine_or_free).collect()
}

/// Carries out adoptions and releases; returns what the owner controls afterwards.
pub(super) async fn settle<O, K>(context: &Context, owner: &O, claim: Claim<K>) -> Result<Vec<Arc<K>>, Error>
where
    O: Object + kube::Resource<Scope = NamespaceResourceScope>,
    K: Object + kube::Resource<Scope = NamespaceResourceScope>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let api = context.api::<K>(&namespace);
    let mut owned = claim.owned;
    for object in claim.release {
        let uid = owner.meta().uid.clone();
        let patch = json!({"metadata": {
            "ownerReferences": [{"$patch": "delete", "uid": uid}], "uid": object.meta().uid,
        }});
        patch_owners(&api, &object.name_any(), patch).await?;
    }
    if claim.adopt.is_empty() {
        return Ok(owned);
    }
    // The cache may not know yet that the owner is going: what is adopted now would be deleted with it.
    let fresh = ignore_not_found(context.api::<O>(&namespace).get(&owner.name_any()).await)?;
    let fresh = fresh.filter(|o| o.meta().uid == owner.meta().uid && o.meta().deletion_timestamp.is_none());
    if fresh.is_none() {
        return Ok(owned);
    }
    for object in claim.adopt {
        let patch = json!({"metadata": {"ownerReferences": [owner_ref(owner)], "uid": object.meta().uid}});
        if let Some(adopted) = patch_owners(&api, &object.name_any(), patch).await? {
            owned.push(Arc::new(adopted));
        }
    }
    Ok(owned)
}

async fn patch_owners<K: Object + Debug>(
    api: &kube::Api<K>,
    name: &str,
    patch: serde_json::Value,
) -> Result<Option<K>, Error> {
    Ok(ignore_not_found(api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await)?)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, from_value};

    use super::*;

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        let owner: ReplicaSet =
            from_value(json!({"metadata": {"name": "web", "uid": "u1"}, "spec": {"selector": {}}})).unwrap();
        let selector: LabelSelector = from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
        let check = |meta: Value, expect: &str| {
            let pod: Pod = from_value(json!({"metadata": meta})).unwrap();
            let claim = claim(&owner, &selector, [Arc::new(pod)]);
            let got = match (claim.owned.len(), claim.adopt.len(), claim.release.len()) {
                (1, 0, 0) => "own",
                (0, 1, 0) => "adopt",
                (0, 0, 1) => "release",
                _ => "ignore",
            };
            assert_eq!(got, expect, "{meta}");
        };
        let by = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}]);
        check(json!({"labels": {"app": "web"}, "ownerReferences": by("u1")}), "own");
        check(json!({"labels": {"app": "web"}}), "adopt");
        check(json!({"labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}), "ignore");
        check(json!({"labels": {"app": "db"}, "ownerReferences": by("u1")}), "release");
        check(json!({"labels": {"app": "web"}, "ownerReferences": by("u2")}), "ignore");
        check(json!({"labels": {"app": "db"}}), "ignore");
    }
}
