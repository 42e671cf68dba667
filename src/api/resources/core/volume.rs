//! The volumes of a Pod.

use std::collections::BTreeSet;

use super::claim::validate_claim_spec;
use super::downward;
use super::volume_source::{count_sources, persistent_sources};
use crate::meta::ObjectExt;
use crate::validate::{
    Check, FieldError, annotations_errors, check_at, dns1123_label, dns1123_subdomain, labels_errors,
};

const HOST_PATHS: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// Checks a Pod's volumes and returns their names. The cursor stands at the Pod's spec.
pub fn validate<'a>(spec: &mut Check<'a, '_>) -> BTreeSet<&'a str> {
    let (mut names, mut sound) = (BTreeSet::new(), BTreeSet::new());
    spec.each("volumes", |volume| {
        let name = volume.text("name");
        let errors = check_at(volume.value, &volume.path, |volume| {
            if !volume.need("name", "").is_empty() {
                volume.named("name", dns1123_label);
                if !names.insert(name) {
                    volume.duplicate("name");
                }
            }
            count_sources(volume, &["name"]);
            persistent_sources(volume, false);
            local_sources(volume);
        });
        if errors.is_empty() {
            sound.insert(name);
        }
        volume.extend(errors);
    });
    sound
}

/// Sources that Pods have and PersistentVolumes have not.
fn local_sources(volume: &mut Check<'_, '_>) {
    volume.within("emptyDir", |source| {
        let size = crate::quantity::Quantity::from_value(source.get("sizeLimit"));
        if source.has("sizeLimit") && size.is_ok_and(|size| size.sign() < 0) {
            source.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity");
        }
    });
    volume.within("gitRepo", |source| {
        source.need("repository", "");
        if source.has("directory") {
            local_path(source, "directory");
        }
    });
    volume.within("secret", |source| {
        source.need("secretName", "");
        key_items(source);
    });
    volume.within("configMap", |source| {
        source.need("name", "");
        key_items(source);
    });
    volume.within("persistentVolumeClaim", |source| {
        source.need("claimName", "");
    });
    volume.within("downwardAPI", |source| {
        mode(source, "defaultMode");
        source.each("items", downward_item);
    });
    volume.within("projected", projected);
    volume.within("image", |source| {
        source.need("reference", "");
        source.maybe_one_of("pullPolicy", PULL_POLICIES);
    });
    volume.within("ephemeral", |source| {
        if !source.has("volumeClaimTemplate") {
            source.required("volumeClaimTemplate", "");
        }
        source.within("volumeClaimTemplate", |template| {
            let mut meta = template.child("metadata");
            let labels = labels_errors(Some(meta.get("labels")), &meta.at("labels"));
            meta.extend(labels);
            let notes = annotations_errors(Some(meta.get("annotations")), &meta.at("annotations"));
            meta.extend(notes);
            for field in ["name", "namespace", "generateName", "finalizers", "ownerReferences"] {
                if meta.has(field) {
                    meta.forbidden(field, "cannot be set");
                }
            }
            let errors = validate_claim_spec(template.get("spec"), &template.at("spec"));
            template.extend(errors);
        });
    });
}

/// Rule: a file's mode has nine bits.
fn mode(source: &mut Check<'_, '_>, key: &str) {
    if source.int(key).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        source.invalid(key, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn key_items(source: &mut Check<'_, '_>) {
    mode(source, "defaultMode");
    source.each("items", key_to_path);
}

/// Rule: `validateKeyToPath`.
fn key_to_path(item: &mut Check<'_, '_>) {
    item.need("key", "");
    if !item.need("path", "").is_empty() {
        local_path(item, "path");
    }
    mode(item, "mode");
}

fn downward_item(item: &mut Check<'_, '_>) {
    if !item.need("path", "").is_empty() {
        local_path(item, "path");
    }
    match (item.has("fieldRef"), item.has("resourceFieldRef")) {
        (true, true) => {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            item.push(FieldError::invalid(&item.path, "resource", why));
        }
        (true, false) => item.within("fieldRef", |field| downward::field(field, downward::Target::Volume)),
        (false, true) => item.within("resourceFieldRef", |field| downward::resource(field, true)),
        (false, false) => {
            let error = FieldError::required(&item.path, "one of fieldRef and resourceFieldRef is required");
            item.push(error);
        }
    }
    mode(item, "mode");
}

/// Rule: `validateLocalNonReservedPath`: relative, below its root, not starting with two dots.
pub fn local_path(check: &mut Check<'_, '_>, key: &str) {
    descending_path(check, key);
    let path = check.text(key);
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        check.invalid(key, "must not start with '..'");
    }
}

/// Rule: `validateLocalDescendingPath`.
pub fn descending_path(check: &mut Check<'_, '_>, key: &str) {
    let path = check.text(key);
    if path.starts_with('/') {
        check.invalid(key, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        check.invalid(key, "must not contain '..'");
    }
}

/// Rule: `validateProjectedVolumeSource`.
fn projected(volume: &mut Check<'_, '_>) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    mode(volume, "defaultMode");
    let mut paths: BTreeSet<String> = BTreeSet::new();
    volume.each("sources", |source| {
        let said: Vec<&str> = KINDS.into_iter().filter(|kind| source.has(kind)).collect();
        for extra in said.iter().skip(1) {
            source.forbidden(extra, "may not specify more than 1 volume type");
        }
        if said.is_empty() {
            source.push(FieldError::required(&source.path, "must specify a source"));
        }
        for kind in ["secret", "configMap"] {
            source.within(kind, |source| {
                source.need("name", "");
                source.each("items", key_to_path);
            });
        }
        source.within("downwardAPI", |source| source.each("items", downward_item));
        source.within("serviceAccountToken", |token| {
            let seconds = token.int("expirationSeconds").unwrap_or(0);
            if seconds < 600 {
                token.invalid("expirationSeconds", "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                token.invalid("expirationSeconds", "may not specify a duration larger than 2^32 seconds");
            }
            if !token.need("path", "").is_empty() {
                local_path(token, "path");
            }
        });
        source.within("clusterTrustBundle", |bundle| {
            match (bundle.has("name"), bundle.has("signerName")) {
                (true, true) => {
                    bundle.wrong("only one of name and signerName may be used");
                }
                (true, false) => bundle.named("name", |name| dns1123_subdomain(&name.replace(':', "."))),
                (false, true) => {}
                (false, false) => {
                    bundle.push(FieldError::required(
                        &bundle.path,
                        "either name or signerName must be specified",
                    ));
                }
            }
            if !bundle.need("path", "").is_empty() {
                local_path(bundle, "path");
            }
        });
        conflicts(source, &mut paths);
    });
}

/// Two files of one volume must not have one path.
fn conflicts(source: &mut Check<'_, '_>, paths: &mut BTreeSet<String>) {
    let lists = ["secret", "configMap", "downwardAPI"];
    let items = lists.iter().flat_map(|kind| source.value.array_at(&format!("/{kind}/items")));
    let mut found: Vec<String> = items.filter_map(|item| item.text("path")).map(str::to_owned).collect();
    for kind in ["serviceAccountToken", "clusterTrustBundle"] {
        found.extend(source.value.str_at(&format!("/{kind}/path")).map(str::to_owned));
    }
    for path in found.into_iter().filter(|path| !path.is_empty()) {
        if paths.contains(&path) {
            let why = format!("conflicting duplicate paths: {path}");
            source.push(FieldError::invalid(&source.path, path, why));
        } else {
            paths.insert(path);
        }
    }
}

/// What both Pods and PersistentVolumes say of a directory of the node.
pub fn host_path(source: &mut Check<'_, '_>) {
    let path = source.need("path", "");
    if path.split('/').any(|part| part == "..") {
        source.invalid("path", "must not contain '..'");
    }
    source.one_of("type", HOST_PATHS);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validate::Path;

    fn check(volume: Value, expect: &[&str]) {
        let shown = volume.to_string();
        let mut volume = volume;
        volume["name"] = json!("v");
        let spec = json!({"volumes": [volume]});
        let errors = check_at(&spec, &Path::new("spec"), |spec| {
            validate(spec);
        });
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }

    #[test]
    fn says_what_is_wrong() {
        let at = "spec.volumes[0]";
        check(json!({"emptyDir": {}}), &[]);
        check(json!({}), &[&format!("{at}: Required value: must specify a volume type")]);
        check(
            json!({"emptyDir": {}, "secret": {"secretName": "s"}}),
            &[&format!("{at}.secret: Forbidden: may not specify more than 1 volume type")],
        );
        check(
            json!({"hostPath": {"path": "", "type": ""}}),
            &[&format!("{at}.hostPath.path: Required value")],
        );
        check(
            json!({"hostPath": {"path": "/a/../b", "type": ""}}),
            &[&format!("{at}.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'")],
        );
        check(json!({"secret": {}}), &[&format!("{at}.secret.secretName: Required value")]);
        check(json!({"configMap": {}}), &[&format!("{at}.configMap.name: Required value")]);
        check(
            json!({"configMap": {"name": "c", "defaultMode": 512}}),
            &[&format!(
                "{at}.configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"
            )],
        );
        check(
            json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "/abs"}]}}),
            &[&format!("{at}.configMap.items[0].path: Invalid value: \"/abs\": must be a relative path")],
        );
        check(
            json!({"persistentVolumeClaim": {}}),
            &[&format!("{at}.persistentVolumeClaim.claimName: Required value")],
        );
        check(
            json!({"nfs": {"server": "s", "path": "rel"}}),
            &[&format!("{at}.nfs.path: Invalid value: \"rel\": must be an absolute path")],
        );
        check(json!({"csi": {}}), &[&format!("{at}.csi.driver: Required value")]);
        check(json!({"image": {}}), &[&format!("{at}.image.reference: Required value")]);
        check(
            json!({"downwardAPI": {"items": [{"path": "p", "fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}]}}),
            &[&format!(
                "{at}.downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\""
            )],
        );
        check(
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}),
            &[&format!(
                "{at}.projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"
            )],
        );
    }
}
