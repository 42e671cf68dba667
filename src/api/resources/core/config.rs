//! What is particular to ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, Path, config_map_key};

/// Rule: `MaxSecretSize`, for both kinds.
const MAX_BYTES: usize = 1024 * 1024;

fn keys(object: &Value, members: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut total = 0;
    for member in members {
        let at = Path::new(member);
        for (key, value) in object.get(member).and_then(Value::as_object).into_iter().flatten() {
            let wrong = config_map_key(key).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(at.key(key), key.as_str(), why)));
            total += value.as_str().map_or(0, str::len);
        }
    }
    if total > MAX_BYTES {
        errors.push(FieldError::too_long("", MAX_BYTES));
    }
    errors
}

/// What `immutable: true` forbids: to take it back, or to change any of the members.
fn immutable(new: &Value, old: &Value, members: &[&str]) -> Vec<FieldError> {
    if old.get("immutable").and_then(Value::as_bool) != Some(true) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let why = "field is immutable when `immutable` is set";
    if new.get("immutable").and_then(Value::as_bool) != Some(true) {
        errors.push(FieldError::forbidden("immutable", why));
    }
    for member in members.iter().filter(|member| new.get(**member) != old.get(**member)) {
        errors.push(FieldError::forbidden(member, why));
    }
    errors
}

pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn checks_prefix(&self) -> bool {
        true
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = keys(new, &["data", "binaryData"]);
        let (data, binary) = (new.get("data").and_then(Value::as_object), new.get("binaryData"));
        for key in data.into_iter().flatten().map(|(key, _)| key) {
            if binary.is_some_and(|binary| binary.get(key).is_some()) {
                let why = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(Path::new("data").key(key), key.as_str(), why));
            }
        }
        errors.extend(old.into_iter().flat_map(|old| immutable(new, old, &["data", "binaryData"])));
        errors
    }
}

pub struct Secret;

impl Strategy for Secret {
    fn checks_prefix(&self) -> bool {
        true
    }

    fn default(&self, secret: &mut Value) {
        secret.fill_text("type", "Opaque");
        // The write-only convenience form becomes the stored one.
        let Some(Value::Object(texts)) = secret.get("stringData").cloned() else { return };
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            secret.open("data").put(&key, STANDARD.encode(text));
        }
        if let Some(members) = secret.as_object_mut() {
            members.remove("stringData");
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Rule: an update that says no type keeps the one there is.
        if new.get("type").is_none_or(|kind| kind == "") {
            new.put("type", old.get("type").cloned().unwrap_or_else(|| json!("Opaque")));
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = keys(new, &["data"]);
        let data = Path::new("data");
        let mut needed = |key: &str| {
            if new.get("data").and_then(|data| data.get(key)).is_none() {
                errors.push(FieldError::required(data.key(key), ""));
            }
        };
        match new.text("type").unwrap_or_default() {
            "kubernetes.io/dockerconfigjson" => needed(".dockerconfigjson"),
            "kubernetes.io/dockercfg" => needed(".dockercfg"),
            "kubernetes.io/tls" => {
                needed("tls.crt");
                needed("tls.key");
            }
            "kubernetes.io/ssh-auth" => needed("ssh-privatekey"),
            "kubernetes.io/service-account-token"
                if new.annotation("kubernetes.io/service-account.name").unwrap_or_default().is_empty() =>
            {
                let at = Path::new("metadata.annotations").key("kubernetes.io/service-account.name");
                errors.push(FieldError::required(at, ""));
            }
            _ => {}
        }
        if let Some(old) = old {
            if old.text("type") != new.text("type") {
                errors.push(FieldError::invalid("type", new["type"].clone(), "field is immutable"));
            }
            errors.extend(immutable(new, old, &["data"]));
        }
        errors
    }

    fn selectable_fields(&self, secret: &Value) -> Vec<(&'static str, String)> {
        vec![("type", secret.text("type").unwrap_or_default().to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}});
        Secret.default(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}}));
    }

    #[test]
    fn immutable_means_it() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let check = |new: Value, expect: &[&str]| {
            let errors = ConfigMap.validate(&new, Some(&old));
            assert_eq!(errors.iter().map(|e| e.field.clone()).collect::<Vec<_>>(), expect);
        };
        check(old.clone(), &[]);
        check(json!({"immutable": true, "data": {"a": "2"}}), &["data"]);
        check(json!({"data": {"a": "1"}}), &["immutable"]);
    }
}
