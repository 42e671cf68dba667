//! Priority and fairness: keeps the objects that every cluster has, and says of each FlowSchema whether its level is there.

use std::sync::Arc;

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaCondition, FlowSchemaStatus, PriorityLevelConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::context::{Context, Error, ignore_exists, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use api::flow_control::{AUTO_UPDATE, Standard, defaults};
use api::meta::ObjectExt;
use client::informer::{Cache, Key};

const DANGLING: &str = "Dangling";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Wanted {
    Level(String),
    Schema(String),
}

struct Reconciler {
    context: Context,
    schemas: Cache<FlowSchema>,
    levels: Cache<PriorityLevelConfiguration>,
    defaults: Vec<Standard>,
}

pub(super) fn start(context: &Context) {
    let schemas = context.cache::<FlowSchema>();
    let levels = context.cache::<PriorityLevelConfiguration>();
    let mut harness = Harness::new(context);
    harness.watches(&schemas, |change, queue| {
        change.latest().into_iter().for_each(|schema| queue.add(Wanted::Schema(schema.name_any())));
    });
    let all = schemas.clone();
    harness.watches(&levels, move |change, queue| {
        let Some(level) = change.latest() else { return };
        queue.add(Wanted::Level(level.name_any()));
        // A level that comes or goes changes what is said of the schemas that name it.
        if change.new.is_none() || change.old.is_none() {
            all.list().into_iter().for_each(|schema| queue.add(Wanted::Schema(schema.name_any())));
        }
    });
    let defaults = defaults().unwrap_or_default();
    let queue = harness.queue();
    for default in &defaults {
        let name = default.object.name().to_owned();
        queue.add(match default.object["kind"] == "FlowSchema" {
            true => Wanted::Schema(name),
            false => Wanted::Level(name),
        });
    }
    harness.run(2, Arc::new(Reconciler { context: context.clone(), schemas, levels, defaults }));
}

/// What has to be written so that an object is as every cluster has it; `None`: nothing. Those that the server cannot do
/// without are always kept so; others come back as long as nobody has taken them over.
fn plan(default: &Standard, found: Option<&Value>) -> Option<Value> {
    let Some(found) = found else { return default.mandatory.then(|| default.object.clone()) };
    if !default.mandatory && found.annotation(AUTO_UPDATE) != Some("true") {
        return None;
    }
    let mut kept = found.clone();
    for (field, value) in default.object["spec"].as_object()? {
        // What the server filled in itself stays.
        if !holds(&kept["spec"][field], value) {
            kept["spec"][field] = value.clone();
        }
    }
    (kept != *found).then_some(kept)
}

/// Whether everything that is wanted is there.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        // False is what is not said.
        (Value::Null, Value::Bool(false)) => true,
        (found, wanted) => found == wanted,
    }
}

/// The condition that says whether a schema's level is there.
fn dangling(level: &str, found: bool) -> (&'static str, &'static str, String) {
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    match found {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    }
}

impl Reconcile for Reconciler {
    type Key = Wanted;

    async fn reconcile(&self, key: &Wanted) -> Result<Outcome, Error> {
        match key {
            Wanted::Level(name) => {
                let found = self.levels.get(&Key::cluster(name));
                self.keep::<PriorityLevelConfiguration>(name, found.as_deref()).await?;
            }
            Wanted::Schema(name) => {
                let found = self.schemas.get(&Key::cluster(name));
                self.keep::<FlowSchema>(name, found.as_deref()).await?;
                if let Some(schema) = found {
                    self.say(&schema).await?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    async fn keep<K>(&self, name: &str, found: Option<&K>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + serde::Serialize,
    {
        let of_kind =
            |default: &&Standard| default.object["kind"] == *K::kind(&()) && default.object.name() == name;
        let Some(default) = self.defaults.iter().find(of_kind) else { return Ok(()) };
        let found =
            found.map(serde_json::to_value).transpose().map_err(|error| Error::Other(error.to_string()))?;
        let Some(object) = plan(default, found.as_ref()) else { return Ok(()) };
        let kind = GroupVersionKind::gvk(&K::group(&()), &K::version(&()), &K::kind(&()));
        let row = ApiResource::from_gvk_with_plural(&kind, &K::plural(&()));
        let api: Api<DynamicObject> = Api::all_with(self.context.client.clone(), &row);
        let object: DynamicObject =
            serde_json::from_value(object).map_err(|error| Error::Other(error.to_string()))?;
        match found {
            None => ignore_exists(api.create(&PostParams::default(), &object).await)?,
            Some(_) => ignore_not_found(api.replace(name, &PostParams::default(), &object).await)?,
        };
        Ok(())
    }

    async fn say(&self, schema: &FlowSchema) -> Result<(), Error> {
        let spec = schema.spec.as_ref();
        let level = spec.map(|spec| spec.priority_level_configuration.name.clone()).unwrap_or_default();
        let found = self.levels.get(&Key::cluster(&level)).is_some();
        let (status, reason, message) = dangling(&level, found);
        let conditions = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let before = conditions.rev().find(|condition| condition.type_.as_deref() == Some(DANGLING));
        if before.is_some_and(|before| {
            before.status.as_deref() == Some(status) && before.message.as_deref() == Some(message.as_str())
        }) {
            return Ok(());
        }
        let condition = FlowSchemaCondition {
            type_: Some(DANGLING.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(self.context.now())),
        };
        let status = FlowSchemaStatus { conditions: Some(vec![condition]) };
        let patch = Patch::Merge(json!({ "status": status }));
        let api = self.context.all::<FlowSchema>();
        ignore_not_found(api.patch_status(&schema.name_any(), &PatchParams::default(), &patch).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_needs_is_kept_and_what_people_took_over_is_not() {
        let default = |mandatory: bool| Standard {
            object: json!({"metadata": {"name": "x"}, "spec": {"a": {"b": 1}}}),
            mandatory,
        };
        assert!(plan(&default(true), None).is_some() && plan(&default(false), None).is_none());
        let annotated = |value: &str, b: i64| json!({"metadata": {"name": "x", "annotations": {AUTO_UPDATE: value}}, "spec": {"a": {"b": b, "filled": 2}}});
        assert_eq!(plan(&default(true), Some(&annotated("true", 1))), None);
        let mended = plan(&default(true), Some(&annotated("false", 3))).expect("mended");
        assert_eq!(mended["spec"]["a"]["b"], 1);
        assert_eq!(plan(&default(false), Some(&annotated("false", 3))), None);
        assert!(plan(&default(false), Some(&annotated("true", 3))).is_some());
    }
}
