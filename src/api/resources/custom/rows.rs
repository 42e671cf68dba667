//! The rows that one definition brings.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::strategy::Custom;
use crate::meta::{ObjectExt, Str, compare_versions};
use crate::resources::descriptor::{Resource, ScalePaths};
use crate::schema::Schema;
use crate::structural::{JsonPath, Rules, Structural};
use crate::table::{PathColumn, PathColumns, Shown};
use rt::Stop;

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Of a definition that is being deleted.
const ENDING: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Whether a definition has a condition.
pub fn condition(definition: &Value, kind: &str) -> bool {
    let conditions = definition.array_at("/status/conditions").iter();
    conditions.into_iter().any(|c| c.text("type") == Some(kind) && c.text("status") == Some("True"))
}

/// The rows that a definition brings: one for each served version; none before its names are established. `end` is cancelled
/// when they go.
pub fn rows(definition: &Value, end: &Stop) -> Vec<Arc<Resource>> {
    if !condition(definition, "Established") {
        return Vec::new();
    }
    let versions = definition.array_at("/spec/versions");
    let Some(storage) = versions.iter().find(|version| flag(version, "storage")) else { return Vec::new() };
    let stored = Arc::new(row(definition, storage, None, end));
    let ending = definition.deletion_timestamp().is_some();
    let served = |version: &&Value| flag(version, "served") || (ending && flag(version, "storage"));
    let others = versions.iter().filter(served).map(|version| match flag(version, "storage") {
        true => Arc::clone(&stored),
        false => Arc::new(row(definition, version, Some(&stored), end)),
    });
    others.collect()
}

fn flag(version: &Value, key: &str) -> bool {
    version.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn owned(text: Option<&str>) -> Str {
    Cow::Owned(text.unwrap_or_default().to_owned())
}

fn list(definition: &Value, pointer: &str) -> Cow<'static, [Str]> {
    definition.array_at(pointer).iter().map(|word| owned(word.as_str())).collect()
}

fn row(definition: &Value, version: &Value, stored: Option<&Arc<Resource>>, end: &Stop) -> Resource {
    let names = &definition["status"]["acceptedNames"];
    let schema =
        version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
    let structural = Arc::new(Structural::of(&schema));
    let has_status = version.pointer("/subresources/status").is_some();
    let ending = definition.deletion_timestamp().is_some();
    // Objects that were written under another schema, or lack a default that came later, are shown as this one has them.
    let rewrites = structural.has_defaults()
        || definition.generation() > 1
        || webhook(definition).is_some()
        || definition.array_at("/status/storedVersions").len() > 1;
    let strategy = Custom {
        has_status,
        prunes: definition.bool_at("/spec/preserveUnknownFields") != Some(true),
        rules: Rules::of(&structural),
        embeds: structural.has_embedded(),
        schema: Arc::clone(&structural),
    };
    let namespaced = definition.str_at("/spec/scope") == Some("Namespaced");
    let mut row = Resource::made(
        owned(definition.str_at("/spec/group")),
        owned(version.text("name")),
        owned(names.text("kind")),
        owned(names.text("plural")),
        namespaced,
    );
    row.list_kind = owned(names.text("listKind"));
    row.singular = owned(names.text("singular"));
    row.short_names = list(definition, "/status/acceptedNames/shortNames");
    row.categories = list(definition, "/status/acceptedNames/categories");
    row.verbs = if ending { ENDING } else { VERBS };
    row.stored_as = stored.cloned();
    row.conditional_update = true;
    row.rewrites = rewrites;
    row.printer = Shown::ByPath(Arc::new(columns(version)));
    row.selectable = selectable(version);
    row.deprecated = deprecation(definition, version);
    row.own_schema = Some(Arc::new(Schema::open(row.gvk())));
    row.structural = Some(structural);
    row.published = Some(schema.to_string().into());
    row.conversion = webhook(definition);
    row.end = Some(end.clone());
    let mut row = row.counted().with_shared(Arc::new(strategy));
    if has_status {
        row = row.status();
    }
    if let Some(scale) = version.pointer("/subresources/scale") {
        row = row.scale();
        let pointer = |key: &str| scale.text(key).map(|path| path.replace('.', "/"));
        row.scale_paths = ScalePaths {
            replicas: pointer("specReplicasPath").unwrap_or_default().into(),
            status_replicas: pointer("statusReplicasPath").unwrap_or_default().into(),
            selector: pointer("labelSelectorPath").map(Cow::Owned),
            selector_is_text: true,
        };
    }
    row
}

/// What whoever uses a version is warned of: in the definition's own words, or which version to use in its place.
fn deprecation(definition: &Value, version: &Value) -> Option<Str> {
    if !flag(version, "deprecated") {
        return None;
    }
    if let Some(warning) = version.text("deprecationWarning") {
        return Some(owned(Some(warning)));
    }
    let spec = &definition["spec"];
    let (group, kind) =
        (spec.text("group").unwrap_or_default(), spec["names"].text("kind").unwrap_or_default());
    let name = version.text("name").unwrap_or_default();
    let better =
        definition.array_at("/spec/versions").iter().filter(|v| flag(v, "served") && !flag(v, "deprecated"));
    let better =
        better.filter_map(|version| version.text("name")).filter(|v| compare_versions(v, name).is_gt());
    let instead = better.max_by(|a, b| compare_versions(a, b));
    let instead = instead.map(|version| format!("; use {group}/{version} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}").into())
}

/// What converts objects between versions, if it is not enough to name another one.
fn webhook(definition: &Value) -> Option<Arc<Value>> {
    let by = definition.str_at("/spec/conversion/strategy") == Some("Webhook");
    definition.pointer("/spec/conversion/webhook").filter(|_| by).cloned().map(Arc::new)
}

fn columns(version: &Value) -> PathColumns {
    let said = version.array_at("/additionalPrinterColumns");
    let text = |column: &Value, key: &str| column.text(key).unwrap_or_default().to_owned();
    let mut columns: Vec<PathColumn> = Vec::new();
    for column in said {
        let Ok(path) = JsonPath::parse(&text(column, "jsonPath")) else { continue };
        columns.push(PathColumn {
            name: text(column, "name"),
            kind: text(column, "type"),
            format: text(column, "format"),
            description: text(column, "description"),
            priority: column.int_at("/priority").unwrap_or(0),
            path,
        });
    }
    if said.is_empty() {
        columns.push(PathColumn::age());
    }
    PathColumns { columns }
}

fn selectable(version: &Value) -> Vec<(String, JsonPath)> {
    let paths = version.array_at("/selectableFields").iter().filter_map(|field| field.text("jsonPath"));
    let paths =
        paths.filter_map(|path| Some((path.trim_start_matches('.').to_owned(), JsonPath::parse(path).ok()?)));
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Handler;

    #[test]
    fn a_definition_brings_a_row_for_every_served_version() {
        let mut definition = json!({
            "metadata": {"name": "crontabs.stable.example.com", "generation": 1},
            "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"kind": "CronTab"}, "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}],
                 "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": false},
                {"name": "v3", "served": false, "storage": false}]},
            "status": {"acceptedNames": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab",
                "listKind": "CronTabList", "shortNames": ["ct"]}},
        });
        let end = Stop::new();
        assert!(rows(&definition, &end).is_empty(), "its names are not established");
        definition["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        let made = rows(&definition, &end);
        let versions: Vec<&str> = made.iter().map(|row| row.version.as_ref()).collect();
        assert_eq!(versions, ["v1", "v2"]);
        assert_eq!(made[1].stored_as.as_ref().map(|row| row.version.as_ref()), Some("v1"));
        assert!(made[0].has(Handler::Scale) && made[0].has_status() && !made[1].has_status());
        assert_eq!(made[0].scale_paths.replicas, "/spec/replicas");
        let fields = made[0].selectable_fields(&json!({"spec": {"color": "blue"}}));
        assert_eq!(fields, [("spec.color".into(), "blue".to_owned())]);

        let warned = |definition: &Value| -> Vec<Option<String>> {
            let rows = rows(definition, &end);
            rows.iter().map(|row| row.deprecated.as_ref().map(ToString::to_string)).collect()
        };
        assert_eq!(warned(&definition), [None, None]);
        definition["spec"]["versions"][0]["deprecated"] = true.into();
        let instead = "stable.example.com/v1 CronTab is deprecated; use stable.example.com/v2 CronTab";
        assert_eq!(warned(&definition), [Some(instead.to_owned()), None]);
        definition["spec"]["versions"][1]["deprecated"] = true.into();
        definition["spec"]["versions"][1]["deprecationWarning"] = "Not any more.".into();
        let alone = "stable.example.com/v1 CronTab is deprecated";
        assert_eq!(warned(&definition), [Some(alone.to_owned()), Some("Not any more.".to_owned())]);
    }
}
