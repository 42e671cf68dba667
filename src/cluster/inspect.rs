//! Everything there is to know about one cluster, secrets left out.

use serde::Serialize;

use super::diff::diff;
use super::docker::Docker;
use super::list::{NodeSummary, find};
use super::observe::observe;
use super::plan::{Desired, desired};
use super::record::ClusterRecord;
use super::spec::{ClusterName, ClusterSpec};
use super::{Broken, ClusterError, broken, labels};

/// A cluster, as `cluster inspect` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    pub name: String,
    pub status: &'static str,
    pub server: String,
    pub context: String,
    pub image: String,
    pub subnet: ipnet::Ipv4Net,
    /// What it should be.
    pub spec: ClusterSpec,
    /// What there is.
    pub nodes: Vec<NodeSummary>,
    /// What is broken on purpose, and until when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Broken>,
    /// What is not as it should be, as the steps that would mend it.
    pub differences: Vec<String>,
}

/// Looks at a cluster. Fails when it does not exist or has no readable record.
pub async fn inspect(docker: &Docker, name: &ClusterName) -> Result<Inspected, ClusterError> {
    let (summary, observed) = futures::try_join!(find(docker, name.as_str()), observe(docker, name))?;
    let record = ClusterRecord::read(docker, name.as_str(), &observed.containers).await?;
    let plan: Desired = desired(&record);
    let broken = broken(docker, &observed.containers).await;
    Ok(Inspected {
        name: name.to_string(),
        status: summary.status,
        server: record.drawn.api_url(),
        context: labels::context(name.as_str()),
        image: record.drawn.image.clone(),
        subnet: record.drawn.subnet.net(),
        nodes: summary.nodes,
        broken,
        differences: diff(&plan, &observed).iter().map(ToString::to_string).collect(),
        spec: record.spec,
    })
}
