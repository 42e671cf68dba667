//! What is particular to PersistentVolumes.

use serde_json::{Value, json};

use super::claim::{access_modes, fractional_bytes, quantity};
use super::scheduling::node_selector;
use super::volume_source::{count_sources, persistent_sources};
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, IMMUTABLE, check, dns1123_subdomain, same};

const POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
/// Members of the spec that are not the source.
pub const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// PersistentVolumes.
pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    /// Rule: `SetDefaults_PersistentVolume` and of what it contains.
    fn default(&self, volume: &mut Value) {
        let spec = volume.open("spec");
        spec.fill_text("persistentVolumeReclaimPolicy", "Retain");
        spec.fill("volumeMode", "Filesystem");
        default_sources(spec);
    }

    fn checks_prefix(&self) -> bool {
        true
    }

    fn prepare_create(&self, volume: &mut Value) {
        volume.put("status", json!({"phase": "Pending"}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            rules(spec);
            if let Some(old) = old {
                update(spec, &old["spec"]);
            }
        })
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = fractional_bytes(new, "/spec/capacity/storage", "spec.capacity[storage]");
        if new.str_at("/spec/persistentVolumeReclaimPolicy") == Some("Recycle") {
            let why = "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
            warnings.push(why.to_owned());
        }
        warnings
    }

    fn selectable_fields(&self, _volume: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Defaults of sources that Pods and PersistentVolumes share.
pub fn default_sources(volume: &mut Value) {
    volume.within("hostPath", |source| source.fill("type", ""));
    volume.within("iscsi", |source| source.fill_text("iscsiInterface", "default"));
    volume.within("rbd", |source| {
        source.fill_text("pool", "rbd");
        source.fill_text("user", "admin");
        source.fill_text("keyring", "/etc/ceph/keyring");
    });
    volume.within("azureDisk", |source| {
        source.fill("cachingMode", "ReadWrite");
        source.fill("kind", "Shared");
        source.fill("fsType", "ext4");
        source.fill("readOnly", false);
    });
    volume.within("scaleIO", |source| {
        source.fill_text("storageMode", "ThinProvisioned");
        source.fill_text("fsType", "xfs");
    });
}

/// Rule: `ValidatePersistentVolumeSpec`.
fn rules(spec: &mut Check<'_, '_>) {
    access_modes(spec, "");
    let capacity = spec.get("capacity").as_object().cloned().unwrap_or_default();
    if capacity.is_empty() {
        spec.required("capacity", "");
    }
    if capacity.len() > 1 || !capacity.contains_key("storage") {
        let at = spec.at("capacity");
        spec.push(FieldError::not_supported(at, Value::Object(capacity), &["storage"]));
    }
    spec.each_key("capacity", |amount, _| quantity(amount, true));
    spec.maybe_one_of("persistentVolumeReclaimPolicy", POLICIES);
    spec.within("nodeAffinity", |affinity| {
        if affinity.has("required") {
            affinity.within("required", node_selector);
        } else {
            affinity.required("required", "must specify required node constraints");
        }
    });
    count_sources(spec, NOT_SOURCES);
    persistent_sources(spec, true);
    if spec.has("local") && !spec.has("nodeAffinity") {
        let at = spec.at("nodeAffinity");
        spec.push(FieldError::required(at, "Local volume requires node affinity"));
    }
    let root = spec.get("hostPath").text("path") == Some("/");
    if root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        spec.forbidden("persistentVolumeReclaimPolicy", why);
    }
    spec.named("storageClassName", dns1123_subdomain);
    spec.maybe_one_of("volumeMode", &["Block", "Filesystem"]);
    spec.named("volumeAttributesClassName", dns1123_subdomain);
}

/// Rule: `ValidatePersistentVolumeUpdate`.
fn update(spec: &mut Check<'_, '_>, old: &Value) {
    let source = |spec: &Value| -> Value {
        let members = spec.as_object().into_iter().flatten();
        members
            .filter(|(key, _)| !NOT_SOURCES.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (mut before, mut now) = (source(old), source(spec.value));
    for object in [&mut before, &mut now] {
        // Secrets for growing a volume may come later.
        object.within("csi", |csi| {
            csi.as_object_mut().map(|csi| csi.remove("controllerExpandSecretRef"));
            csi.as_object_mut().map(|csi| csi.remove("nodeExpandSecretRef"));
        });
    }
    if !same(&before, &now) {
        spec.forbidden("persistentvolumesource", "spec.persistentvolumesource is immutable after creation");
    }
    if spec.get("volumeMode") != &old["volumeMode"] {
        // Upstream names the place so.
        spec.push(FieldError::invalid("volumeMode", spec.get("volumeMode").clone(), IMMUTABLE));
    }
    if old.has("nodeAffinity") && !same(spec.get("nodeAffinity"), &old["nodeAffinity"]) {
        spec.invalid("nodeAffinity", format!("{IMMUTABLE}, except for updating from beta label to GA"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(spec: Value) -> Value {
        let mut volume = json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/data"}}});
        json_patch::merge(&mut volume, &json!({"spec": spec}));
        PersistentVolume.default(&mut volume);
        volume
    }

    fn check(spec: Value, expect: &[&str]) {
        let shown = spec.to_string();
        let errors = PersistentVolume.validate(&volume(spec), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }

    #[test]
    fn says_what_is_wrong() {
        check(json!({}), &[]);
        check(json!({"accessModes": []}), &["spec.accessModes: Required value"]);
        check(
            json!({"capacity": null}),
            &[
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: {}: supported values: \"storage\"",
            ],
        );
        check(
            json!({"capacity": {"storage": "0"}}),
            &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
        );
        check(json!({"hostPath": null}), &["spec: Required value: must specify a volume type"]);
        check(
            json!({"nfs": {"server": "s", "path": "/p"}}),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            json!({"persistentVolumeReclaimPolicy": "Odd"}),
            &[
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Odd\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            ],
        );
        check(
            json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}),
            &[
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ],
        );
        check(
            json!({"hostPath": null, "local": {"path": "/p"}}),
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        );
        check(
            json!({"nodeAffinity": {}}),
            &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
        );
        check(json!({"hostPath": null, "csi": {"driver": "d"}}), &["spec.csi.volumeHandle: Required value"]);
    }

    #[test]
    fn the_source_stays() {
        let old = volume(json!({}));
        let errors = PersistentVolume.validate(&volume(json!({"hostPath": {"path": "/other"}})), Some(&old));
        assert_eq!(errors[0].field, "spec.persistentvolumesource");
        assert_eq!(
            PersistentVolume.validate(&volume(json!({"capacity": {"storage": "2Gi"}})), Some(&old)),
            []
        );
    }
}
