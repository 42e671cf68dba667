//! Breaks nodes on purpose: the node itself does it, and heals it when its time has come, whatever becomes of this program.

use futures::future::join_all;
use jiff::SignedDuration;
use serde::Serialize;

use super::diff::is_load_balancer;
use super::docker::{Container, Docker, DockerError};
use super::{ClusterError, inside};
use config::{Fault, FaultKind};
use rt::{Clock, SystemClock};

/// A node, and what is broken of it on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    pub node: String,
    #[serde(flatten)]
    pub fault: Fault,
}

/// Breaks a node for so many seconds. Fails when it does not run, or cannot be broken in this way on this machine.
pub async fn begin_fault(
    docker: &Docker,
    node: &Container,
    kind: &FaultKind,
    seconds: u32,
) -> Result<Broken, ClusterError> {
    if !node.running {
        return Err(ClusterError::NodeStopped(node.name.clone()));
    }
    if *kind == FaultKind::Kill {
        return kill(docker, node, seconds).await;
    }
    let kind = serde_json::to_string(kind).expect("plain data");
    let seconds = seconds.to_string();
    let asked = inside::ask::<Fault>(docker, &node.name, &["fault", "begin", &kind, &seconds]).await;
    match asked {
        Ok(fault) => Ok(Broken { node: node.name.clone(), fault }),
        Err(why) => Err(ClusterError::Fault { node: node.name.clone(), why }),
    }
}

/// A node that dies need not live to say how the command ended: only a refusal is an answer.
async fn kill(docker: &Docker, node: &Container, seconds: u32) -> Result<Broken, ClusterError> {
    let kind = serde_json::to_string(&FaultKind::Kill).expect("plain data");
    let command = ["/usr/bin/minik", "node", "fault", "begin", &kind, &seconds.to_string()];
    match docker.exec(&node.name, &command).await {
        Ok(answer) if (1..=125).contains(&answer.exit_code) => {
            let why = answer.stderr.trim().trim_start_matches("error: ").to_owned();
            return Err(ClusterError::Fault { node: node.name.clone(), why });
        }
        Ok(_) | Err(DockerError::NotFound(_) | DockerError::Conflict(_)) => {}
        Err(other) => return Err(other.into()),
    }
    let until = SystemClock.now().checked_add(SignedDuration::from_secs(i64::from(seconds)));
    let until = until.map_err(|error| ClusterError::Client(error.to_string()))?;
    Ok(Broken { node: node.name.clone(), fault: Fault { kind: FaultKind::Kill, until } })
}

/// Mends everything that is broken on purpose of a node; returns what was. Fails when something stays broken.
pub async fn heal(docker: &Docker, node: &Container) -> Result<Vec<Broken>, ClusterError> {
    let of = |fault| Broken { node: node.name.clone(), fault };
    match inside::ask::<Vec<Fault>>(docker, &node.name, &["fault", "heal"]).await {
        Ok(faults) => Ok(faults.into_iter().map(of).collect()),
        Err(why) => Err(ClusterError::Fault { node: node.name.clone(), why }),
    }
}

/// What is broken on purpose of these nodes. One that cannot be asked has nothing to tell.
pub async fn broken(docker: &Docker, nodes: &[Container]) -> Vec<Broken> {
    let running = nodes.iter().filter(|container| container.running && !is_load_balancer(container));
    let asked = running.map(|container| async {
        let told = inside::ask::<Vec<Fault>>(docker, &container.name, &["fault", "list"]).await;
        if let Err(why) = &told {
            tracing::debug!(node = container.name, why, "does not tell its faults");
        }
        let of = |fault| Broken { node: container.name.clone(), fault };
        told.unwrap_or_default().into_iter().map(of).collect::<Vec<_>>()
    });
    join_all(asked).await.concat()
}
