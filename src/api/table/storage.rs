//! Columns of volumes, claims and storage classes.

use serde_json::Value;

use super::view::{self, flag, items, or, text};
use super::{Column, Printer};

const ACCESS_MODES: Column = Column::text("Access Modes", "How the volume may be mounted.");
const CAPACITY: Column = Column::text("Capacity", "Size of the volume.");
const STORAGE_CLASS: Column = Column::text("StorageClass", "Class of the storage.");
const ATTRIBUTES_CLASS: Column = Column::text("VolumeAttributesClass", "Class of the volume's attributes.");
const VOLUME_MODE: Column = Column::text("VolumeMode", "Filesystem or Block.").wide();

/// `RWO,ROX`, in the order and with the short names Kubernetes uses.
fn access_modes(object: &Value, pointer: &str) -> String {
    const MODES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| items(object, pointer).iter().any(|m| m.as_str() == Some(mode));
    MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn attributes_class(object: &Value) -> Value {
    or(text(object, "/spec/volumeAttributesClassName"), view::UNSET).into()
}

/// `Terminating` while the object is being deleted, else its phase.
fn phase(object: &Value) -> Value {
    match object.pointer("/metadata/deletionTimestamp") {
        Some(at) if !at.is_null() => "Terminating".into(),
        _ => text(object, "/status/phase").into(),
    }
}

pub const VOLUMES: Printer = Printer {
    columns: &[
        Column::NAME,
        CAPACITY,
        ACCESS_MODES,
        Column::text("Reclaim Policy", "What becomes of the volume when its claim goes."),
        Column::text("Status", "Whether the volume is free or bound."),
        Column::text("Claim", "Claim the volume is bound to."),
        STORAGE_CLASS,
        ATTRIBUTES_CLASS,
        Column::text("Reason", "Why the volume is in this status."),
        Column::AGE,
        VOLUME_MODE,
    ],
    cells: |volume, now| {
        let claim = match text(volume, "/spec/claimRef/name") {
            "" => String::new(),
            name => format!("{}/{name}", text(volume, "/spec/claimRef/namespace")),
        };
        vec![
            view::name(volume),
            text(volume, "/spec/capacity/storage").into(),
            access_modes(volume, "/spec/accessModes").into(),
            text(volume, "/spec/persistentVolumeReclaimPolicy").into(),
            phase(volume),
            claim.into(),
            text(volume, "/spec/storageClassName").into(),
            attributes_class(volume),
            text(volume, "/status/reason").into(),
            view::age(volume, now),
            or(text(volume, "/spec/volumeMode"), view::UNSET).into(),
        ]
    },
};

pub const CLAIMS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Whether the claim has a volume."),
        Column::text("Volume", "Volume the claim is bound to."),
        CAPACITY,
        ACCESS_MODES,
        STORAGE_CLASS,
        ATTRIBUTES_CLASS,
        Column::AGE,
        VOLUME_MODE,
    ],
    cells: |claim, now| {
        let bound = !text(claim, "/spec/volumeName").is_empty();
        let of_bound = |text: String| if bound { text } else { String::new() };
        vec![
            view::name(claim),
            phase(claim),
            text(claim, "/spec/volumeName").into(),
            of_bound(text(claim, "/status/capacity/storage").to_owned()).into(),
            of_bound(access_modes(claim, "/status/accessModes")).into(),
            text(claim, "/spec/storageClassName").into(),
            attributes_class(claim),
            view::age(claim, now),
            or(text(claim, "/spec/volumeMode"), view::UNSET).into(),
        ]
    },
};

pub const CLASSES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Provisioner", "Who makes volumes of this class."),
        Column::text("ReclaimPolicy", "What becomes of a volume when its claim goes."),
        Column::text("VolumeBindingMode", "When a volume is bound."),
        Column::text("AllowVolumeExpansion", "Whether volumes may grow."),
        Column::AGE,
    ],
    cells: |class, now| {
        let default = view::map(class, "/metadata/annotations")
            .and_then(|all| all.get("storageclass.kubernetes.io/is-default-class"))
            .is_some_and(|value| value == "true");
        let name = text(class, "/metadata/name");
        vec![
            if default { format!("{name} (default)").into() } else { name.into() },
            text(class, "/provisioner").into(),
            or(text(class, "/reclaimPolicy"), "Delete").into(),
            or(text(class, "/volumeBindingMode"), "Immediate").into(),
            flag(class, "/allowVolumeExpansion").into(),
            view::age(class, now),
        ]
    },
};

pub const ATTACHMENTS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Attacher", "Driver that attaches the volume."),
        Column::text("PV", "Volume to be attached."),
        Column::text("Node", "Node it is to be attached to."),
        Column::text("Attached", "Whether it is."),
        Column::AGE,
    ],
    cells: |attachment, now| {
        vec![
            view::name(attachment),
            text(attachment, "/spec/attacher").into(),
            text(attachment, "/spec/source/persistentVolumeName").into(),
            text(attachment, "/spec/nodeName").into(),
            flag(attachment, "/status/attached").into(),
            view::age(attachment, now),
        ]
    },
};

pub const CSI_NODES: Printer = Printer {
    columns: &[Column::NAME, Column::number("Drivers", "Number of drivers on the node."), Column::AGE],
    cells: |node, now| {
        vec![view::name(node), items(node, "/spec/drivers").len().into(), view::age(node, now)]
    },
};

pub const CSI_DRIVERS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("AttachRequired", "Whether volumes are attached before they are mounted."),
        Column::text("PodInfoOnMount", "Whether the driver is told of the Pod."),
        Column::text("StorageCapacity", "Whether the driver says how much room there is."),
        Column::text("TokenRequests", "Audiences of the tokens the driver gets."),
        Column::text("RequiresRepublish", "Whether volumes are published again and again."),
        Column::text("Modes", "Kinds of volumes."),
        Column::AGE,
    ],
    cells: |driver, now| {
        let attach = driver.pointer("/spec/attachRequired").and_then(Value::as_bool).unwrap_or(true);
        let tokens = view::join(items(driver, "/spec/tokenRequests"), "/audience", ",");
        let modes = view::join_texts(items(driver, "/spec/volumeLifecycleModes"), ",");
        vec![
            view::name(driver),
            attach.into(),
            flag(driver, "/spec/podInfoOnMount").into(),
            flag(driver, "/spec/storageCapacity").into(),
            or(&tokens, view::UNSET).into(),
            flag(driver, "/spec/requiresRepublish").into(),
            or(&modes, view::NONE).into(),
            view::age(driver, now),
        ]
    },
};
