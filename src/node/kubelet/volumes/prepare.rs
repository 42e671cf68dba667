//! Prepares a Pod's volumes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume, VolumeMount};

use super::claims::Claim;
use super::projected::{self, Contents};
use super::tokens::Tokens;
use super::{atomic, csi, host_path, image, nfs, sub_path};
use crate::cri::api::{Mount, MountPropagation};
use crate::kubelet::container::{self, ENV_FILE, EnvFiles, FieldError, parse_env_file, quantity_value};
use crate::kubelet::objects::Kind;
use crate::kubelet::spec;
use sys::mounts as sys;

/// Why a volume cannot be mounted; the text ends up in FailedMount events.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{} \"{name}\" not found", kind.lower())]
    Missing { kind: Kind, name: String },
    #[error("{} \"{name}\" references non-existent key: {key}", kind.lower())]
    Key { kind: Kind, name: String, key: String },
    #[error("failed to fetch token: {0}")]
    Token(Box<kube::Error>),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the path {0:?} is outside the volume")]
    Path(String),
    #[error("{0}")]
    HostPath(String),
    #[error("{0} volumes are not supported by this node")]
    Unsupported(String),
    #[error("{0}")]
    Claim(String),
    #[error("no volume of that name")]
    Unknown,
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error(transparent)]
    Mount(#[from] sys::MountError),
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\": {why}")]
    SubPath { volume: String, container: String, why: String },
}

pub fn at(path: &Path) -> impl FnOnce(io::Error) -> VolumeError + '_ {
    move |source| VolumeError::File { path: path.display().to_string(), source }
}

/// Where each volume of a Pod is on this node, by name.
pub type Volumes = HashMap<String, Mounted>;

/// Where a volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    /// Whatever the container's mount says.
    pub read_only: bool,
    /// Its driver wants to be asked for it again and again.
    pub republish: bool,
}

impl From<PathBuf> for Mounted {
    fn from(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }
}

/// Makes every volume of the Pod. `dir` is the Pod's own folder.
/// An error names its volume: `MountVolume.SetUp failed for volume "x" : …`, as upstream's events do.
pub async fn prepare(dir: &Path, contents: &Contents<'_>, tokens: &mut Tokens) -> Result<Volumes, String> {
    let mut volumes = Volumes::new();
    for volume in spec(contents.pod).volumes.iter().flatten() {
        let place = one(dir, contents, volume, tokens).await.map_err(|error| failed(volume, &error))?;
        volumes.insert(volume.name.clone(), place);
    }
    Ok(volumes)
}

/// Writes changed contents into volumes that are mounted already, lets those of drivers grow, and asks the drivers that want
/// that for them again. A volume that cannot be brought up to date holds up no
/// other.
///
/// # Errors
///
/// The first failure, which names its volume as [`prepare`] does.
pub async fn refresh(dir: &Path, contents: &Contents<'_>, tokens: &mut Tokens) -> Result<(), String> {
    let mut first = None;
    for volume in spec(contents.pod).volumes.iter().flatten() {
        if let Err(error) = refresh_one(dir, contents, volume, tokens).await {
            first.get_or_insert_with(|| failed(volume, &error));
        }
    }
    first.map_or(Ok(()), Err)
}

async fn refresh_one(
    dir: &Path,
    contents: &Contents<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
) -> Result<(), VolumeError> {
    let group = fs_group(contents.pod);
    if let Some(files) = projected::files(contents, volume, tokens).await? {
        let target = folder(dir, kind(volume), &volume.name);
        return blocking(move || atomic::write(&target, &files, group).map_err(at(&target)).map(drop)).await;
    }
    if let Some(source) = &volume.csi {
        return csi::renew_inline(contents, &volume.name, source, group, tokens).await;
    }
    match Claim::of(contents.pod, volume) {
        Some(claim) => claim.renew(contents, group, tokens).await,
        None => Ok(()),
    }
}

fn failed(volume: &Volume, error: &VolumeError) -> String {
    format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)
}

/// Work on files, which may take long, off the threads that serve everybody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| VolumeError::Claim(error.to_string()))?
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The folder name upstream uses for each kind.
fn kind(volume: &Volume) -> &'static str {
    if volume.nfs.is_some() {
        return "nfs";
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        return "persistent-volume";
    }
    if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else if volume.projected.is_some() {
        "projected"
    } else {
        "empty-dir"
    }
}

fn folder(dir: &Path, kind: &str, name: &str) -> PathBuf {
    dir.join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
}

async fn one(
    dir: &Path,
    contents: &Contents<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
) -> Result<Mounted, VolumeError> {
    let target = folder(dir, kind(volume), &volume.name);
    let group = fs_group(contents.pod);
    if let Some(files) = projected::files(contents, volume, tokens).await? {
        return blocking(move || {
            atomic::write(&target, &files, group).map_err(at(&target))?;
            Ok(target.into())
        })
        .await;
    }
    if let Some(host) = volume.host_path.clone() {
        return blocking(move || {
            let path = PathBuf::from(&host.path);
            let kind = host.type_.as_deref().unwrap_or_default();
            host_path::check(&path, kind).map_err(VolumeError::HostPath)?;
            Ok(path.into())
        })
        .await;
    }
    if let Some(empty) = volume.empty_dir.clone() {
        return blocking(move || {
            empty_dir(&target, &empty, group)?;
            Ok(target.into())
        })
        .await;
    }
    if let Some(source) = &volume.nfs {
        let read_only = source.read_only == Some(true);
        nfs::mount(&target, &source.server, &source.path, read_only).await?;
        return Ok(Mounted { path: target, read_only, republish: false });
    }
    if let Some(claim) = Claim::of(contents.pod, volume) {
        return claim.place(contents, &target, group, tokens).await;
    }
    if volume.image.is_some() {
        let found = contents.images.get(&volume.name).ok_or(VolumeError::Unknown)?;
        return image::mount(contents.runtime, found, dir, &volume.name).await;
    }
    if let Some(source) = &volume.csi {
        return csi::inline(contents, &volume.name, source, group, tokens).await;
    }
    Err(unsupported(volume, &["name"]))
}

/// Says which kind of volume there is no support for: the one field of `source` that is not among `others`.
pub fn unsupported(source: &impl serde::Serialize, others: &[&str]) -> VolumeError {
    let value = serde_json::to_value(source).unwrap_or_default();
    let mut fields = value.as_object().into_iter().flat_map(|fields| fields.keys());
    let kind = fields.find(|field| !others.contains(&field.as_str()));
    VolumeError::Unsupported(kind.cloned().unwrap_or_else(|| "such".to_owned()))
}

fn empty_dir(target: &Path, empty: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), VolumeError> {
    if empty.medium.as_deref().is_some_and(|medium| medium.starts_with("HugePages")) {
        return Err(VolumeError::Claim("this node has no huge pages".to_owned()));
    }
    fs::create_dir_all(target).map_err(at(target))?;
    if empty.medium.as_deref() == Some("Memory") && !sys::is_mounted(target) {
        let size = empty.size_limit.as_ref().and_then(quantity_value).filter(|size| *size > 0);
        sys::tmpfs(target, size)?;
    }
    // As upstream leaves them: a tmpfs keeps its sticky bit, and what a group owns hands it on.
    let sticky = if empty.medium.as_deref() == Some("Memory") { 0o1000 } else { 0 };
    let mode = 0o777 | sticky | if group.is_some() { 0o2000 } else { 0 };
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).map_err(at(target))?;
    if group.is_some() {
        chown(target, None, group).map_err(at(target))?;
    }
    Ok(())
}

/// Takes the volumes in the Pod's folder away, and leaves the folder itself.
pub fn release(dir: &Path) -> Result<(), VolumeError> {
    ["volume-subpaths", "volumes"].iter().try_for_each(|part| remove(&dir.join(part)))
}

/// Takes the Pod's folder away, with everything that is mounted in it.
pub fn remove(dir: &Path) -> Result<(), VolumeError> {
    sys::unmount_below(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir)(error)),
        _ => Ok(()),
    }
}

/// The mounts of one container of the Pod whose folder is `dir`. `env` expands subPathExpr.
pub fn mounts(
    dir: &Path,
    container: &Container,
    volumes: &Volumes,
    env: &[(String, String)],
) -> Result<Vec<Mount>, VolumeError> {
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(VolumeError::Claim(
            "block devices (volumeDevices) are not supported by this node".into(),
        ));
    }
    let mut all = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if mount.recursive_read_only.as_deref() == Some("Enabled") {
            let name = &mount.name;
            let why = format!(
                "volume \"{name}\": recursiveReadOnly: Enabled is not supported by this node's runtime"
            );
            return Err(VolumeError::Claim(why));
        }
        let volume = volumes.get(&mount.name).ok_or(VolumeError::Unknown)?;
        let fail = |why: String| VolumeError::SubPath {
            volume: mount.name.clone(),
            container: container.name.clone(),
            why,
        };
        let expanded = mount
            .sub_path_expr
            .as_deref()
            .map(|text| sub_path::expand_all(text, env))
            .transpose()
            .map_err(fail)?;
        let inside = mount.sub_path.clone().or(expanded).filter(|path| !path.is_empty());
        let source = match inside {
            Some(path) => {
                let place = sub_path::place(dir, &mount.name, &container.name, index);
                sub_path::bind(&volume.path, &path, &place).map_err(fail)?;
                place
            }
            None => volume.path.clone(),
        };
        all.push(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: source.display().to_string(),
            readonly: mount.read_only == Some(true) || volume.read_only,
            propagation: propagation(mount).into(),
        });
    }
    Ok(all)
}

/// The files that a container's variables are read from, as far as they exist.
pub fn env_files(container: &Container, volumes: &Volumes) -> EnvFiles {
    let read = |volume: &str, path: &str| {
        let place = volumes.get(volume).ok_or_else(|| VolumeError::Unknown.to_string())?;
        let text = sub_path::read_inside(&place.path, path, ENV_FILE)?;
        text.map(|text| parse_env_file(&text)).transpose()
    };
    let named = container::env_files(container).into_iter();
    let found = |(volume, path): (String, String)| {
        let variables = read(&volume, &path).transpose()?;
        Some(((volume, path), variables))
    };
    named.filter_map(found).collect()
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mount: &VolumeMount) -> MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}
