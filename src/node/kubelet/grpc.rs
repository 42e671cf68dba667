//! The gRPC health protocol (grpc.health.v1), as far as probes need it.

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks whether `service` (empty: the whole server) is serving.
pub async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("rpc to {host}:{port} failed: {error}");
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|error| fail(&error))?;
    let channel = endpoint.connect().await.map_err(|error| fail(&error))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| fail(&error))?;
    let codec: ProstCodec<Question, Answer> = ProstCodec::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let question = tonic::Request::new(Question { service: service.to_owned() });
    let answer = client.unary(question, path, codec).await.map_err(|status| fail(&status.message()))?;
    match answer.into_inner().status {
        SERVING => Ok(()),
        other => Err(format!("service unhealthy (responded with status {other})")),
    }
}
