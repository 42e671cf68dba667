//! Images: looked up, pulled, built, layered and exported.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    BuildImageOptions, CommitContainerOptions, CreateContainerOptions, CreateImageOptions,
    ImportImageOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};

use super::networks::gone_is_fine;
use super::{Docker, DockerError};
use crate::labels;

/// An image to be built from a context.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    pub tag: String,
    /// Tar archive with the `Dockerfile`.
    pub context: Bytes,
    pub args: Vec<(String, String)>,
    pub labels: BTreeMap<String, String>,
}

/// An image of minik's own.
#[derive(Clone, Debug)]
pub struct OwnImage {
    pub id: String,
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
}

/// The label's value on a container in which an image is being made.
const UNFINISHED: &str = "unfinished";
/// Tells the containers of this process from those of another one that does the same.
static RUN: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().to_string());

/// The labels of a container that is gone when this process ends.
pub(super) fn unfinished_labels() -> HashMap<String, String> {
    HashMap::from([(labels::IMAGE.to_owned(), UNFINISHED.to_owned()), (labels::RUN.to_owned(), RUN.clone())])
}

impl Docker {
    /// Containers in which images are, or were, being made, by this process or by any: id and the time each was made, in
    /// seconds since 1970.
    pub async fn unfinished_images(&self, own: bool) -> Result<Vec<(String, i64)>, DockerError> {
        let label = match own {
            true => format!("{}={}", labels::RUN, *RUN),
            false => format!("{}={UNFINISHED}", labels::IMAGE),
        };
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let list = self.api.list_containers(Some(options)).await?;
        Ok(list.into_iter().filter_map(|c| Some((c.id?, c.created.unwrap_or_default()))).collect())
    }

    /// What Docker calls an image, and its architecture; `None`: there is none of that name.
    pub async fn image_id(&self, name: &str) -> Result<Option<(String, String)>, DockerError> {
        match self.api.inspect_image(name).await.map_err(DockerError::from) {
            Ok(image) => Ok(Some((image.id.unwrap_or_default(), image.architecture.unwrap_or_default()))),
            Err(DockerError::NotFound(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub async fn image_exists(&self, name: &str) -> Result<bool, DockerError> {
        match self.api.inspect_image(name).await.map_err(DockerError::from) {
            Ok(_) => Ok(true),
            Err(DockerError::NotFound(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Pulls an image from its registry; `report` gets a line now and then.
    pub async fn pull(&self, name: &str, report: impl Fn(&str)) -> Result<(), DockerError> {
        let options = CreateImageOptions { from_image: Some(name.to_owned()), ..Default::default() };
        let mut answer = self.api.create_image(Some(options), None, None);
        while let Some(info) = answer.next().await {
            if let Some(status) = info?.status {
                report(&status);
            }
        }
        Ok(())
    }

    /// Makes an image of one layer out of a root file system.
    pub async fn import_root<E>(
        &self,
        name: &str,
        root: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<(), DockerError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let (repo, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..Default::default()
        };
        let body = bollard::body_try_stream(root.map_err(std::io::Error::other));
        let api = self.patient();
        let mut answer = api.create_image(Some(options), Some(body), None);
        while let Some(info) = answer.next().await {
            info?;
        }
        Ok(())
    }

    /// Builds an image with the engine's own builder; `report` gets the output line by line.
    pub async fn build(&self, request: BuildRequest, report: impl Fn(&str)) -> Result<(), DockerError> {
        let options = BuildImageOptions {
            t: Some(request.tag),
            rm: true,
            forcerm: true,
            buildargs: Some(request.args.into_iter().collect()),
            labels: Some(request.labels.into_iter().collect()),
            ..Default::default()
        };
        let body = bollard::body_full(request.context);
        let mut answer = self.api.build_image(options, None::<HashMap<_, _>>, Some(body));
        let mut last = String::new();
        while let Some(info) = answer.next().await {
            let info = info?;
            if let Some(detail) = info.error_detail {
                let why = detail.message.unwrap_or_default();
                return Err(DockerError::Stream(format!("{why}\n{}", last.trim_end())));
            }
            let text = info.stream.or(info.status).unwrap_or_default();
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                report(line);
                last = line.to_owned();
            }
        }
        Ok(())
    }

    /// Puts one layer, the content of a tar archive, on top of an image. This takes a container that is never started:
    /// about a second less than a build, as no context is unpacked and compared first.
    pub async fn add_layer(
        &self,
        base: &str,
        layer: Bytes,
        tag: &str,
        entrypoint: &[&str],
        image_labels: BTreeMap<String, String>,
    ) -> Result<(), DockerError> {
        let body = ContainerCreateBody {
            image: Some(base.to_owned()),
            entrypoint: Some(entrypoint.iter().map(ToString::to_string).collect()),
            labels: Some(unfinished_labels()),
            ..Default::default()
        };
        let container = self.api.create_container(None::<CreateContainerOptions>, body).await?.id;
        let made = self.commit_layer(&container, layer, tag, entrypoint, image_labels).await;
        self.remove_container(&container).await?;
        made
    }

    async fn commit_layer(
        &self,
        container: &str,
        layer: Bytes,
        tag: &str,
        entrypoint: &[&str],
        image_labels: BTreeMap<String, String>,
    ) -> Result<(), DockerError> {
        self.put_archive(container, "/", layer).await?;
        let (repo, version) = tag.split_once(':').unwrap_or((tag, "latest"));
        let options = CommitContainerOptions {
            container: Some(container.to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(version.to_owned()),
            pause: false,
            ..Default::default()
        };
        let config = ContainerConfig {
            entrypoint: Some(entrypoint.iter().map(ToString::to_string).collect()),
            labels: Some(image_labels.into_iter().collect()),
            ..Default::default()
        };
        self.api.commit_container(options, config).await?;
        Ok(())
    }

    /// Images of minik's own, of one kind (the value of their label).
    pub async fn own_images(&self, kind: &str) -> Result<Vec<OwnImage>, DockerError> {
        let label = format!("{}={kind}", labels::IMAGE);
        let options = ListImagesOptions {
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..Default::default()
        };
        let images = self.api.list_images(Some(options)).await?;
        Ok(images.into_iter().map(|i| OwnImage { id: i.id, tags: i.repo_tags, created: i.created }).collect())
    }

    /// The names of all images, sorted; those that have none are left out.
    pub async fn image_names(&self) -> Result<Vec<String>, DockerError> {
        let images = self.api.list_images(None::<ListImagesOptions>).await?;
        let mut names: Vec<String> = images.into_iter().flat_map(|image| image.repo_tags).collect();
        names.retain(|name| !name.contains("<none>"));
        names.sort();
        Ok(names)
    }

    /// Removes an image that no container uses; one that is gone already is no error.
    pub async fn remove_image(&self, name: &str) -> Result<(), DockerError> {
        let answer = self.api.remove_image(name, None::<RemoveImageOptions>, None).await;
        gone_is_fine(answer.map(|_| ()))
    }

    /// Takes images from an archive in the form of `docker save`; returns what the engine said.
    pub async fn import_images(
        &self,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Vec<String>, DockerError> {
        let options = ImportImageOptions { quiet: true, ..Default::default() };
        let api = self.patient();
        let mut answer = api.import_image(options, bollard::body_try_stream(archive), None);
        let mut said = Vec::new();
        while let Some(info) = answer.next().await {
            let info = info?;
            if let Some(detail) = info.error_detail {
                return Err(DockerError::Stream(detail.message.unwrap_or_default()));
            }
            said.extend(info.stream.map(|line| line.trim().to_owned()));
        }
        Ok(said)
    }

    /// Images as one archive, in the form of `docker save`.
    pub fn export_images(&self, names: &[&str]) -> impl Stream<Item = Result<Bytes, DockerError>> {
        self.api.export_images(names).map_err(DockerError::from)
    }
}
