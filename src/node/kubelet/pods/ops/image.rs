//! Operations on images.

use k8s_openapi::api::core::v1::{Container as Spec, ObjectReference, Pod};

use super::{Failure, Job, Outcome, failure};
use crate::cri::RuntimeError;
use crate::cri::api::{AuthConfig, Image};
use crate::cri::credentials::{node_auths, registry_auths};
use crate::kubelet::container::{Source, check_user};
use crate::kubelet::context::reference;
use crate::kubelet::image::{self, Policy};
use crate::kubelet::objects::Kind;
use crate::kubelet::spec;
use crate::kubelet::volumes::Images;

impl Job {
    /// Makes sure of a container's image, by its pull policy.
    pub async fn pull(self, container: String) -> Outcome {
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

    /// Makes sure of the images that the Pod mounts as volumes.
    ///
    /// # Errors
    ///
    /// What the Pod waits for, and which volume is meant.
    pub async fn volume_images(&self) -> Result<Images, String> {
        let mut all = Images::new();
        for volume in spec(&self.pod).volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            let name = source.reference.clone().unwrap_or_default();
            let about = reference(&self.pod, None);
            let image =
                self.ensure(&name, source.pull_policy.as_deref(), about).await.map_err(|failure| {
                    let Failure { reason, message } = failure;
                    format!("MountVolume.SetUp failed for volume \"{}\" : {reason}: {message}", volume.name)
                })?;
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
