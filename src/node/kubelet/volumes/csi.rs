//! Volumes of storage drivers: staged once for the node, published for each Pod, and taken back in the other order.
//!
//! ```text
//! attached (VolumeAttachment) -> NodeStageVolume -> NodePublishVolume -> NodeExpandVolume where it grew
//! Pod gone: NodeUnpublishVolume -> NodeUnstageVolume after the last Pod -> detached by the control plane
//! ```

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, VolumeAttachment};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::owner;
use super::prepare::{Mounted, VolumeError, at};
use super::projected::Contents;
use super::tokens::Tokens;
use crate::csi::api;
use crate::csi::api::node_service_capability::rpc::Type as Feature;
use crate::csi::api::volume_capability::access_mode::Mode;
use crate::kubelet::container::quantity_value;
use crate::kubelet::plugins::{Drivers, Registered, Staged, mounted_in, staging};
use crate::kubelet::spec;
use rt::Backoff;

/// A volume is attached shortly after its Pod was placed: so often it is looked at before the Pod is told to wait.
const LOOKS: u32 = 8;
const BETWEEN: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(2) };

type Strings = HashMap<String, String>;

/// One volume that is to be mounted for one Pod.
struct Request<'a> {
    contents: &'a Contents<'a>,
    group: Option<u32>,
    driver: Registered,
    rules: CSIDriverSpec,
    staged: Staged,
    fs_type: String,
    mount_flags: Vec<String>,
    modes: Vec<String>,
    read_only: bool,
    attributes: Strings,
}

fn wrong(why: impl ToString) -> VolumeError {
    VolumeError::Claim(why.to_string())
}

fn strings(map: Option<&std::collections::BTreeMap<String, String>>) -> Strings {
    map.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn driver(drivers: &Drivers, name: &str) -> Result<Registered, VolumeError> {
    let missing = || wrong(format!("driver name {name} not found in the list of registered CSI drivers"));
    drivers.get(name).ok_or_else(missing)
}

/// What the driver's object says of it; one that has none is as such an object without a word.
async fn rules(client: &Client, name: &str) -> Result<CSIDriverSpec, VolumeError> {
    let found = Api::<CSIDriver>::all(client.clone()).get_opt(name).await.map_err(wrong)?;
    Ok(found.map(|driver| driver.spec).unwrap_or_default())
}

/// Mounts a PersistentVolume of a driver.
///
/// Fails while it is not attached, when the driver is not registered here, and when the driver refuses.
pub async fn persistent(
    contents: &Contents<'_>,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    read_only: bool,
    group: Option<u32>,
    tokens: &mut Tokens,
) -> Result<Mounted, VolumeError> {
    let (request, source) = of_volume(contents, volume, read_only, group).await?;
    let _held = contents.drivers.hold(&source.driver, &source.volume_handle).await;
    let dir = request.begin()?;
    let attached = request.attached().await?;
    let staged_at = request.stage(&source, &attached).await?;
    let secret = publish_secrets(contents, &source).await?;
    let place = request.publish(&dir, staged_at.clone(), attached, secret, tokens).await?;
    request.give(&place).await?;
    request.expand(volume, claim, &place.path, staged_at).await?;
    Ok(place)
}

/// Lets a mounted PersistentVolume of a driver grow with its claim; the driver is asked for it again where it wants that.
///
/// # Errors
///
/// When the driver is not registered here, or refuses.
pub async fn renew(
    contents: &Contents<'_>,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    read_only: bool,
    group: Option<u32>,
    tokens: &mut Tokens,
) -> Result<(), VolumeError> {
    let (request, source) = of_volume(contents, volume, read_only, group).await?;
    let _held = contents.drivers.hold(&source.driver, &source.volume_handle).await;
    let dir = request.dir();
    let staged_at = request.staging();
    if request.republishes() {
        let attached = request.attached().await?;
        let secret = publish_secrets(contents, &source).await?;
        request.publish(&dir, staged_at.clone(), attached, secret, tokens).await?;
    }
    request.expand(volume, claim, &dir.join("mount"), staged_at).await
}

async fn of_volume<'a>(
    contents: &'a Contents<'a>,
    volume: &PersistentVolume,
    read_only: bool,
    group: Option<u32>,
) -> Result<(Request<'a>, CSIPersistentVolumeSource), VolumeError> {
    let spec = volume.spec.clone().unwrap_or_default();
    let source = spec.csi.unwrap_or_default();
    let rules = rules(contents.client, &source.driver).await?;
    let request = Request {
        contents,
        group,
        driver: driver(contents.drivers, &source.driver)?,
        staged: Staged {
            driver_name: source.driver.clone(),
            volume_handle: source.volume_handle.clone(),
            spec_vol_id: volume.name_any(),
            volume_lifecycle_mode: "Persistent".to_owned(),
            attachment_id: match rules.attach_required {
                Some(false) => String::new(),
                _ => attachment(&source.volume_handle, &source.driver, &contents.facts.node),
            },
        },
        rules,
        fs_type: source.fs_type.clone().unwrap_or_default(),
        mount_flags: spec.mount_options.unwrap_or_default(),
        modes: spec.access_modes.unwrap_or_default(),
        read_only: read_only || source.read_only == Some(true),
        attributes: strings(source.volume_attributes.as_ref()),
    };
    Ok((request, source))
}

async fn publish_secrets(
    contents: &Contents<'_>,
    source: &CSIPersistentVolumeSource,
) -> Result<Strings, VolumeError> {
    let Some(secret) = &source.node_publish_secret_ref else { return Ok(Strings::new()) };
    let name = secret.name.as_deref().unwrap_or_default();
    secrets(contents.client, secret.namespace.as_deref().unwrap_or_default(), name).await
}

/// Mounts a volume that a Pod itself describes: it lives as long as the Pod.
pub async fn inline(
    contents: &Contents<'_>,
    name: &str,
    source: &CSIVolumeSource,
    group: Option<u32>,
    tokens: &mut Tokens,
) -> Result<Mounted, VolumeError> {
    let request = of_pod(contents, name, source, group).await?;
    let _held = contents.drivers.hold(&source.driver, &request.staged.volume_handle).await;
    let dir = request.begin()?;
    let place = request.publish_inline(&dir, source, tokens).await?;
    request.give(&place).await?;
    Ok(place)
}

/// Asks the driver again for a volume that a Pod itself describes, where it wants that.
///
/// # Errors
///
/// When the driver is not registered here, or refuses.
pub async fn renew_inline(
    contents: &Contents<'_>,
    name: &str,
    source: &CSIVolumeSource,
    group: Option<u32>,
    tokens: &mut Tokens,
) -> Result<(), VolumeError> {
    let request = of_pod(contents, name, source, group).await?;
    if !request.republishes() {
        return Ok(());
    }
    let _held = contents.drivers.hold(&source.driver, &request.staged.volume_handle).await;
    request.publish_inline(&request.dir(), source, tokens).await.map(drop)
}

async fn of_pod<'a>(
    contents: &'a Contents<'a>,
    name: &str,
    source: &CSIVolumeSource,
    group: Option<u32>,
) -> Result<Request<'a>, VolumeError> {
    let rules = rules(contents.client, &source.driver).await?;
    let modes = rules.volume_lifecycle_modes.clone().unwrap_or_default();
    if !modes.iter().any(|mode| mode == "Ephemeral") {
        return Err(wrong(format!(
            "volume mode \"Ephemeral\" not supported by driver {} (only supports {modes:?})",
            source.driver
        )));
    }
    let pod = contents.pod.metadata.uid.as_deref().unwrap_or_default();
    Ok(Request {
        contents,
        group,
        driver: driver(contents.drivers, &source.driver)?,
        rules,
        staged: Staged {
            driver_name: source.driver.clone(),
            volume_handle: format!("csi-{}", sha256(&format!("{pod}{name}"))),
            spec_vol_id: name.to_owned(),
            volume_lifecycle_mode: "Ephemeral".to_owned(),
            attachment_id: String::new(),
        },
        fs_type: source.fs_type.clone().unwrap_or_default(),
        mount_flags: Vec::new(),
        modes: vec!["ReadWriteOnce".to_owned()],
        read_only: source.read_only == Some(true),
        attributes: strings(source.volume_attributes.as_ref()),
    })
}

impl Request<'_> {
    /// Whether the driver wants to be asked for its volumes again and again.
    fn republishes(&self) -> bool {
        self.rules.requires_republish == Some(true)
    }

    /// The volume's folder of this Pod.
    fn dir(&self) -> PathBuf {
        let pod = self.contents.pod.metadata.uid.as_deref().unwrap_or_default();
        let pod = self.contents.drivers.kubelet().join("pods").join(pod);
        pod.join("volumes/kubernetes.io~csi").join(&self.staged.spec_vol_id)
    }

    /// The same, made, with what its end needs to know.
    fn begin(&self) -> Result<PathBuf, VolumeError> {
        let dir = self.dir();
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let file = dir.join(Staged::FILE);
        let text = serde_json::to_vec(&self.staged).map_err(wrong)?;
        fs::write(&file, text).map_err(at(&file))?;
        self.contents.drivers.touch();
        Ok(dir)
    }

    /// Waits a little until the volume is attached; what the driver said of that.
    async fn attached(&self) -> Result<Strings, VolumeError> {
        let name = &self.staged.attachment_id;
        if name.is_empty() {
            return Ok(Strings::new());
        }
        let attachments: Api<VolumeAttachment> = Api::all(self.contents.client.clone());
        let mut looks = 0;
        loop {
            let found = attachments.get_opt(name).await.map_err(wrong)?;
            let status = found.as_ref().and_then(|attachment| attachment.status.as_ref());
            if let Some(status) = status.filter(|status| status.attached) {
                return Ok(strings(status.attachment_metadata.as_ref()));
            }
            looks += 1;
            if looks == LOOKS {
                let why = status.and_then(|status| status.attach_error.as_ref()?.message.clone());
                let why = why.unwrap_or_else(|| match found {
                    Some(_) => format!("waiting for the attacher of {}", self.staged.driver_name),
                    None => format!("volume attachment {name} is not there yet"),
                });
                return Err(wrong(format!("volume is not attached to this node: {why}")));
            }
            tokio::time::sleep(BETWEEN.delay(looks)).await;
        }
    }

    /// Where the driver makes the volume ready for the whole node; empty where it does not.
    fn staging(&self) -> String {
        if !self.driver.features.contains(&Feature::StageUnstageVolume) {
            return String::new();
        }
        let Staged { driver_name, volume_handle, .. } = &self.staged;
        staging(self.contents.drivers.kubelet(), driver_name, volume_handle).display().to_string()
    }

    /// Makes the volume ready on this node, where the driver does that in a step of its own; returns where.
    async fn stage(
        &self,
        source: &CSIPersistentVolumeSource,
        attached: &Strings,
    ) -> Result<String, VolumeError> {
        let target = self.staging();
        if target.is_empty() {
            return Ok(target);
        }
        fs::create_dir_all(&target).map_err(at(Path::new(&target)))?;
        let secrets = match &source.node_stage_secret_ref {
            Some(secret) => {
                let name = secret.name.as_deref().unwrap_or_default();
                secrets(self.contents.client, secret.namespace.as_deref().unwrap_or_default(), name).await?
            }
            None => Strings::new(),
        };
        let request = api::NodeStageVolumeRequest {
            volume_id: self.staged.volume_handle.clone(),
            publish_context: attached.clone(),
            staging_target_path: target.clone(),
            volume_capability: Some(self.capability()),
            secrets,
            volume_context: self.attributes.clone(),
        };
        let failed = |error| wrong(format!("MountDevice failed: {error}"));
        self.driver.driver.stage(request).await.map_err(failed)?;
        Ok(target)
    }

    async fn publish(
        &self,
        dir: &Path,
        staging_target_path: String,
        publish_context: Strings,
        secrets: Strings,
        tokens: &mut Tokens,
    ) -> Result<Mounted, VolumeError> {
        let target = dir.join("mount");
        let request = api::NodePublishVolumeRequest {
            volume_id: self.staged.volume_handle.clone(),
            publish_context,
            staging_target_path,
            target_path: target.display().to_string(),
            volume_capability: Some(self.capability()),
            readonly: self.read_only,
            secrets,
            volume_context: self.context(tokens).await?,
        };
        self.driver.driver.publish(request).await.map_err(wrong)?;
        Ok(Mounted { path: target, read_only: self.read_only, republish: self.republishes() })
    }

    async fn publish_inline(
        &self,
        dir: &Path,
        source: &CSIVolumeSource,
        tokens: &mut Tokens,
    ) -> Result<Mounted, VolumeError> {
        let secret = match &source.node_publish_secret_ref {
            Some(secret) => {
                let namespace = self.contents.pod.metadata.namespace.as_deref().unwrap_or("default");
                secrets(self.contents.client, namespace, &secret.name).await?
            }
            None => Strings::new(),
        };
        self.publish(dir, String::new(), Strings::new(), secret, tokens).await
    }

    /// Gives a new volume's files to the Pod's group, where that is done here.
    async fn give(&self, place: &Mounted) -> Result<(), VolumeError> {
        match self.gives_to_group() {
            true => owner::give(place.path.clone(), self.group, self.contents.pod).await,
            false => Ok(()),
        }
    }

    /// What the driver is told beside the volume's own attributes: about the Pod, and its tokens, where it asks for them.
    async fn context(&self, tokens: &mut Tokens) -> Result<Strings, VolumeError> {
        let mut context = self.attributes.clone();
        let pod = self.contents.pod;
        if self.rules.pod_info_on_mount == Some(true) {
            context.extend(pod_info(pod, self.staged.volume_lifecycle_mode == "Ephemeral"));
        }
        let mut all = serde_json::Map::new();
        for request in self.rules.token_requests.iter().flatten() {
            let projection = k8s_openapi::api::core::v1::ServiceAccountTokenProjection {
                audience: Some(request.audience.clone()),
                expiration_seconds: request.expiration_seconds,
                path: String::new(),
            };
            let token = tokens.get_dated(self.contents.client, pod, &projection).await;
            let (token, until) = token.map_err(|error| VolumeError::Token(Box::new(error)))?;
            let entry = json!({"token": token, "expirationTimestamp": until.to_string()});
            all.insert(request.audience.clone(), entry);
        }
        if !all.is_empty() {
            let key = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
            context.insert(key, serde_json::Value::Object(all).to_string());
        }
        Ok(context)
    }

    fn capability(&self) -> api::VolumeCapability {
        let by_driver = self.driver.features.contains(&Feature::VolumeMountGroup);
        let group = self.group.filter(|_| by_driver).map(|group| group.to_string());
        let mount = api::volume_capability::MountVolume {
            fs_type: self.fs_type.clone(),
            mount_flags: self.mount_flags.clone(),
            volume_mount_group: group.unwrap_or_default(),
        };
        let several = self.driver.features.contains(&Feature::SingleNodeMultiWriter);
        api::VolumeCapability {
            access_type: Some(api::volume_capability::AccessType::Mount(mount)),
            access_mode: Some(api::volume_capability::AccessMode {
                mode: access_mode(self.modes.first().map(String::as_str), several).into(),
            }),
        }
    }

    /// Whether files are given to the Pod's group here, by the driver's policy.
    fn gives_to_group(&self) -> bool {
        if self.group.is_none() || self.read_only || self.driver.features.contains(&Feature::VolumeMountGroup)
        {
            return false;
        }
        match self.rules.fs_group_policy.as_deref() {
            Some("None") => false,
            Some("File") => true,
            _ => {
                let single = ["ReadWriteOnce", "ReadWriteOncePod"];
                !self.fs_type.is_empty() && self.modes.iter().any(|mode| single.contains(&mode.as_str()))
            }
        }
    }

    /// Lets the file system grow with its volume, and says so in the claim.
    async fn expand(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
        path: &Path,
        staging_target_path: String,
    ) -> Result<(), VolumeError> {
        let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
        let should = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        let (Some(has), Some(should)) = (has, should) else { return Ok(()) };
        let (Some(old), Some(new)) = (quantity_value(has), quantity_value(should)) else { return Ok(()) };
        if new <= old {
            return Ok(());
        }
        if self.driver.features.contains(&Feature::ExpandVolume) {
            let request = api::NodeExpandVolumeRequest {
                volume_id: self.staged.volume_handle.clone(),
                volume_path: path.display().to_string(),
                capacity_range: Some(api::CapacityRange {
                    required_bytes: i64::try_from(new).unwrap_or(i64::MAX),
                    limit_bytes: 0,
                }),
                staging_target_path,
                volume_capability: Some(self.capability()),
                secrets: Strings::new(),
            };
            let failed = |error| wrong(format!("NodeExpandVolume failed: {error}"));
            self.driver.driver.expand(request).await.map_err(failed)?;
        }
        let conditions: Vec<_> = claim
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .filter(|condition| !["FileSystemResizePending", "Resizing"].contains(&condition.type_.as_str()))
            .collect();
        let patch = json!({"status": {"capacity": {"storage": should}, "conditions": conditions,
            "allocatedResourceStatuses": null}});
        let namespace = claim.namespace().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.contents.client.clone(), &namespace);
        claims
            .patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(wrong)?;
        Ok(())
    }
}

/// Takes back every driver's volume of the Pod whose folder is `pod`. What was taken back once is not asked for again.
///
/// Fails when a driver is not there or refuses: the Pod's folder must stay until it has let go.
pub async fn take_back(drivers: &Drivers, pod: &Path) -> Result<(), VolumeError> {
    for (dir, staged) in mounted_in(pod) {
        let Staged { driver_name, volume_handle, .. } = &staged;
        let fail = |why: String| {
            wrong(format!("UnmountVolume.TearDown failed for volume \"{}\" : {why}", staged.spec_vol_id))
        };
        let registered = driver(drivers, driver_name).map_err(|error| fail(error.to_string()))?;
        let _held = drivers.hold(driver_name, volume_handle).await;
        let target = dir.join("mount").display().to_string();
        let unpublished = registered.driver.unpublish(volume_handle.clone(), target).await;
        unpublished.map_err(|error| fail(error.to_string()))?;
        let other = |(there, mounted): (PathBuf, Staged)| {
            there != dir && mounted.driver_name == *driver_name && mounted.volume_handle == *volume_handle
        };
        let staged_at = staging(drivers.kubelet(), driver_name, volume_handle);
        if staged_at.exists() && !drivers.mounted().into_iter().any(other) {
            let unstaged =
                registered.driver.unstage(volume_handle.clone(), staged_at.display().to_string()).await;
            unstaged.map_err(|error| fail(error.to_string()))?;
            // Never what is in a volume: only what is empty.
            for dir in [Some(staged_at.as_path()), staged_at.parent()].into_iter().flatten() {
                let _ = fs::remove_dir(dir);
            }
        }
        let file = dir.join(Staged::FILE);
        fs::remove_file(&file).map_err(at(&file))?;
        drivers.touch();
    }
    Ok(())
}

async fn secrets(client: &Client, namespace: &str, name: &str) -> Result<Strings, VolumeError> {
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get(name).await.map_err(wrong)?;
    let text = |value: k8s_openapi::ByteString| String::from_utf8_lossy(&value.0).into_owned();
    Ok(found.data.into_iter().flatten().map(|(key, value)| (key, text(value))).collect())
}

fn pod_info(pod: &Pod, ephemeral: bool) -> Vec<(String, String)> {
    let meta = |field: Option<&String>| field.cloned().unwrap_or_default();
    let account = spec(pod).service_account_name.clone().unwrap_or_default();
    [
        ("pod.name", meta(pod.metadata.name.as_ref())),
        ("pod.namespace", meta(pod.metadata.namespace.as_ref())),
        ("pod.uid", meta(pod.metadata.uid.as_ref())),
        ("serviceAccount.name", account),
        ("ephemeral", ephemeral.to_string()),
    ]
    .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value))
    .into()
}

/// How upstream says an access mode to a driver; `several`: the driver tells apart one Pod from one node.
fn access_mode(mode: Option<&str>, several: bool) -> Mode {
    match mode {
        Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
        Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
        Some("ReadWriteOncePod") if several => Mode::SingleNodeSingleWriter,
        Some(_) if several => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    }
}

fn sha256(text: &str) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()))
}

/// The name of the VolumeAttachment of a volume at a node, as upstream makes it.
fn attachment(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", sha256(&format!("{handle}{driver}{node}")))
}
