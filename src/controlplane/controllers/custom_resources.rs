//! CustomResourceDefinitions: accepts their names, says when they are served, and empties them before they go.
//!
//! ```text
//! new --names free--> NamesAccepted, Established --deleted--> Terminating: objects deleted --none left--> gone
//!     --a name is taken--> NamesAccepted=False, tried again when the other one goes
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};

/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The condition of a definition that is being emptied.
const IN_PROGRESS: (&str, &str, &str) = ("Terminating", "True", "InstanceDeletionInProgress");
/// How long to wait for objects that somebody else must let go, before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn start(context: &Context) {
    let definitions = context.cache::<CustomResourceDefinition>();
    let mut harness = Harness::new(context);
    let all = definitions.clone();
    harness.watches(&definitions, move |change, queue| {
        let Some(definition) = change.new.or(change.old) else { return };
        // Names that become free, or taken, concern the others of the group.
        let group = definition.spec.group.clone();
        for other in all.list().iter().filter(|other| other.spec.group == group) {
            queue.add(other.name_any());
        }
        queue.add(definition.name_any());
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), definitions }));
}

struct Reconciler {
    context: Context,
    definitions: Cache<CustomResourceDefinition>,
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(definition) = self.definitions.get(&Key::cluster(name)) else { return Ok(Outcome::Done) };
        if definition.metadata.deletion_timestamp.is_some() {
            return self.empty(&definition).await;
        }
        let all = self.definitions.list();
        let others: Vec<&CustomResourceDefinitionNames> = all
            .iter()
            .filter(|other| other.spec.group == definition.spec.group && other.name_any() != *name)
            .filter_map(|other| other.status.as_ref()?.accepted_names.as_ref())
            .collect();
        let (names, conditions) = accept(&definition, &others, &Time(self.context.now()));
        let status = definition.status.as_ref();
        let same = status.is_some_and(|status| {
            status.accepted_names.as_ref() == Some(&names) && status.conditions.as_ref() == Some(&conditions)
        });
        if !same {
            self.tell(&definition, json!({"acceptedNames": said(&names), "conditions": conditions})).await?;
        }
        Ok(Outcome::Done)
    }
}

/// Names as a merge patch says them: what is not there is taken out.
fn said(names: &CustomResourceDefinitionNames) -> serde_json::Value {
    json!({
        "plural": names.plural,
        "singular": names.singular,
        "kind": names.kind,
        "listKind": names.list_kind,
        "shortNames": names.short_names,
        "categories": names.categories,
    })
}

/// The names that a definition may have beside the accepted ones of the others, and its conditions. Rule: upstream's naming
/// and establishing controllers.
fn accept(
    definition: &CustomResourceDefinition,
    others: &[&CustomResourceDefinitionNames],
    now: &Time,
) -> (CustomResourceDefinitionNames, Vec<CustomResourceDefinitionCondition>) {
    let wanted = &definition.spec.names;
    let status = definition.status.clone().unwrap_or_default();
    let mut names = status.accepted_names.clone().unwrap_or_default();
    let resources: BTreeSet<&str> = others.iter().flat_map(|other| resource_names(other)).collect();
    let kinds: BTreeSet<&str> = others.iter().flat_map(|other| kind_names(other)).collect();
    let mut conflict: Option<(&str, String)> = None;
    let mut free = |taken: &BTreeSet<&str>, name: &str, before: &str, reason: &'static str| {
        if name == before || !taken.contains(name) {
            return true;
        }
        conflict = Some((reason, format!("{name:?} is already in use")));
        false
    };
    if free(&resources, &wanted.plural, &names.plural, "PluralConflict") {
        names.plural.clone_from(&wanted.plural);
    }
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    if free(&resources, &text(&wanted.singular), &text(&names.singular), "SingularConflict") {
        names.singular.clone_from(&wanted.singular);
    }
    let mut short_free = true;
    let before: Vec<String> = names.short_names.clone().unwrap_or_default();
    for short in wanted.short_names.iter().flatten() {
        let known = if before.contains(short) { short.as_str() } else { "" };
        short_free &= free(&resources, short, known, "ShortNamesConflict");
    }
    if short_free {
        names.short_names.clone_from(&wanted.short_names);
    }
    if free(&kinds, &wanted.kind, &names.kind, "KindConflict") {
        names.kind.clone_from(&wanted.kind);
    }
    if free(&kinds, &text(&wanted.list_kind), &text(&names.list_kind), "ListKindConflict") {
        names.list_kind.clone_from(&wanted.list_kind);
    }
    names.categories.clone_from(&wanted.categories);
    let mut conditions = status.conditions.clone().unwrap_or_default();
    let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
    match conflict {
        None => {
            set(&mut conditions, ("NamesAccepted", "True", "NoConflicts"), "no conflicts found", now);
            let what = ("Established", "True", "InitialNamesAccepted");
            if !established {
                set(&mut conditions, what, "the initial names have been accepted", now);
            }
        }
        Some((reason, why)) => {
            set(&mut conditions, ("NamesAccepted", "False", reason), &why, now);
            if !established {
                let what = ("Established", "False", "NotAccepted");
                set(&mut conditions, what, "not all names are accepted", now);
            }
        }
    }
    (names, conditions)
}

fn resource_names(names: &CustomResourceDefinitionNames) -> impl Iterator<Item = &str> {
    let own = [Some(names.plural.as_str()), names.singular.as_deref()].into_iter().flatten();
    own.chain(names.short_names.iter().flatten().map(String::as_str)).filter(|name| !name.is_empty())
}

fn kind_names(names: &CustomResourceDefinitionNames) -> impl Iterator<Item = &str> {
    [Some(names.kind.as_str()), names.list_kind.as_deref()]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
}

/// What an error says, without the client's words around it.
fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Sets a condition (type, status, reason); its time moves only with its status.
fn set(
    conditions: &mut Vec<CustomResourceDefinitionCondition>,
    (kind, status, reason): (&str, &str, &str),
    message: &str,
    now: &Time,
) {
    let before = conditions.iter().position(|condition| condition.type_ == kind);
    let since = before.map(|at| &conditions[at]).filter(|condition| condition.status == status);
    let condition = CustomResourceDefinitionCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.map_or(Some(now.clone()), |since| since.last_transition_time.clone()),
        ..CustomResourceDefinitionCondition::default()
    };
    match before {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

impl Reconciler {
    /// Changes the status of the version that was decided on; another version is another decision.
    async fn tell(
        &self,
        definition: &CustomResourceDefinition,
        status: serde_json::Value,
    ) -> Result<(), Error> {
        let api = self.context.all::<CustomResourceDefinition>();
        let patch = json!({
            "metadata": {"resourceVersion": definition.metadata.resource_version},
            "status": status,
        });
        let params = PatchParams::default();
        ignore_not_found(api.patch_status(&definition.name_any(), &params, &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// Deletes all objects of a definition that is being deleted; when there are none left, lets it go.
    async fn empty(&self, definition: &CustomResourceDefinition) -> Result<Outcome, Error> {
        if !definition.finalizers().iter().any(|name| name == CLEANUP) {
            return Ok(Outcome::Done);
        }
        let mut conditions =
            definition.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let now = Time(self.context.now());
        if !conditions.iter().any(|condition| condition.type_ == "Terminating") {
            set(&mut conditions, IN_PROGRESS, "CustomResource deletion is in progress", &now);
            // The change brings it back here.
            self.tell(definition, json!({ "conditions": conditions })).await?;
            return Ok(Outcome::Done);
        }
        let served = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
        if served {
            let cleared = self.clear(definition).await;
            let told = conditions.clone();
            match &cleared {
                Ok(true) => {}
                Ok(false) => {
                    set(&mut conditions, IN_PROGRESS, "CustomResource deletion is in progress", &now)
                }
                Err((what, error)) => {
                    let (reason, why) = ("InstanceDeletionFailed", format!("{what}: {}", plain(error)));
                    set(&mut conditions, ("Terminating", "True", reason), &why, &now);
                }
            }
            // Whoever waits can see why: that a conversion webhook is gone, say. Without the webhook in its definition, or with one
            // that answers, the next try gets on.
            if told != conditions {
                self.tell(definition, json!({ "conditions": conditions })).await?;
            }
            match cleared {
                Ok(true) => {}
                Ok(false) => return Ok(Outcome::RequeueAfter(LOOK_AGAIN)),
                Err((_, error)) => return Err(error.into()),
            }
        }
        let left: Vec<&String> = definition.finalizers().iter().filter(|name| *name != CLEANUP).collect();
        let patch = json!({"metadata": {
            "finalizers": left, "resourceVersion": definition.metadata.resource_version}});
        let api = self.context.all::<CustomResourceDefinition>();
        let params = PatchParams::default();
        ignore_not_found(api.patch(&definition.name_any(), &params, &Patch::Merge(patch)).await)?;
        Ok(Outcome::Done)
    }

    /// Deletes every object; true when none is left. Fails with what could not be done, in upstream's words, and why.
    async fn clear(
        &self,
        definition: &CustomResourceDefinition,
    ) -> Result<bool, (&'static str, kube::Error)> {
        let unlisted = |error| ("could not list instances", error);
        let spec = &definition.spec;
        let Some(version) = spec.versions.iter().find(|version| version.storage) else { return Ok(true) };
        let resource = ApiResource {
            group: spec.group.clone(),
            version: version.name.clone(),
            api_version: format!("{}/{}", spec.group, version.name),
            kind: spec.names.kind.clone(),
            plural: spec.names.plural.clone(),
        };
        let client = &self.context.client;
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let some = ListParams::default();
        let found = all.list_metadata(&some).await.map_err(unlisted)?.items;
        let places: BTreeSet<Option<String>> = found.iter().map(ResourceExt::namespace).collect();
        for place in places {
            let api: Api<DynamicObject> = match place {
                Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
                None => all.clone(),
            };
            let deleted = api.delete_collection(&DeleteParams::default(), &some).await;
            deleted.map_err(|error| ("could not issue all deletes", error))?;
        }
        if found.is_empty() {
            return Ok(true);
        }
        let left = all.list_metadata(&some.limit(1)).await.map_err(unlisted)?;
        Ok(left.items.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plural: &str, kind: &str, short: &[&str]) -> CustomResourceDefinitionNames {
        CustomResourceDefinitionNames {
            plural: plural.to_owned(),
            singular: Some(kind.to_lowercase()),
            kind: kind.to_owned(),
            list_kind: Some(format!("{kind}List")),
            short_names: Some(short.iter().map(|name| (*name).to_owned()).collect()),
            categories: None,
        }
    }

    fn check(
        wanted: CustomResourceDefinitionNames,
        others: &[&CustomResourceDefinitionNames],
        expect: &[&str],
    ) {
        let mut definition = CustomResourceDefinition::default();
        definition.spec.names = wanted;
        let (_, conditions) = accept(&definition, others, &Time(jiff::Timestamp::UNIX_EPOCH));
        let said: Vec<String> = conditions
            .iter()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.reason.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(said, expect);
    }

    #[test]
    fn names_are_accepted_while_nobody_else_has_them() {
        let widgets = names("widgets", "Widget", &["w"]);
        check(
            widgets.clone(),
            &[],
            &["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"],
        );
        let refused = |reason: &str| {
            [format!("NamesAccepted=False {reason}"), "Established=False NotAccepted".to_owned()]
        };
        let case = |wanted, reason| {
            let expect = refused(reason);
            check(wanted, &[&widgets], &expect.each_ref().map(String::as_str));
        };
        case(names("widgets", "Other", &[]), "PluralConflict");
        case(names("others", "Other", &["w"]), "ShortNamesConflict");
        case(
            CustomResourceDefinitionNames { singular: None, ..names("others", "Widget", &[]) },
            "ListKindConflict",
        );
    }
}
