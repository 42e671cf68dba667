//! The endpoints of the Service `kubernetes` are the servers that are there.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Server, Shared, eventually};

/// How long upstream's master leases last.
const TERM: Duration = Duration::from_secs(15);

/// The addresses that a server's clients are told.
async fn told(server: &Server) -> Vec<String> {
    let slice = server.api::<EndpointSlice>("default").get("kubernetes").await.expect("the slice");
    let of_slice: Vec<String> =
        slice.endpoints.unwrap_or_default().into_iter().flat_map(|endpoint| endpoint.addresses).collect();
    let endpoints = server.api::<Endpoints>("default").get("kubernetes").await.expect("the endpoints");
    let subsets = endpoints.subsets.unwrap_or_default().into_iter();
    let addresses = subsets.flat_map(|subset| subset.addresses.unwrap_or_default());
    let of_endpoints: Vec<String> = addresses.map(|address| address.ip).collect();
    // Written one after the other: a look may fall between the two.
    if of_slice == of_endpoints { of_slice } else { Vec::new() }
}

async fn are(server: &Server, servers: &[&str]) -> Duration {
    eventually(&format!("the servers are {servers:?}"), || async { told(server).await == servers }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_come_leave_and_die() {
    let Some(shared) = Shared::start() else { return };
    let [one, two] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(Ipv4Addr::from);
    let first = shared.server_at("one", one).await;
    assert_eq!(told(&first).await, ["10.0.0.1"]);
    let second = shared.server_at("two", two).await;
    are(&first, &["10.0.0.1", "10.0.0.2"]).await;
    // One that leaves says so.
    first.stop().await;
    let took = are(&second, &["10.0.0.2"]).await;
    assert!(took < TERM / 2, "known after {took:?}");
    // One that dies does not, and is missed when its entry ends.
    let first = shared.server_at("one", one).await;
    are(&first, &["10.0.0.1", "10.0.0.2"]).await;
    second.kill();
    let took = are(&first, &["10.0.0.1"]).await;
    assert!(took < TERM + Duration::from_secs(5), "missed after {took:?}");
    first.stop().await;
}
