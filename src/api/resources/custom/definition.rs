//! What is special about CustomResourceDefinitions themselves.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::structural::{JsonPath, Structural, problems, rule_problems};
use crate::validate::{self, FieldError};

/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVAL: &str = "api-approved.kubernetes.io";

/// CustomResourceDefinitions.
pub struct Definition;

/// The version whose form is stored joins the list of those that may be found in storage.
fn record_storage_version(definition: &mut Value) {
    let versions = definition.array_at("/spec/versions").iter();
    let storage =
        versions.filter(|version| version["storage"] == true).find_map(|version| version.text("name"));
    let Some(name) = storage.map(str::to_owned) else { return };
    let mut stored = definition.array_at("/status/storedVersions").to_vec();
    if !stored.iter().any(|known| *known == name) {
        stored.push(name.into());
    }
    definition.open("status").put("storedVersions", stored);
}

impl Strategy for Definition {
    fn default(&self, definition: &mut Value) {
        definition.within("spec", |spec| {
            let kind = spec.str_at("/names/kind").unwrap_or_default().to_owned();
            spec.within("names", |names| {
                names.fill_text("singular", &kind.to_lowercase());
                if !kind.is_empty() {
                    names.fill_text("listKind", &format!("{kind}List"));
                }
            });
            spec.open("conversion").fill_text("strategy", "None");
            spec.within("conversion", |conversion| {
                conversion.within("webhook", |hook| {
                    hook.within("clientConfig", |client| {
                        client.within("service", |service| service.fill("port", 443));
                    });
                });
            });
        });
    }

    fn prepare_create(&self, definition: &mut Value) {
        let status = json!({
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [],
        });
        definition.put("status", status);
        record_storage_version(definition);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        record_storage_version(new);
    }

    fn prepare_delete(&self, definition: &Value) -> Option<Value> {
        if definition.deletion_timestamp().is_some() || definition.finalizers().any(|name| name == CLEANUP) {
            return None;
        }
        let mut held = definition.clone();
        let mut finalizers: Vec<Value> = definition.finalizers().map(Value::from).collect();
        finalizers.push(CLEANUP.into());
        held.open("metadata").put("finalizers", finalizers);
        Some(held)
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = names(new);
        errors.extend(versions(new, old));
        errors.extend(conversion(new));
        if let Some(old) = old.filter(|old| super::condition(old, "Established")) {
            for field in ["/spec/group", "/spec/scope", "/spec/names/kind", "/spec/names/plural"] {
                if old.pointer(field) != new.pointer(field) {
                    let at = field[1..].replace('/', ".");
                    let value = new.pointer(field).cloned().unwrap_or_default();
                    errors.push(FieldError::invalid(at, value, "field is immutable"));
                }
            }
        }
        errors.extend(stored(new));
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        stored(new)
    }
}

fn word(path: &str, text: &str, errors: &mut Vec<FieldError>) {
    errors.extend(validate::dns1035_label(text).into_iter().map(|why| FieldError::invalid(path, text, why)));
}

fn names(definition: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |pointer: &str| definition.str_at(pointer).unwrap_or_default();
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let wanted = format!("{plural}.{group}");
    if definition.name() != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", definition.name(), why));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        let wrong = validate::dns1123_subdomain(group).into_iter();
        errors.extend(wrong.map(|why| FieldError::invalid("spec.group", group, why)));
        if !group.contains('.') {
            errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
    }
    let protected = group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io");
    if protected && definition.annotation(APPROVAL).unwrap_or_default().is_empty() {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                   https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVAL}]"), why));
    }
    match text("/spec/scope") {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        let at = format!("spec.names.{field}");
        match text(&format!("/spec/names/{field}")) {
            "" => errors.push(FieldError::required(at, "")),
            name => word(&at, &name.to_lowercase(), &mut errors),
        }
    }
    if !text("/spec/names/kind").is_empty() && text("/spec/names/kind") == text("/spec/names/listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid("spec.names.listKind", text("/spec/names/listKind"), why));
    }
    for list in ["shortNames", "categories"] {
        for (at, name) in definition.array_at(&format!("/spec/names/{list}")).iter().enumerate() {
            word(&format!("spec.names.{list}[{at}]"), name.as_str().unwrap_or_default(), &mut errors);
        }
    }
    if definition.bool_at("/spec/preserveUnknownFields") == Some(true) {
        let why = "must be false";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    errors
}

fn versions(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let versions = definition.array_at("/spec/versions");
    let storage = versions.iter().filter(|version| version["storage"] == true).count();
    if storage != 1 {
        let value = definition["spec"].get("versions").cloned().unwrap_or_default();
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", value, why));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = version.text("name").unwrap_or_default();
        word(&format!("{path}.name"), name, &mut errors);
        if versions[..index].iter().any(|before| before.text("name") == Some(name)) {
            let value = definition["spec"]["versions"].clone();
            errors.push(FieldError::invalid("spec.versions", value, "must contain unique version names"));
        }
        let schema = format!("{path}.schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            Some(given) => errors.extend(schema_errors(given, schema_before(old, name), &schema)),
            None => errors.push(FieldError::required(schema, "schemas are required")),
        }
        errors.extend(subresources(version, &path));
        for (at, column) in version.array_at("/additionalPrinterColumns").iter().enumerate() {
            let at = format!("{path}.additionalPrinterColumns[{at}]");
            if column.text("name").unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            }
            let types = ["boolean", "date", "integer", "number", "string"];
            match column.text("type").unwrap_or_default() {
                "" => {
                    let why = format!("must be one of {}", types.join(","));
                    errors.push(FieldError::required(format!("{at}.type"), why));
                }
                kind if !types.contains(&kind) => {
                    let why = format!("must be one of {}", types.join(","));
                    errors.push(FieldError::invalid(format!("{at}.type"), kind, why));
                }
                _ => {}
            }
            path_errors(column, "jsonPath", &at, &mut errors);
        }
        for (at, field) in version.array_at("/selectableFields").iter().enumerate() {
            path_errors(field, "jsonPath", &format!("{path}.selectableFields[{at}]"), &mut errors);
        }
    }
    errors
}

/// The schema that a version had before.
fn schema_before<'v>(old: Option<&'v Value>, version: &str) -> Option<&'v Value> {
    let versions = old?.array_at("/spec/versions").iter();
    versions
        .filter(|before| before.text("name") == Some(version))
        .find_map(|before| before.pointer("/schema/openAPIV3Schema"))
}

/// What is wrong with a schema; its rules are looked at where it is good, and new.
fn schema_errors(schema: &Value, before: Option<&Value>, path: &str) -> Vec<FieldError> {
    let errors = problems(schema, path);
    if !errors.is_empty() || before == Some(schema) {
        return errors;
    }
    rule_problems(&Structural::of(schema), path)
}

fn path_errors(object: &Value, key: &str, path: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.{key}");
    match object.text(key).unwrap_or_default() {
        "" => errors.push(FieldError::required(at, "")),
        text => {
            if let Err(why) = JsonPath::parse(text) {
                errors.push(FieldError::invalid(at, text, format!("is an invalid path: {why}")));
            }
        }
    }
}

fn subresources(version: &Value, path: &str) -> Vec<FieldError> {
    let Some(scale) = version.pointer("/subresources/scale") else { return Vec::new() };
    let mut errors = Vec::new();
    let rules = [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", ".", false),
    ];
    for (key, start, required) in rules {
        let at = format!("{path}.subresources.scale.{key}");
        match scale.text(key).unwrap_or_default() {
            "" if required => errors.push(FieldError::required(at, "")),
            "" => {}
            text if !text.starts_with(start) => {
                let why = format!("should be a json path under {}", start.trim_end_matches('.'));
                errors.push(FieldError::invalid(at, text, why));
            }
            text if text.contains('[') => {
                errors.push(FieldError::invalid(
                    at,
                    text,
                    "should be a simple json path without array notation",
                ));
            }
            _ => {}
        }
    }
    errors
}

fn conversion(definition: &Value) -> Vec<FieldError> {
    let at = "spec.conversion";
    match definition.str_at("/spec/conversion/strategy").unwrap_or_default() {
        "None" => Vec::new(),
        "Webhook" => webhook(definition),
        "" => vec![FieldError::required(format!("{at}.strategy"), "")],
        other => vec![FieldError::not_supported(format!("{at}.strategy"), other, &["None", "Webhook"])],
    }
}

/// What is wrong with the webhook that converts objects. Rule: `validateCustomResourceConversion`.
fn webhook(definition: &Value) -> Vec<FieldError> {
    validate::check_at(
        &definition["spec"]["conversion"],
        &validate::Path::new("spec.conversion"),
        |conversion| {
            if !conversion.has("webhook") {
                conversion.required("webhook", "required when strategy is set to Webhook");
            }
            conversion.within("webhook", |hook| {
                match hook.has("clientConfig") {
                    true => validate::client_config(hook),
                    false => hook.required("clientConfig", "required when strategy is set to Webhook"),
                }
                let versions = hook.list("conversionReviewVersions");
                if versions.is_empty() {
                    hook.required("conversionReviewVersions", "");
                } else if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
                    hook.invalid("conversionReviewVersions", "must include at least one of v1, v1beta1");
                }
            });
        },
    )
}

/// What may be found in storage must be among the versions.
fn stored(definition: &Value) -> Vec<FieldError> {
    let versions = definition.array_at("/spec/versions");
    let known = |name: &Value| versions.iter().any(|version| version["name"] == *name);
    let stored = definition.array_at("/status/storedVersions");
    let mut errors = Vec::new();
    for (at, name) in stored.iter().enumerate().filter(|(_, name)| !known(name)) {
        let why = "must appear in spec.versions";
        errors.push(FieldError::invalid(format!("status.storedVersions[{at}]"), name.clone(), why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        let mut made = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}]},
        });
        Definition.default(&mut made);
        Definition.prepare_create(&mut made);
        made
    }

    #[test]
    fn defaults_and_status_of_a_new_definition() {
        let made = definition();
        assert_eq!(made["spec"]["names"]["singular"], "widget");
        assert_eq!(made["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(Definition.validate(&made, None), []);
    }

    #[test]
    fn mistakes_are_named() {
        let case = |pointer: &str, value: Value, expect: &str| {
            let mut made = definition();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            made.pointer_mut(parent).expect("a parent")[key] = value;
            let said: Vec<String> =
                Definition.validate(&made, None).iter().map(ToString::to_string).collect();
            assert!(said.iter().any(|line| line.contains(expect)), "{pointer}: {said:?}");
        };
        case(
            "/metadata/name",
            json!("x"),
            r#"metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group"#,
        );
        case(
            "/spec/scope",
            json!("x"),
            r#"spec.scope: Unsupported value: "x": supported values: "Cluster", "Namespaced""#,
        );
        case("/spec/group", json!("example"), "should be a domain with at least one dot");
        case("/spec/group", json!("x.k8s.io"), "protected groups must have approval annotation");
        case(
            "/spec/versions/0/storage",
            json!(false),
            "must have exactly one version marked as storage version",
        );
        case(
            "/spec/versions/0/schema",
            json!(null),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        );
        case(
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            "spec.conversion.webhook: Required value: required when strategy is set to Webhook",
        );
        case(
            "/spec/conversion",
            json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {}}}),
            "spec.conversion.webhook.clientConfig: Required value: exactly one of url or service is required",
        );
        case(
            "/status/storedVersions",
            json!(["v0"]),
            r#"status.storedVersions[0]: Invalid value: "v0": must appear in spec.versions"#,
        );
    }

    #[test]
    fn a_deleted_definition_waits_for_its_objects() {
        let held = Definition.prepare_delete(&definition()).expect("held");
        assert_eq!(held.finalizers().collect::<Vec<_>>(), [CLEANUP]);
        assert_eq!(Definition.prepare_delete(&held), None);
    }

    #[test]
    fn rules_are_checked_when_they_change() {
        let mut made = definition();
        made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] =
            json!({"spec": {"type": "object", "x-kubernetes-validations": [{"rule": "self.a > 0"}]}});
        let said = Definition.validate(&made, None);
        assert!(said.len() == 1 && said[0].detail.contains("undefined field 'a'"), "{said:?}");
        assert_eq!(Definition.validate(&made, Some(&made)), []);
    }
}
