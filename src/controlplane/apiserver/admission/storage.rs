//! Admission of claims and volumes: default class, protection, expansion.

use serde_json::Value;

use super::{Attributes, Context, Operation, Plugin, pod};
use api::meta::ObjectExt;
use api::quantity::Quantity;
use api::status::ApiError;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";
const PV_PROTECTION: &str = "kubernetes.io/pv-protection";

/// Claims that name no class get the default one.
pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "persistentvolumeclaims") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(claim) = attributes.object.as_mut() else { return Ok(()) };
        // A class that is said to be empty is a wish: for a volume that somebody made by hand.
        let said = claim.pointer("/spec/storageClassName").is_some_and(|class| !class.is_null());
        if said || claim.annotation(CLASS_ANNOTATION).is_some() {
            return Ok(());
        }
        // Rule: of several, the newest, and of equally new ones the first by name.
        let defaults =
            context.known.storage_classes().filter(|class| class.annotation(IS_DEFAULT) == Some("true"));
        let newest = defaults.max_by(|a, b| {
            let age = |class: &Value| class.creation_timestamp().unwrap_or_default().to_owned();
            age(a).cmp(&age(b)).then_with(|| b.name().cmp(a.name()))
        });
        if let Some(class) = newest {
            pod::set_spec(claim, "storageClassName", class.name());
        }
        Ok(())
    }
}

/// Claims and volumes that somebody uses stay until nobody does: a finalizer, which the controllers take away.
pub(super) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        let finalizer = match attributes.resource {
            "persistentvolumeclaims" => PVC_PROTECTION,
            "persistentvolumes" => PV_PROTECTION,
            _ => return Ok(()),
        };
        let plain = attributes.group.is_empty() && attributes.subresource.is_empty();
        if !plain || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        if !object.finalizers().any(|own| own == finalizer)
            && let Some(meta) = object.get_mut("metadata")
        {
            pod::push(meta, "finalizers", finalizer.into());
        }
        Ok(())
    }
}

/// Only claims whose class says so may ask for more than they have.
pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "persistentvolumeclaims") || attributes.operation != Operation::Update {
            return Ok(());
        }
        let (Some(new), Some(old)) = (attributes.object.as_ref(), attributes.old) else { return Ok(()) };
        let size = |claim: &Value| {
            claim.pointer("/spec/resources/requests/storage").and_then(|size| Quantity::from_value(size).ok())
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        let class = new.annotation(CLASS_ANNOTATION).or_else(|| new.str_at("/spec/storageClassName"));
        let class = class.unwrap_or_default();
        let allowed = context
            .known
            .storage_classes()
            .any(|own| own.name() == class && own.bool_at("/allowVolumeExpansion") == Some(true));
        if allowed {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(attributes.forbidden(why))
    }
}
