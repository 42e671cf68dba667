//! Calls of containerd's own API: the services that hold images and their snapshots, in the namespace of Kubernetes.
//!
//! They are called by path, as every service stands in a package of its own and only a few calls are needed.

use std::collections::HashMap;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::runtime::{RuntimeError, channel};

/// Messages generated from the trimmed interface definition.
#[allow(clippy::all, missing_docs)]
pub mod messages {
    tonic::include_proto!("containerd.services");
}

use messages as m;

type Result<T> = std::result::Result<T, RuntimeError>;

/// The namespace in which Kubernetes' images and containers are.
const NAMESPACE: &str = "k8s.io";

/// containerd's own API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Containerd {
    channel: Channel,
}

impl Containerd {
    /// A client of the socket at `socket`; connects when first used.
    pub fn new(socket: &std::path::Path) -> Self {
        Self { channel: channel(socket) }
    }

    /// Names and targets of all images.
    pub async fn images(&self) -> Result<Vec<m::Image>> {
        let request = m::ListImagesRequest { filters: Vec::new() };
        let answer: m::ListImagesResponse =
            self.call("/containerd.services.images.v1.Images/List", request, None).await?;
        Ok(answer.images)
    }

    /// Makes a name mean an image.
    pub async fn name(&self, image: m::Image, lease: &str) -> Result<()> {
        let request = |image: m::Image| m::ImageRequest { image: Some(image) };
        let made: Result<m::ImageResponse> = self
            .call("/containerd.services.images.v1.Images/Create", request(image.clone()), Some(lease))
            .await;
        match made {
            Err(error) if error.code == Code::AlreadyExists => {
                let _: m::ImageResponse = self
                    .call("/containerd.services.images.v1.Images/Update", request(image), Some(lease))
                    .await?;
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Tells containerd of a blob whose file is in its store already. Nothing is copied. Fails when the file is not
    /// there, or has another size.
    pub async fn adopt(
        &self,
        digest: &str,
        size: u64,
        labels: HashMap<String, String>,
        lease: &str,
    ) -> Result<()> {
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let stat = m::WriteContentRequest {
            action: m::WriteAction::Stat.into(),
            r#ref: format!("minik-{digest}"),
            total,
            expected: digest.to_owned(),
            ..Default::default()
        };
        let commit = m::WriteContentRequest {
            action: m::WriteAction::Commit.into(),
            // What is there counts as written: nothing follows.
            offset: total,
            labels,
            ..stat.clone()
        };
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Write");
        let codec = ProstCodec::<m::WriteContentRequest, m::WriteContentResponse>::default();
        let request = addressed(tokio_stream::iter([stat, commit]), Some(lease))?;
        let answered = async {
            let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
            while answers.message().await?.is_some() {}
            std::result::Result::<(), Status>::Ok(())
        };
        match answered.await {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            other => Ok(other?),
        }
    }

    /// What a name means; `None` if it means nothing.
    pub async fn image(&self, name: &str) -> Result<Option<m::Image>> {
        let request = m::GetImageRequest { name: name.to_owned() };
        let answer: Result<m::ImageResponse> =
            self.call("/containerd.services.images.v1.Images/Get", request, None).await;
        match answer {
            Err(error) if error.is_not_found() => Ok(None),
            other => Ok(other?.image),
        }
    }

    /// Returns a whole blob; meant for manifests and configurations.
    pub async fn read(&self, digest: &str) -> Result<Vec<u8>> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
        let codec = ProstCodec::<m::ReadContentRequest, m::ReadContentResponse>::default();
        let request = m::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut answers = grpc.server_streaming(addressed(request, None)?, path, codec).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = answers.message().await? {
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Makes a snapshot that can only be read, on top of another one, and says how it is mounted; one of that key may be
    /// there already. It is kept until it is removed.
    pub async fn view(&self, snapshotter: &str, key: &str, parent: &str) -> Result<Vec<m::Mount>> {
        let kept = ("containerd.io/gc.root".to_owned(), jiff::Timestamp::now().to_string());
        let request = m::MakeSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::from([kept]),
        };
        let made: Result<m::MountsResponse> =
            self.call("/containerd.services.snapshots.v1.Snapshots/View", request, None).await;
        match made {
            Err(error) if error.code == Code::AlreadyExists => {
                let request = snapshot(snapshotter, key);
                let there: m::MountsResponse =
                    self.call("/containerd.services.snapshots.v1.Snapshots/Mounts", request, None).await?;
                Ok(there.mounts)
            }
            other => Ok(other?.mounts),
        }
    }

    /// Whether there is a snapshot of that key.
    pub async fn has_snapshot(&self, snapshotter: &str, key: &str) -> Result<bool> {
        let request = snapshot(snapshotter, key);
        let found: Result<m::StatSnapshotResponse> =
            self.call("/containerd.services.snapshots.v1.Snapshots/Stat", request, None).await;
        match found {
            Err(error) if error.is_not_found() => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Unpacks a layer on top of `parent` (empty: of nothing) into the snapshot `name`.
    pub async fn unpack(
        &self,
        snapshotter: &str,
        layer: m::Descriptor,
        parent: &str,
        name: &str,
        lease: &str,
    ) -> Result<()> {
        let key = format!("minik-unpack-{}", uuid::Uuid::new_v4());
        let request = m::MakeSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let made: m::MountsResponse =
            self.call("/containerd.services.snapshots.v1.Snapshots/Prepare", request, Some(lease)).await?;
        let apply = m::ApplyRequest { diff: Some(layer), mounts: made.mounts };
        let applied: Result<m::ApplyResponse> =
            self.call("/containerd.services.diff.v1.Diff/Apply", apply, Some(lease)).await;
        let commit = m::CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.clone(),
            labels: HashMap::new(),
        };
        let committed: Result<()> = match applied {
            Ok(_) => {
                self.call("/containerd.services.snapshots.v1.Snapshots/Commit", commit, Some(lease)).await
            }
            Err(error) => Err(error),
        };
        match committed {
            // Somebody else unpacked it meanwhile.
            Err(error) if error.code == Code::AlreadyExists => self.remove_snapshot(snapshotter, &key).await,
            Err(error) => {
                let _ = self.remove_snapshot(snapshotter, &key).await;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Removes a snapshot; one that is not there is fine.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let request = snapshot(snapshotter, key);
        match self.call::<_, ()>("/containerd.services.snapshots.v1.Snapshots/Remove", request, None).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Keeps what is made under it from being collected until it is ended.
    pub async fn begin_lease(&self, id: &str) -> Result<()> {
        // Should this process die: a lease that nobody ends goes after a day.
        let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expiry.to_string())]);
        let request = m::CreateLeaseRequest { id: id.to_owned(), labels };
        let _: m::CreateLeaseResponse =
            self.call("/containerd.services.leases.v1.Leases/Create", request, None).await?;
        Ok(())
    }

    pub async fn end_lease(&self, id: &str) -> Result<()> {
        let request = m::DeleteLeaseRequest { id: id.to_owned(), sync: false };
        self.call::<_, ()>("/containerd.services.leases.v1.Leases/Delete", request, None).await
    }

    async fn ready(&self) -> Result<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    async fn call<Q, A>(&self, path: &'static str, message: Q, lease: Option<&str>) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let request = addressed(message, lease)?;
        Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}

fn snapshot(snapshotter: &str, key: &str) -> m::SnapshotRequest {
    m::SnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() }
}

/// Says in the request's head which namespace, and which lease, it is for.
fn addressed<T>(message: T, lease: Option<&str>) -> std::result::Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let head = request.metadata_mut();
    head.insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    if let Some(lease) = lease {
        let value = lease.parse().map_err(|_| Status::invalid_argument("the lease's name"))?;
        head.insert("containerd-lease", value);
    }
    Ok(request)
}
