//! A StatefulSet's Pods and claims: their names, and how they are made.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::super::history::REVISION_LABEL;
use super::super::pod_control::template_pod;
use client::typed::owner_ref;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Returns the number in a Pod's name, when the name is one that the StatefulSet gives.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let number = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let plain = number == "0" || !number.starts_with(['0', '+', '-']);
    number.parse().ok().filter(|_| plain)
}

/// Returns the names of the claims of the Pod with this number.
pub(super) fn claim_names(set: &StatefulSet, ordinal: i32) -> Vec<String> {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.map(|template| format!("{}-{}-{ordinal}", template.name_any(), set.name_any())).collect()
}

/// Makes the claims of the Pod with this number.
pub(super) fn new_claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let templates = spec.volume_claim_templates.iter().flatten();
    let one = |(template, name): (&PersistentVolumeClaim, String)| {
        let mut claim = PersistentVolumeClaim { status: None, ..template.clone() };
        claim.metadata.name = Some(name);
        claim.metadata.namespace = set.namespace();
        let selected = spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        claim
    };
    templates.zip(claim_names(set, ordinal)).map(one).collect()
}

/// Makes the Pod with this number, of a revision.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = template_pod(template, set);
    let name = format!("{}-{ordinal}", set.name_any());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain =
        set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let volumes: Vec<Volume> = templates
        .zip(claim_names(set, ordinal))
        .map(|(template, claim_name)| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
            ..Volume::default()
        })
        .collect();
    if !volumes.is_empty() {
        let own = spec.volumes.take().unwrap_or_default();
        let own = own.into_iter().filter(|volume| volumes.iter().all(|other| other.name != volume.name));
        let own: Vec<Volume> = own.collect();
        spec.volumes = Some(volumes.into_iter().chain(own).collect());
    }
    pod
}

/// What a claim's fate hangs on: the owners it must have by the retention policy, and nobody else of the set's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    /// Deleted with the StatefulSet.
    pub with_set: bool,
    /// Deleted with its Pod, because the set is scaled down below it.
    pub with_pod: bool,
}

impl Retention {
    pub(super) fn of(set: &StatefulSet, condemned: bool) -> Self {
        let policy =
            set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
        let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
        let deleted = policy.is_some_and(|policy| deletes(policy.when_deleted.as_ref()));
        let scaled = policy.is_some_and(|policy| deletes(policy.when_scaled.as_ref()));
        Self { with_set: deleted && !(scaled && condemned), with_pod: scaled && condemned }
    }

    /// Returns the owners a claim must have, or `None` when it has them. Owners that are not the set's business stay.
    pub(super) fn owners(
        self,
        set: &StatefulSet,
        pod: &Pod,
        claim: &PersistentVolumeClaim,
    ) -> Option<Vec<OwnerReference>> {
        let plain = |mut reference: OwnerReference| {
            (reference.controller, reference.block_owner_deletion) = (None, None);
            reference
        };
        let (of_set, of_pod) = (plain(owner_ref(set)), plain(owner_ref(pod)));
        let now = claim.owner_references();
        let mut wanted: Vec<OwnerReference> =
            now.iter().filter(|o| o.uid != of_set.uid && o.uid != of_pod.uid).cloned().collect();
        let had = |uid: &str| now.iter().any(|owner| owner.uid == uid);
        let right = had(&of_set.uid) == self.with_set && had(&of_pod.uid) == self.with_pod;
        wanted.extend(self.with_set.then_some(of_set));
        wanted.extend(self.with_pod.then_some(of_pod));
        (!right).then_some(wanted)
    }
}

/// Whether a claim goes with an earlier Pod of this name: a new Pod must wait until it is gone.
pub(super) fn goes_with_another(claim: &PersistentVolumeClaim, pod_name: &str, uid: Option<&str>) -> bool {
    let leaving = claim.metadata.deletion_timestamp.is_some();
    let mut owners = claim.owner_references().iter();
    leaving
        || owners
            .any(|owner| owner.kind == "Pod" && owner.name == pod_name && Some(owner.uid.as_str()) != uid)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn set(rest: Value) -> StatefulSet {
        let mut spec = json!({"serviceName": "svc", "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "x"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
        json_patch::merge(&mut spec, &rest);
        from_value(json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s"}, "spec": spec})).unwrap()
    }

    #[test]
    fn pods_and_claims_have_their_names() {
        let set = set(json!({}));
        let pod = new_pod(&set, &set.spec.as_ref().unwrap().template, "web-abc", 3);
        assert_eq!(pod.name_any(), "web-3");
        assert_eq!(ordinal(&set, &pod), Some(3));
        assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "3");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-3"), Some("svc")));
        let volumes = spec.volumes.unwrap();
        assert_eq!(volumes.len(), 2);
        assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-web-3");
        let claims = new_claims(&set, 3);
        assert_eq!(claims[0].name_any(), "data-web-3");
        assert_eq!(claims[0].labels()["a"], "b");
        for foreign in ["web", "web-x", "webs-1", "web-01", "web-1-2"] {
            let pod: Pod = from_value(json!({"metadata": {"name": foreign}})).unwrap();
            assert_eq!(ordinal(&set, &pod), None, "{foreign}");
        }
    }

    #[test]
    fn claims_belong_to_whom_the_policy_says() {
        let pod: Pod = from_value(json!({"metadata": {"name": "web-1", "uid": "p"}})).unwrap();
        let check = |policy: Value, condemned: bool, owners: Value, expect: Option<&[&str]>| {
            let set = set(json!({"persistentVolumeClaimRetentionPolicy": policy}));
            let claim: PersistentVolumeClaim =
                from_value(json!({"metadata": {"name": "c", "ownerReferences": owners}})).unwrap();
            let got = Retention::of(&set, condemned).owners(&set, &pod, &claim);
            let got = got.map(|all| all.into_iter().map(|owner| owner.uid).collect::<Vec<_>>());
            assert_eq!(
                got,
                expect.map(|all| all.iter().map(|uid| (*uid).to_owned()).collect()),
                "{policy} {condemned}"
            );
        };
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid}]);
        check(json!({}), false, json!([]), None);
        check(json!({}), true, owner("s"), Some(&[]));
        check(json!({"whenDeleted": "Delete"}), true, json!([]), Some(&["s"]));
        check(json!({"whenScaled": "Delete"}), true, owner("other"), Some(&["other", "p"]));
        check(json!({"whenScaled": "Delete"}), false, owner("p"), Some(&[]));
        let both = || json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
        check(both(), true, owner("s"), Some(&["p"]));
        check(both(), false, owner("s"), None);
    }
}
