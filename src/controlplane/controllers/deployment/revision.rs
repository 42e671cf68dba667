//! ReplicaSets as revisions of a Deployment: which one has the present template, its name, and its number.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::super::hash::{safe_hash, without_empty};
use super::arithmetic::{Bounds, DESIRED, MAX};
use client::typed::owner_ref;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a Deployment that are its own and not its ReplicaSets'.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Longest kept list of earlier numbers, in bytes.
const HISTORY_BYTES: usize = 2000;

type Annotations = BTreeMap<String, String>;

pub(super) fn annotation_number<T: std::str::FromStr>(set: &ReplicaSet, key: &str) -> Option<T> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// A ReplicaSet's revision number; 0 when it has none.
pub(super) fn number(set: &ReplicaSet) -> i64 {
    annotation_number(set, REVISION).unwrap_or(0)
}

fn bare(template: Option<&PodTemplateSpec>) -> PodTemplateSpec {
    let mut template = template.cloned().unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

fn equal(a: Option<&PodTemplateSpec>, b: Option<&PodTemplateSpec>) -> bool {
    let (a, b) = (bare(a), bare(b));
    if a == b {
        return true;
    }
    let plain = |template| serde_json::to_value(template).map(without_empty).unwrap_or_default();
    plain(a) == plain(b)
}

fn template_of(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

/// Whether two ReplicaSets make the same Pods.
pub(super) fn same_template(a: &ReplicaSet, b: &ReplicaSet) -> bool {
    equal(template_of(a), template_of(b))
}

/// Whether a ReplicaSet has the Deployment's present template.
pub(super) fn is_current(deployment: &Deployment, set: &ReplicaSet) -> bool {
    equal(deployment.spec.as_ref().map(|spec| &spec.template), template_of(set))
}

/// The hash of a template in letters that are safe in names; `collisions` gives another one when that
/// was taken.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let plain = without_empty(serde_json::to_value(bare(Some(template))).unwrap_or_default());
    safe_hash(&plain, collisions)
}

/// Annotations of a ReplicaSet that stands for `revision`, from those it has and those of its Deployment.
fn annotations(deployment: &Deployment, old: &Annotations, revision: i64) -> Annotations {
    let mut new = old.clone();
    let inherited = deployment.annotations().iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    new.extend(inherited.map(|(key, value)| (key.clone(), value.clone())));
    let before: Option<i64> = old.get(REVISION).and_then(|text| text.parse().ok());
    if before.is_none_or(|before| before < revision) {
        new.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before {
            let mut history = new.get(HISTORY).cloned().unwrap_or_default();
            while history.len() > HISTORY_BYTES {
                history = history.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            }
            let comma = if history.is_empty() { "" } else { "," };
            new.insert(HISTORY.to_owned(), format!("{history}{comma}{before}"));
        }
    }
    new
}

/// Notes on a ReplicaSet for which scale of the Deployment it was sized.
pub(super) fn note_scale(set: &mut ReplicaSet, bounds: Bounds) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.to_owned(), bounds.replicas.to_string());
    annotations.insert(MAX.to_owned(), bounds.most().to_string());
}

/// The ReplicaSet as the present revision, when it differs from what it is.
pub(super) fn refreshed(deployment: &Deployment, set: &ReplicaSet, revision: i64) -> Option<ReplicaSet> {
    let mut new = set.clone();
    new.metadata.annotations = Some(annotations(deployment, set.annotations(), revision));
    if let (Some(spec), Some(wanted)) = (new.spec.as_mut(), deployment.spec.as_ref())
        && spec.min_ready_seconds.unwrap_or_default() != wanted.min_ready_seconds.unwrap_or_default()
    {
        spec.min_ready_seconds = wanted.min_ready_seconds;
    }
    (new.spec != set.spec || new.annotations() != set.annotations()).then_some(new)
}

/// A new ReplicaSet for the present template.
pub(super) fn make(deployment: &Deployment, revision: i64, replicas: i32, bounds: Bounds) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = Some(labels.clone());
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            owner_references: Some(vec![owner_ref(deployment)]),
            labels,
            annotations: Some(annotations(deployment, &Annotations::new(), revision)),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    note_scale(&mut set, bounds);
    set
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::super::super::hash::ALPHABET;
    use super::*;

    #[test]
    fn hashes_are_safe_stable_and_change_with_collisions() {
        let template: PodTemplateSpec = from_value(
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let mut labelled = template.clone();
        let labels = labelled.metadata.as_mut().unwrap().labels.as_mut().unwrap();
        labels.insert(HASH_LABEL.to_owned(), "x".to_owned());
        let hash = template_hash(&template, None);
        assert!(hash.bytes().all(|b| ALPHABET.contains(&b)), "{hash}");
        assert_eq!(hash, template_hash(&labelled, None));
        assert_ne!(hash, template_hash(&template, Some(1)));
    }

    #[test]
    fn a_revision_that_returns_remembers_its_earlier_numbers() {
        let deployment: Deployment = from_value(json!({"metadata": {"name": "web", "annotations":
            {REVISION: "3", "kubernetes.io/change-cause": "why"}}}))
        .unwrap();
        let first = annotations(&deployment, &Annotations::new(), 1);
        assert_eq!(first[REVISION], "1");
        assert_eq!(first["kubernetes.io/change-cause"], "why");
        let again = annotations(&deployment, &first, 4);
        assert_eq!((again[REVISION].as_str(), again[HISTORY].as_str()), ("4", "1"));
        assert_eq!(annotations(&deployment, &again, 6)[HISTORY], "1,4");
        assert_eq!(annotations(&deployment, &again, 4), again);
    }
}
