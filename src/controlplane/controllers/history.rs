//! ControllerRevisions: the templates a DaemonSet or StatefulSet has had, by which it rolls back and forth.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::context::{Context, Error, ignore_not_found};
use super::hash::safe_hash;
use client::informer::{Key, Object};
use client::typed::owner_ref;

/// The label by which Pods of DaemonSets and StatefulSets say which revision they are of.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// What is to be done so that the present template is the newest revision.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The revision at this place is the newest already.
    Current(usize),
    /// The revision at this place becomes the newest, under this number.
    Renumber(usize, i64),
    /// There is none with this template: it is made under this number.
    Create(i64),
}

/// Returns the data of a revision: the patch by which `kubectl rollout undo` brings the template back. It is byte for byte what
/// clients up to 1.33 make of the template to find its revision: keys in order, and the time that a template does not have.
pub(super) fn template_patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    template["metadata"]["creationTimestamp"] = Value::Null;
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// Reads the template back that [`template_patch`] put into a revision.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn same(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|found| template_patch(&found) == template_patch(template))
}

fn plan(revisions: &[Arc<ControllerRevision>], template: &PodTemplateSpec) -> Step {
    let newest = revisions.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let equal = revisions.iter().enumerate().filter(|(_, revision)| same(revision, template));
    match equal.max_by_key(|(_, revision)| revision.revision) {
        None => Step::Create(newest + 1),
        Some((at, revision)) if revision.revision == newest => Step::Current(at),
        Some((at, _)) => Step::Renumber(at, newest + 1),
    }
}

/// Returns the names of the revisions that are too many: the oldest of those that nothing uses.
fn surplus(
    revisions: &[Arc<ControllerRevision>],
    live: &dyn Fn(&ControllerRevision) -> bool,
    keep: usize,
) -> Vec<String> {
    let mut idle: Vec<&Arc<ControllerRevision>> =
        revisions.iter().filter(|revision| !live(revision)).collect();
    idle.sort_by_key(|revision| revision.revision);
    let many = idle.len().saturating_sub(keep);
    idle.into_iter().take(many).map(|revision| revision.name_any()).collect()
}

/// What a kind with revisions says of an object.
pub(super) struct Revised<'a, O> {
    pub owner: &'a O,
    pub template: &'a PodTemplateSpec,
    pub collisions: Option<i32>,
    /// The label of a revision that carries its hash.
    pub label: &'static str,
}

/// The present revision is there, or its name is taken by another template and the collision count must be raised.
pub(super) enum Settled {
    Revision(Arc<ControllerRevision>),
    Collision,
}

impl<O: Object + kube::Resource<Scope = NamespaceResourceScope>> Revised<'_, O> {
    fn new_revision(&self, data: Value, number: i64) -> ControllerRevision {
        let hash = safe_hash(&data, self.collisions);
        let mut labels =
            self.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(self.label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.owner.name_any())),
                namespace: self.owner.namespace(),
                labels: Some(labels),
                annotations: self.owner.meta().annotations.clone(),
                owner_references: Some(vec![owner_ref(self.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data)),
            revision: number,
        }
    }

    /// Sees to it that the present template is the newest of the owner's revisions. Fails when the API does.
    pub(super) async fn settle(
        &self,
        context: &Context,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Settled, Error> {
        let api = context.api::<ControllerRevision>(&self.owner.namespace().unwrap_or_default());
        match plan(revisions, self.template) {
            Step::Current(at) => Ok(Settled::Revision(Arc::clone(&revisions[at]))),
            Step::Renumber(at, number) => {
                let patch = Patch::Merge(json!({ "revision": number }));
                let changed = api.patch(&revisions[at].name_any(), &PatchParams::default(), &patch).await?;
                Ok(Settled::Revision(Arc::new(changed)))
            }
            Step::Create(number) => {
                let new = self.new_revision(template_patch(self.template), number);
                match api.create(&PostParams::default(), &new).await {
                    Ok(created) => Ok(Settled::Revision(Arc::new(created))),
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                        let there = api.get(&new.name_any()).await?;
                        let ours = there
                            .owner_references()
                            .iter()
                            .any(|o| Some(&o.uid) == self.owner.meta().uid.as_ref());
                        Ok(if ours && same(&there, self.template) {
                            Settled::Revision(Arc::new(there))
                        } else {
                            Settled::Collision
                        })
                    }
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// Deletes revisions beyond the limit; `live` says which are in use. Fails when the API does.
pub(super) async fn truncate(
    context: &Context,
    key: &Key,
    revisions: &[Arc<ControllerRevision>],
    live: &(dyn Fn(&ControllerRevision) -> bool + Sync),
    limit: Option<i32>,
) -> Result<(), Error> {
    let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
    let names = surplus(revisions, &|revision| live(revision), keep);
    let api = context.api::<ControllerRevision>(&key.namespace);
    for name in names {
        ignore_not_found(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}))
            .unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(format!("{image}-{number}")), ..ObjectMeta::default() },
            data: Some(RawExtension(template_patch(&template(image)))),
            revision: number,
        })
    }

    #[test]
    fn the_present_template_is_the_newest_revision() {
        let all = [revision("one", 1), revision("two", 2)];
        let check = |image: &str, expect: Step| {
            assert_eq!(plan(&all, &template(image)), expect, "{image}");
        };
        check("two", Step::Current(1));
        check("one", Step::Renumber(0, 3));
        check("three", Step::Create(3));
        assert_eq!(plan(&[], &template("one")), Step::Create(1));
        assert_eq!(template_of(&all[0]), Some(template("one")));
    }

    #[test]
    fn a_revision_is_the_template_with_nothing_left_out() {
        let template: PodTemplateSpec =
            from_value(json!({"spec": {"containers": [{"name": "c", "resources": {}}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                [{"topologyKey": "zone", "labelSelector": {}}]}}}}))
            .unwrap();
        let text = concat!(
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"creationTimestamp":null},"spec":{"affinity":"#,
            r#"{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{},"#,
            r#""topologyKey":"zone"}]}},"containers":[{"name":"c","resources":{}}]}}}}"#
        );
        assert_eq!(template_patch(&template).to_string(), text);
    }

    #[test]
    fn the_oldest_idle_revisions_go() {
        let all = [revision("d", 4), revision("a", 1), revision("c", 3), revision("b", 2)];
        let live = |revision: &ControllerRevision| revision.revision == 1;
        assert_eq!(surplus(&all, &live, 1), ["b-2", "c-3"]);
        assert!(surplus(&all, &live, 3).is_empty());
    }
}
