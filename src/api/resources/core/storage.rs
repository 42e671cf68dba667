use serde_json::{Value, json};

use crate::api::resources::Strategy;
use crate::api::resources::fill::Fill;

/// PersistentVolumeClaims.
pub struct Claim;

impl Strategy for Claim {
    fn default(&self, claim: &mut Value) {
        claim.open("spec").fill_text("volumeMode", "Filesystem");
    }

    fn prepare_create(&self, claim: &mut Value) {
        claim.put("status", json!({"phase": "Pending"}));
    }
}

/// PersistentVolumes.
pub struct Volume;

impl Strategy for Volume {
    fn default(&self, volume: &mut Value) {
        let spec = volume.open("spec");
        spec.fill_text("persistentVolumeReclaimPolicy", "Retain");
        spec.fill_text("volumeMode", "Filesystem");
        spec.within("hostPath", |source| source.fill("type", ""));
    }

    fn prepare_create(&self, volume: &mut Value) {
        volume.put("status", json!({"phase": "Pending"}));
    }
}
