//! The Rust face: a cluster of its own for a test, gone when it is dropped.
//!
//! ```no_run
//! # async fn example() -> Result<(), minik::cluster::ClusterError> {
//! let cluster = minik::Cluster::builder().nodes(3).start().await?;
//! cluster.load_images(&["my/app:dev"]).await?;
//! let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client()?);
//! // ... or for kubectl: KUBECONFIG=<a file with cluster.kubeconfig()?>
//! cluster.delete().await
//! # }
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::create::{CreateOptions, create};
use super::delete::delete;
use super::docker::Docker;
use super::images::{ImageSource, load};
use super::progress::Silent;
use super::spec::ClusterSpec;
use super::{Access, ClusterError, wait};
use config::kubeconfig;
use rt::Stop;

/// A cluster for a test. Dropping it removes it; [`Cluster::delete`] does so too, and says what went wrong.
pub struct Cluster {
    name: String,
    access: Access,
    docker: Docker,
    /// Whether it is to be removed when it is dropped.
    ours: bool,
}

/// What a cluster for a test should be.
#[derive(Clone, Debug)]
pub struct Builder {
    name: Option<String>,
    nodes: u32,
    image: Option<String>,
    timeout: Duration,
    ttl: Duration,
}

impl Builder {
    /// How many nodes; the first runs the control plane.
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }

    /// A name; otherwise one that no other cluster has.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The node image; otherwise the newest that `minik` has made on this engine.
    pub fn image(mut self, image: &str) -> Self {
        self.image = Some(image.to_owned());
        self
    }

    /// How long it may take to become ready.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// After this time any `minik` command may remove it: should this process be killed.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Makes the cluster and waits until every node is Ready. Fails as `minik cluster create` does, and leaves nothing.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        // The TLS library is compiled without a default; a second call would only find it set.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let docker = Docker::connect().await?;
        let name = self.name.unwrap_or_else(unique_name);
        let mut spec = ClusterSpec::new(name.parse()?, self.nodes)?;
        // This program need not be minik, so it cannot be what a node runs.
        spec.image = match self.image {
            Some(image) => Some(image),
            None => Some(newest_image(&docker).await?),
        };
        let ttl = SignedDuration::try_from(self.ttl).unwrap_or(SignedDuration::MAX);
        let expires = Timestamp::now().checked_add(ttl).ok();
        let options = CreateOptions { timeout: self.timeout, expires, ..CreateOptions::new(spec) };
        let created = create(&docker, &options, &Silent, &Stop::new()).await?;
        Ok(Cluster { name, access: created.access, docker, ours: true })
    }
}

/// The newest node image there is. Fails when there is none.
async fn newest_image(docker: &Docker) -> Result<String, ClusterError> {
    let images = docker.own_images("node").await?;
    let newest = images.into_iter().max_by_key(|image| image.created);
    newest.and_then(|image| image.tags.into_iter().next()).ok_or_else(|| ClusterError::Unfit {
        why: "there is no node image on this engine".to_owned(),
        hint: "make it, once: minik image node build; or take one from a file: minik image node load FILE"
            .to_owned(),
    })
}

/// A name for a cluster that nobody names.
pub fn unique_name() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("run-{}", &id[..8])
}

impl Cluster {
    /// One node, two minutes to become ready, and an hour until others may remove it.
    pub fn builder() -> Builder {
        Builder {
            name: None,
            nodes: 1,
            image: None,
            timeout: Duration::from_secs(120),
            ttl: Duration::from_secs(3600),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A kubeconfig with this cluster alone. Fails when it cannot be written as YAML.
    pub fn kubeconfig(&self) -> Result<String, ClusterError> {
        Ok(kubeconfig::standalone(&self.access.entry())?)
    }

    /// A client with the administrator's identity. Fails when that is unusable.
    pub fn client(&self) -> Result<kube::Client, ClusterError> {
        wait::client(&self.access)
    }

    /// Brings images of Docker to every node. Fails when one is not there, or does not arrive.
    pub async fn load_images(&self, names: &[&str]) -> Result<(), ClusterError> {
        let sources: Vec<ImageSource> =
            names.iter().map(|name| ImageSource::Docker((*name).to_owned())).collect();
        load(&self.docker, &self.name, &sources, &Silent, &Stop::new()).await.map(drop)
    }

    /// Leaves the cluster running when this is dropped.
    pub fn keep(mut self) {
        self.ours = false;
    }

    /// Removes the cluster. Fails with what could not be removed.
    pub async fn delete(mut self) -> Result<(), ClusterError> {
        self.ours = false;
        delete(&self.docker, &self.name, None).await.map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        // A runtime of its own, on a thread of its own: this may be dropped inside another runtime, or outside of any.
        let name = self.name.clone();
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async { delete(&Docker::connect().await.ok()?, &name, None).await.ok() })
        });
        if !matches!(removed.join(), Ok(Some(_))) {
            tracing::warn!(cluster = self.name, "could not be removed");
        }
    }
}
