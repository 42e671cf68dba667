//! Renews the node's Lease.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

/// Upstream's lease: renewed every 10 s, good for 40 s.
const RENEW: Duration = Duration::from_secs(10);
const DURATION: i32 = 40;

/// Keeps the node's lease fresh until dropped, whatever else the node is busy with.
pub async fn keep(client: Client, node: String, known: watch::Receiver<Arc<Node>>) {
    let mut ticks = tokio::time::interval(RENEW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let uid = known.borrow().metadata.uid.clone();
        let owner = uid.map(|uid| OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: node.clone(),
            uid,
            ..Default::default()
        });
        // One that hangs must not hold up the next.
        match tokio::time::timeout(RENEW, renew(&client, &node, owner)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease is not renewed"),
            Err(_) => tracing::warn!("the lease is not renewed: the API server does not answer"),
        }
    }
}

/// Renews the node's lease once, making it first where there is none.
async fn renew(client: &Client, node: &str, owner: Option<OwnerReference>) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let patch =
        json!({ "spec": { "renewTime": &now, "holderIdentity": node, "leaseDurationSeconds": DURATION } });
    match leases.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(node.to_owned()),
                    owner_references: owner.map(|owner| vec![owner]),
                    ..Default::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(node.to_owned()),
                    lease_duration_seconds: Some(DURATION),
                    renew_time: Some(now),
                    ..Default::default()
                }),
            };
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}
