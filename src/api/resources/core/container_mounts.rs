//! Volumes and devices as a container sees them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::volume::descending_path;
use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError};

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];

/// Rule: `ValidateVolumeMounts`.
pub fn mounts(container: &mut Check<'_, '_>, volumes: &BTreeSet<&str>) {
    let devices = container.list("volumeDevices");
    let privileged = container.value.bool_at("/securityContext/privileged") == Some(true);
    let mut paths = BTreeSet::new();
    container.each("volumeMounts", |mount| {
        let name = mount.need("name", "");
        if !volumes.contains(name) {
            mount.push(FieldError::not_found(mount.at("name"), name));
        }
        let path = mount.need("mountPath", "");
        if !paths.insert(path) {
            mount.invalid("mountPath", "must be unique");
        }
        if devices.iter().any(|device| device.text("name") == Some(name)) {
            mount.invalid("name", "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.text("devicePath") == Some(path)) {
            mount.invalid("mountPath", "must not already exist as a path in volumeDevices");
        }
        descending_path(mount, "subPath");
        if !mount.text("subPathExpr").is_empty() {
            if !mount.text("subPath").is_empty() {
                mount.invalid("subPathExpr", "subPathExpr and subPath are mutually exclusive");
            }
            descending_path(mount, "subPathExpr");
        }
        if mount.has("mountPropagation") {
            mount.one_of("mountPropagation", PROPAGATIONS);
            if mount.text("mountPropagation") == "Bidirectional" && !privileged {
                let why = "Bidirectional mount propagation is available only to privileged containers";
                mount.forbidden("mountPropagation", why);
            }
        }
        recursive_read_only(mount);
    });
}

fn recursive_read_only(mount: &mut Check<'_, '_>) {
    let recursive = mount.text("recursiveReadOnly");
    if !mount.has("recursiveReadOnly") || recursive == "Disabled" {
        return;
    }
    if !["Enabled", "IfPossible"].contains(&recursive) {
        mount.one_of("recursiveReadOnly", &["Disabled", "IfPossible", "Enabled"]);
        return;
    }
    if !mount.flag("readOnly") {
        mount.forbidden("recursiveReadOnly", "may only be specified when readOnly is true");
    }
    if !matches!(mount.text("mountPropagation"), "" | "None") {
        mount.forbidden(
            "recursiveReadOnly",
            "may only be specified when mountPropagation is None or not specified",
        );
    }
}

/// Rule: `ValidateVolumeDevices`.
pub fn devices(container: &mut Check<'_, '_>, volumes: &BTreeSet<&str>, pod: &Value) {
    let mounts = container.list("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    container.each("volumeDevices", |device| {
        let (name, path) = (device.need("name", ""), device.text("devicePath"));
        if !names.insert(name) {
            device.invalid("name", "must be unique");
        }
        let volume = pod.array_at("/volumes").iter().find(|volume| volume.text("name") == Some(name));
        let claimed =
            volume.is_some_and(|volume| volume.has("persistentVolumeClaim") || volume.has("ephemeral"));
        if volume.is_some() && !claimed {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            device.invalid("name", why);
        }
        if !volumes.contains(name) {
            device.push(FieldError::not_found(device.at("name"), name));
        }
        device.need("devicePath", "");
        if path.split('/').any(|part| part == "..") {
            device.invalid("devicePath", "can not contain backsteps ('..')");
        } else if !paths.insert(path) {
            device.invalid("devicePath", "must be unique");
        }
        if mounts.iter().any(|mount| mount.text("name") == Some(name)) {
            device.invalid("name", "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == Some(path)) {
            device.invalid("devicePath", "must not already exist as a path in volumeMounts");
        }
    });
}
