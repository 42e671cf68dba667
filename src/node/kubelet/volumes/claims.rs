//! Volumes behind claims.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;

use super::prepare::{Mounted, VolumeError, at, unsupported};
use super::projected::Contents;
use super::tokens::Tokens;
use super::{csi, host_path, nfs, owner};
use api::resources::VOLUME_NOT_SOURCES;
use rt::Backoff;

/// A claim is bound shortly after its first Pod was placed: so often it is looked at before the Pod is told to wait.
const LOOKS: u32 = 6;
const BETWEEN: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };

/// A Pod's use of a claim.
pub struct Claim {
    name: String,
    read_only: bool,
    /// Made for this Pod alone.
    ephemeral: bool,
}

impl Claim {
    /// The claim a volume stands for, where it does.
    pub fn of(pod: &Pod, volume: &Volume) -> Option<Self> {
        if let Some(source) = &volume.persistent_volume_claim {
            let read_only = source.read_only == Some(true);
            return Some(Self { name: source.claim_name.clone(), read_only, ephemeral: false });
        }
        volume.ephemeral.as_ref()?;
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        Some(Self { name: format!("{pod}-{}", volume.name), read_only: false, ephemeral: true })
    }

    /// Where the volume bound to the claim is on this node; `target` is where it is mounted if it must be.
    ///
    /// Fails when the claim is not bound, is somebody else's, or has a volume of a kind this node cannot mount.
    pub async fn place(
        &self,
        contents: &Contents<'_>,
        target: &Path,
        group: Option<u32>,
        tokens: &mut Tokens,
    ) -> Result<Mounted, VolumeError> {
        let (claim, volume) = self.volume(contents).await?;
        let spec = volume.spec.clone().unwrap_or_default();
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err(VolumeError::Claim("block devices are not supported by this node".to_owned()));
        }
        let mut read_only = self.read_only;
        if spec.csi.is_some() {
            return csi::persistent(contents, &volume, &claim, read_only, group, tokens).await;
        }
        if let Some(source) = &spec.host_path {
            let path = PathBuf::from(&source.path);
            let new = !path.exists();
            host_path::check(&path, source.type_.as_deref().unwrap_or_default())
                .map_err(VolumeError::HostPath)?;
            if new && path.is_dir() {
                // Made for the claim: whoever its containers run as writes there.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(at(&path))?;
            }
            return Ok(Mounted { path, read_only, republish: false });
        }
        if let Some(source) = &spec.local {
            let path = PathBuf::from(&source.path);
            if !path.is_dir() {
                return Err(VolumeError::Claim(format!("path \"{}\" does not exist", source.path)));
            }
            owner::give(path.clone(), group, contents.pod).await?;
            return Ok(Mounted { path, read_only, republish: false });
        }
        if let Some(source) = &spec.nfs {
            read_only |= source.read_only == Some(true);
            nfs::mount(target, &source.server, &source.path, read_only).await?;
            return Ok(Mounted { path: target.to_owned(), read_only, republish: false });
        }
        Err(unsupported(&spec, VOLUME_NOT_SOURCES))
    }

    /// Lets the mounted volume of a driver grow with its claim, and asks the driver for it again where it wants that.
    ///
    /// # Errors
    ///
    /// When the driver is not registered here, or refuses.
    pub async fn renew(
        &self,
        contents: &Contents<'_>,
        group: Option<u32>,
        tokens: &mut Tokens,
    ) -> Result<(), VolumeError> {
        let (claim, volume) = self.volume(contents).await?;
        match volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()) {
            true => csi::renew(contents, &volume, &claim, self.read_only, group, tokens).await,
            false => Ok(()),
        }
    }

    /// The volume bound to the claim. Both sides must say so.
    async fn volume(
        &self,
        contents: &Contents<'_>,
    ) -> Result<(PersistentVolumeClaim, PersistentVolume), VolumeError> {
        let namespace = contents.pod.metadata.namespace.as_deref().unwrap_or("default");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(contents.client.clone(), namespace);
        let mut looks = 0;
        let claim = loop {
            let found =
                claims.get_opt(&self.name).await.map_err(|error| VolumeError::Claim(error.to_string()))?;
            if let Some(claim) = found.filter(is_bound) {
                break claim;
            }
            looks += 1;
            if looks == LOOKS {
                let text = format!("persistentvolumeclaim \"{}\" is not bound", self.name);
                return Err(VolumeError::Claim(text));
            }
            tokio::time::sleep(BETWEEN.delay(looks)).await;
        };
        let uid = contents.pod.metadata.uid.as_deref().unwrap_or_default();
        if self.ephemeral && !client::typed::is_controlled_by(&claim.metadata, uid) {
            let text = format!("PVC \"{}\" was not created for this Pod (it is not its owner)", self.name);
            return Err(VolumeError::Claim(text));
        }
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
        let volumes: Api<PersistentVolume> = Api::all(contents.client.clone());
        let volume = volumes.get(&name).await.map_err(|error| VolumeError::Claim(error.to_string()))?;
        let bound_to = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.clone());
        if bound_to != claim.metadata.uid {
            let text = format!("volume \"{name}\" is bound to another claim than \"{}\"", self.name);
            return Err(VolumeError::Claim(text));
        }
        Ok((claim, volume))
    }
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    named.is_some_and(|name| !name.is_empty()) && phase == Some("Bound")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing::pod;
    use serde_json::json;

    #[test]
    fn what_is_not_supported_is_named() {
        let spec: k8s_openapi::api::core::v1::PersistentVolumeSpec = serde_json::from_value(json!({
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "volumeMode": "Filesystem",
            "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2026-01.example:x", "lun": 0}}))
        .expect("a volume");
        let text = unsupported(&spec, VOLUME_NOT_SOURCES).to_string();
        assert_eq!(text, "iscsi volumes are not supported by this node");
    }

    #[test]
    fn claims_by_name_and_by_pod() {
        let pod = pod(json!({"metadata": {"name": "web"}, "spec": {"containers": []}}));
        let check = |volume: serde_json::Value, expect: Option<(&str, bool, bool)>| {
            let volume = serde_json::from_value(volume).expect("a volume");
            let claim = Claim::of(&pod, &volume);
            let seen = claim.as_ref().map(|claim| (claim.name.as_str(), claim.read_only, claim.ephemeral));
            assert_eq!(seen, expect);
        };
        let source = json!({"claimName": "data", "readOnly": true});
        check(json!({"name": "v", "persistentVolumeClaim": source}), Some(("data", true, false)));
        check(json!({"name": "v", "ephemeral": {}}), Some(("web-v", false, true)));
        check(json!({"name": "v", "emptyDir": {}}), None);
    }
}
