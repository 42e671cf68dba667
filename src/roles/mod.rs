//! What runs inside a container: the composition roots, one file per role.

use crate::config::NodeConfig;

/// Runs the role this node has, until the process is told to stop.
pub async fn run(config: NodeConfig) -> anyhow::Result<()> {
    anyhow::bail!("this build has no role for node {}", config.node)
}
