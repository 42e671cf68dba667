//! Where the bytes of a volume are: the sources that Pods and PersistentVolumes share.

use super::volume::host_path;
use crate::validate::{Check, FieldError, dns1123_label, dns1123_subdomain};

/// There is one source, and only one. `others`: members of the value that are no sources.
pub fn count_sources(volume: &mut Check<'_, '_>, others: &[&str]) {
    let members = volume.value.as_object().into_iter().flatten();
    let sources: Vec<&str> = members
        .filter(|(key, value)| !others.contains(&key.as_str()) && !value.is_null())
        .map(|(key, _)| key.as_str())
        .collect();
    if sources.is_empty() {
        volume.push(FieldError::required(&volume.path, "must specify a volume type"));
    }
    for extra in sources.iter().skip(1) {
        volume.forbidden(extra, "may not specify more than 1 volume type");
    }
}

/// Texts that each source cannot do without.
const NEEDED: &[(&str, &[&str])] = &[
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("quobyte", &["registry", "volume"]),
    ("vsphereVolume", &["volumePath"]),
    ("portworxVolume", &["volumeID"]),
    ("photonPersistentDisk", &["pdID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
];

/// Everything wrong with the sources that are there. `persistent`: of a PersistentVolume.
pub fn persistent_sources(volume: &mut Check<'_, '_>, persistent: bool) {
    for (kind, fields) in NEEDED {
        volume.within(kind, |source| {
            for field in *fields {
                source.need(field, "");
            }
        });
    }
    volume.within("hostPath", host_path);
    for kind in ["gcePersistentDisk", "awsElasticBlockStore"] {
        volume.within(kind, |source| source.in_range("partition", 0, 255));
    }
    volume.within("nfs", |source| {
        let path = source.text("path");
        if !path.starts_with('/') {
            source.push(FieldError::invalid(source.at("path"), path, "must be an absolute path"));
        }
    });
    volume.within("local", |source| {
        if source.text("path").split('/').any(|part| part == "..") {
            source.invalid("path", "must not contain '..'");
        }
    });
    volume.within("iscsi", iscsi);
    volume.within("fc", fibre_channel);
    for kind in ["rbd", "cephfs"] {
        volume.within(kind, |source| {
            if source.list("monitors").is_empty() {
                source.required("monitors", "");
            }
        });
    }
    volume.within("azureDisk", |source| {
        source.maybe_one_of("cachingMode", &["None", "ReadOnly", "ReadWrite"]);
        source.maybe_one_of("kind", &["Dedicated", "Managed", "Shared"]);
    });
    volume.within("csi", |source| csi(source, persistent));
}

fn iscsi(source: &mut Check<'_, '_>) {
    let iqn = source.text("iqn");
    let known = ["iqn.", "eui.", "naa."].iter().any(|start| iqn.starts_with(start));
    if !iqn.is_empty() && !known {
        source.invalid("iqn", "must be valid format starting with iqn, eui, or naa");
    }
    source.in_range("lun", 0, 255);
    let chap = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if chap && !source.has("secretRef") {
        source.required("secretRef", "");
    }
}

fn fibre_channel(source: &mut Check<'_, '_>) {
    let (names, ids) = (source.list("targetWWNs").is_empty(), source.list("wwids").is_empty());
    match (names, ids) {
        (true, true) => {
            source.required("targetWWNs", "must specify either targetWWNs or wwids, but not both")
        }
        (false, false) => {
            source.invalid("targetWWNs", "targetWWNs and wwids can not be specified simultaneously");
        }
        (false, true) if !source.has("lun") => {
            source.required("lun", "lun is required if targetWWNs is specified")
        }
        (false, true) => source.in_range("lun", 0, 255),
        (true, false) => {}
    }
}

/// Rule: `ValidateCSIDriverName`.
pub fn csi_driver(source: &mut Check<'_, '_>, key: &str) {
    let name = source.need(key, "");
    if name.len() > 63 {
        source.push(FieldError::too_long(source.at(key), 63));
    }
    if !name.is_empty() {
        source.follow(key, dns1123_subdomain(&name.to_lowercase()));
    }
}

fn csi(source: &mut Check<'_, '_>, persistent: bool) {
    csi_driver(source, "driver");
    if persistent {
        source.need("volumeHandle", "");
    }
    let secrets = [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
    ];
    for secret in secrets {
        source.within(secret, |secret| {
            secret.need("name", "");
            if persistent {
                secret.need("namespace", "");
                secret.named("namespace", dns1123_label);
            }
        });
    }
}
