//! Calls of containerd's own API: the three services that hold images, in the namespace of Kubernetes.
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
