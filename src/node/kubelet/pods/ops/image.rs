//! Operations on images.

use k8s_openapi::api::core::v1::{Container as Spec, ImageVolumeSource, ObjectReference, Pod};

use super::{Failure, Job, Outcome, failure};
use crate::cri::RuntimeError;
use crate::cri::api::{AuthConfig, Image};
use crate::cri::credentials::{node_auths, registry_auths};
use crate::kubelet::container::{Source, check_user};
use crate::kubelet::context::reference;
use crate::kubelet::image::{self, Policy};
use crate::kubelet::objects::Kind;
use crate::kubelet::pods::state::volume_of;
use crate::kubelet::spec;
use crate::kubelet::volumes::Images;

impl Job {
    /// Makes sure of a container's image, or of one that a volume shows, by its pull policy.
    pub async fn pull(self, container: String) -> Outcome {
        if let Some(volume) = volume_of(&container) {
            let mut all = spec(&self.pod).volumes.iter().flatten();
            let source = all.find(|have| have.name == volume).and_then(|volume| volume.image.as_ref());
            let result = match source {
                Some(source) => self.mounted(source).await.map(|image| image.id),
                None => Err(failure("ErrImagePull", "no such volume")),
            };
            return Outcome::Pulled { container, result };
        }
        let result = match self.container(&container) {
            Some(spec) => self.ensure_image(&spec).await,
            None => Err(failure("ErrImagePull", "no such container")),
        };
        Outcome::Pulled { container, result }
    }

    async fn ensure_image(&self, spec: &Spec) -> Result<String, Failure> {
        let about = reference(&self.pod, Some(&spec.name));
        let name = spec.image.clone().unwrap_or_default();
        let image = self.ensure(&name, spec.image_pull_policy.as_deref(), about).await?;
        self.checked(spec, &image)
    }

    async fn mounted(&self, source: &ImageVolumeSource) -> Result<Image, Failure> {
        let name = source.reference.clone().unwrap_or_default();
        self.ensure(&name, source.pull_policy.as_deref(), reference(&self.pod, None)).await
    }

    /// The images that the Pod mounts as volumes: they were fetched before. One that was removed since is fetched again.
    ///
    /// # Errors
    ///
    /// What the Pod waits for, and which volume is meant.
    pub async fn volume_images(&self) -> Result<Images, String> {
        let mut all = Images::new();
        for volume in spec(&self.pod).volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            let name = image::normalize(source.reference.as_deref().unwrap_or_default());
            let there = match &name {
                Ok(name) => self.context.runtime.image(name).await.ok().flatten(),
                Err(_) => None,
            };
            let image = match there {
                Some(image) => image,
                None => self.mounted(source).await.map_err(|Failure { reason, message }| {
                    format!("MountVolume.SetUp failed for volume \"{}\" : {reason}: {message}", volume.name)
                })?,
            };
            all.insert(volume.name.clone(), image);
        }
        Ok(all)
    }

    /// Makes sure of an image, and tells in Events of `about`.
    async fn ensure(
        &self,
        short: &str,
        policy: Option<&str>,
        about: ObjectReference,
    ) -> Result<Image, Failure> {
        let events = &self.context.events;
        let name = image::normalize(short).map_err(|error| {
            events.warning(about.clone(), "InspectFailed", error.to_string());
            failure("InvalidImageName", error)
        })?;
        let runtime = &self.context.runtime;
        let look = async || runtime.image(&name).await.map_err(|error| failure("ImageInspectError", error));
        let mut present = look().await?;
        if present.is_none() {
            self.context.images.over().await;
            present = look().await?;
        }
        if present.is_none() && self.context.images.come_back(&name).await {
            present = look().await?;
        }
        match (image::policy(policy, short), present) {
            (Policy::IfNotPresent | Policy::Never, Some(image)) => {
                events.normal(
                    about,
                    "Pulled",
                    format!("Container image \"{short}\" already present on machine"),
                );
                return Ok(image);
            }
            (Policy::Never, None) => {
                let text = format!("Container image \"{short}\" is not present with pull policy of Never");
                events.warning(about, "ErrImageNeverPull", text.clone());
                return Err(failure("ErrImageNeverPull", text));
            }
            _ => {}
        }
        events.normal(about.clone(), "Pulling", format!("Pulling image \"{short}\""));
        let began = tokio::time::Instant::now();
        if let Err(error) = self.fetch(&name).await {
            events.warning(about.clone(), "Failed", format!("Failed to pull image \"{short}\": {error}"));
            events.warning(about, "Failed", "Error: ErrImagePull");
            return Err(failure("ErrImagePull", error));
        }
        let image = look().await?.unwrap_or_default();
        let took = format!("{:.3}s", began.elapsed().as_secs_f64());
        let text = format!(
            "Successfully pulled image \"{short}\" in {took} ({took} including waiting). Image size: {} bytes.",
            image.size
        );
        events.normal(about, "Pulled", text);
        Ok(image)
    }

    /// Tries every matching credential in turn; without any it asks as nobody.
    async fn fetch(&self, name: &str) -> Result<(), RuntimeError> {
        let mut result = Ok(());
        let matching = credentials(&self.pod, &self.source, name);
        let all: Vec<Option<AuthConfig>> =
            if matching.is_empty() { vec![None] } else { matching.into_iter().map(Some).collect() };
        for auth in all {
            result = self.context.runtime.pull(name, auth).await.map(drop);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn checked(&self, container: &Spec, image: &Image) -> Result<String, Failure> {
        check_user(spec(&self.pod), container, image).map_err(|error| {
            self.context.events.warning(
                reference(&self.pod, Some(&container.name)),
                "Failed",
                format!("Error: {error}"),
            );
            failure("CreateContainerConfigError", error)
        })?;
        Ok(image.id.clone())
    }
}

/// The registry's credentials among the Pod's imagePullSecrets, and those that every Pod of the node has; those for a
/// longer path first.
fn credentials(pod: &Pod, source: &Source, image: &str) -> Vec<AuthConfig> {
    let secrets = spec(pod).image_pull_secrets.iter().flatten();
    let mut all: Vec<(usize, AuthConfig)> = secrets
        .filter_map(|secret| source.get(Kind::Secret, &secret.name))
        .flat_map(|data| registry_auths(data, image))
        .collect();
    all.extend(node_auths(image));
    all.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    all.into_iter().map(|(_, auth)| auth).collect()
}
