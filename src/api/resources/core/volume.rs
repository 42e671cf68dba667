use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::meta::ObjectExt;
use crate::api::resources::fill::Fill;
use crate::api::validate::{FieldError, Path, config_map_key, dns1123_label};

/// Checks a Pod's volumes and answers their names.
pub fn validate<'a>(spec: &'a Value, path: &Path, errors: &mut Vec<FieldError>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.array_at("/volumes").iter().enumerate() {
        let at = path.child("volumes").index(index);
        let name = volume.text("name").unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(at.child("name"), ""));
        } else {
            errors.extend(
                dns1123_label(name).into_iter().map(|why| FieldError::invalid(at.child("name"), name, why)),
            );
            if !names.insert(name) {
                errors.push(FieldError::duplicate(at.child("name"), name));
            }
        }
        source(volume, &at, errors);
    }
    names
}

fn source(volume: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, v)| *k != "name" && !v.is_null())
        .map(|(k, _)| k)
        .collect();
    if sources.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for extra in sources.iter().skip(1) {
        errors.push(FieldError::forbidden(path.child(extra), "may not specify more than 1 volume type"));
    }
    let mut needed = |kind: &str, field: &str| {
        if volume.has(kind) && volume[kind].text(field).unwrap_or_default().is_empty() {
            errors.push(FieldError::required(path.child(kind).child(field), ""));
        }
    };
    needed("hostPath", "path");
    needed("configMap", "name");
    needed("secret", "secretName");
    needed("persistentVolumeClaim", "claimName");
    for kind in ["configMap", "secret"] {
        if !volume.has(kind) {
            continue;
        }
        let at = path.child(kind);
        if let Some(mode) =
            volume[kind].get("defaultMode").and_then(Value::as_i64).filter(|m| !(0..=0o777).contains(m))
        {
            let why = "must be a number between 0 and 0777 (octal), both inclusive";
            errors.push(FieldError::invalid(at.child("defaultMode"), mode, why));
        }
        for (index, item) in volume[kind].array_at("/items").iter().enumerate() {
            let at = at.child("items").index(index);
            let key = item.text("key").unwrap_or_default();
            if key.is_empty() {
                errors.push(FieldError::required(at.child("key"), ""));
            } else {
                let wrong = config_map_key(key).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(at.child("key"), key, why)));
            }
            relative(item.text("path").unwrap_or_default(), &at.child("path"), errors);
        }
    }
    if volume.has("hostPath") {
        let target = volume["hostPath"].text("path").unwrap_or_default();
        if target.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(
                path.child("hostPath").child("path"),
                target,
                "must not contain '..'",
            ));
        }
        const TYPES: &[&str] = &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ];
        let kind = volume["hostPath"].text("type").unwrap_or_default();
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(path.child("hostPath").child("type"), kind, TYPES));
        }
    }
}

fn relative(target: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if target.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must be a relative path"));
    } else if target.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, target, "must not contain '..'"));
    }
}
