//! Puts a cluster back to a snapshot, or makes a new one from it.

use super::copy;
use super::{About, find};
use crate::change::{ChangeOptions, Changed, change};
use crate::create::{self, CreateOptions, Created};
use crate::docker::Docker;
use crate::lifecycle::{existing, kill};
use crate::lock::lock;
use crate::node_image;
use crate::observe::observe;
use crate::progress::{Phases, Progress};
use crate::record::ClusterRecord;
use crate::spec::ClusterName;
use crate::wait::in_phase;
use crate::{ClusterError, delete};
use rt::Stop;

/// Reads a snapshot; with it, the node image it was made under, or the one of this program where that is gone.
async fn read(
    docker: &Docker,
    name: &ClusterName,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<About, ClusterError> {
    find(docker, name).await?;
    let image = phases.run("node image", node_image::ensure(docker, None, phases, stop));
    let image = image.await.map_err(|error| in_phase("node image")(error.into()))?;
    let mut about = copy::about(docker, name, &image).await?;
    if !docker.image_exists(&about.record.drawn.image).await? {
        about.record.drawn.image = image;
    }
    Ok(about)
}

/// Puts a cluster back to a snapshot of it: objects, volumes and nodes. What was made since is gone. Fails when the
/// snapshot is of another cluster; when it fails midway the cluster is stopped, and the same can be tried again.
pub async fn reset(
    docker: &Docker,
    cluster: &ClusterName,
    name: &ClusterName,
    options: &ChangeOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Changed, ClusterError> {
    let phases = Phases::new(progress);
    let about = read(docker, name, &phases, stop).await?;
    if about.record.spec.name != *cluster {
        let of = about.record.spec.name.to_string();
        return Err(ClusterError::OtherSnapshot { name: name.to_string(), of });
    }
    {
        let _lock = lock(cluster)?;
        let observed = observe(docker, cluster).await?;
        let now = ClusterRecord::read(docker, cluster.as_str(), &observed.containers).await?;
        let running: Vec<_> = existing(docker, cluster).await?.into_iter().filter(|c| c.running).collect();
        phases.run("stopping nodes", kill(docker, &running)).await?;
        phases.run("writing volumes", copy::restore(docker, &about, name, cluster)).await?;
        // Where it is stays as it is now; who it is, and what it should be, are the snapshot's.
        let mut record = about.record.clone();
        let (token, ca_hash) = (record.drawn.token.clone(), record.drawn.ca_hash.clone());
        record.drawn = now.drawn;
        (record.drawn.token, record.drawn.ca_hash) = (token, ca_hash);
        record.store(docker).await?;
    }
    change(docker, cluster, options, progress, stop, |_| Ok(())).await
}

/// Makes a new cluster from a snapshot. It has addresses and host ports of its own; the names of its nodes inside, its
/// authority and its objects are the snapshot's. Fails when the name is taken or the servers know each other by their addresses, and
/// leaves nothing when it fails later.
pub async fn fork(
    docker: &Docker,
    name: &ClusterName,
    options: &CreateOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Created, ClusterError> {
    let cluster = &options.spec.name;
    let phases = Phases::new(progress);
    let about = read(docker, name, &phases, stop).await?;
    if about.record.spec.runs_etcd() {
        return Err(ClusterError::SeveralServers {
            name: name.to_string(),
            of: about.record.spec.name.to_string(),
        });
    }
    let _lock = lock(cluster)?;
    create::refuse_existing(docker, &options.spec).await?;
    let work = async {
        phases.run("writing volumes", copy::restore(docker, &about, name, cluster)).await?;
        create::from_volumes(docker, options, &about.record, &phases, stop).await
    };
    match work.await {
        Ok((plan, access, kubeconfig)) => Ok(Created { plan, access, kubeconfig, phases: phases.times() }),
        Err(error) => {
            if options.rollback {
                // Everything of this name is of this command: nothing was there before.
                let removed = phases.run("rolling back", delete(docker, cluster.as_str(), None)).await;
                if let Err(error) = removed {
                    phases.warn(&format!("could not remove everything again: {error}"));
                }
            }
            Err(error)
        }
    }
}
