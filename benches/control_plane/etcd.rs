//! The peer: a real etcd in a process of its own, and just enough of its protocol.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Field numbers of `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// Field numbers of `etcdserverpb.RangeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
}

/// Field numbers of `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// Field numbers of `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: bytes::Bytes,
}

/// A running etcd; it ends when this is dropped.
pub struct Etcd {
    process: Child,
    endpoint: String,
}

impl Etcd {
    /// Starts `etcd` from `PATH` with its data in `folder`; `None` if there is none.
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        let (client, peer) = (free_port()?, free_port()?);
        let endpoint = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let spawned = Command::new("etcd")
            .args(["--data-dir".as_ref(), folder.as_os_str()])
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"])
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("etcd"),
        };
        let etcd = Self { process, endpoint };
        let begun = Instant::now();
        loop {
            if let Ok(mut client) = etcd.connect().await
                && client.put("/ready", bytes::Bytes::from_static(b"yes")).await.is_ok()
            {
                return Ok(Some(etcd));
            }
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("etcd does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Client> {
        let channel = Endpoint::from_shared(self.endpoint.clone())?.tcp_nodelay(true).connect().await?;
        Ok(Client(Grpc::new(channel).max_decoding_message_size(64 << 20)))
    }

    pub async fn connections(&self, count: usize) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.connect().await?);
        }
        Ok(clients)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Client(Grpc<Channel>);

impl Client {
    pub async fn put(&mut self, key: &str, value: bytes::Bytes) -> Result<()> {
        let request = PutRequest { key: key.to_owned().into(), value };
        let _: PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    /// Reads one key; answers how many there are of it.
    pub async fn range(&mut self, key: &str) -> Result<usize> {
        let request = RangeRequest { key: key.to_owned().into() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.len())
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(self.0.unary(tonic::Request::new(request), path, codec).await?.into_inner())
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
