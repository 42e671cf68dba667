//! Carries steps out on Docker, and takes back what it made when one fails: that and nothing else.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use tokio::sync::Semaphore;

use super::ClusterError;
use super::delete::remove_volumes;
use super::diff::Step;
use super::docker::{Docker, DockerError};
use super::labels;
use super::node_image::archive;
use super::plan::{ContainerPlan, NetworkPlan, PutFile};

/// One thing that was made, and so can be taken back.
#[derive(Clone, Debug)]
enum Made {
    Network(String),
    Container {
        name: String,
        volumes: Vec<String>,
    },
    /// Other files were put into it.
    Files {
        id: String,
        before: Vec<PutFile>,
    },
    /// The one before waits, stopped, under another name.
    Replaced {
        id: String,
        name: String,
    },
}

/// What was made by one command.
#[derive(Debug, Default)]
pub(super) struct Undo(Mutex<Vec<Made>>);

impl Undo {
    fn note(&self, made: Made) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    }

    fn take(&self) -> Vec<Made> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes everything back. What is not this cluster's is left alone, also where it carries the name. Fails with what
    /// could not be removed.
    pub(super) async fn roll_back(&self, docker: &Docker, cluster: &str) -> Result<(), ClusterError> {
        let made = self.take();
        let mut left: Vec<String> = Vec::new();
        // What was replaced comes back last: what was made may have its host ports.
        let (replaced, others): (Vec<_>, Vec<_>) =
            made.iter().partition(|made| matches!(made, Made::Replaced { .. }));
        for containers in [others, replaced] {
            let taken = containers.into_iter().map(|made| take_back_container(docker, cluster, made));
            let taken = join_all(taken).await.into_iter();
            left.extend(taken.filter_map(Result::err).map(|error| error.to_string()));
        }
        for made in &made {
            if let Made::Network(name) = made
                && docker.network_owner(name).await?.flatten().as_deref() == Some(cluster)
                && let Err(error) = docker.remove_network(name).await
            {
                left.push(error.to_string());
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(ClusterError::Left { name: cluster.to_owned(), left }),
        }
    }

    /// Everything went well: those that were replaced go for good.
    pub(super) async fn settle(&self, docker: &Docker) -> Result<(), ClusterError> {
        for made in self.take() {
            if let Made::Replaced { id, .. } = made {
                docker.remove_container(&id).await?;
            }
        }
        Ok(())
    }
}

async fn take_back_container(docker: &Docker, cluster: &str, made: &Made) -> Result<(), DockerError> {
    let (name, volumes, before) = match made {
        Made::Network(_) => return Ok(()),
        Made::Files { id, before } => return put_files(docker, id, before).await,
        Made::Container { name, volumes } => (name, volumes.as_slice(), None),
        Made::Replaced { id, name } => (name, [].as_slice(), Some(id)),
    };
    if docker.container_owner(name).await?.flatten().as_deref() == Some(cluster) {
        docker.remove_container(name).await?;
    }
    for volume in volumes {
        docker.remove_volume(volume).await?;
    }
    if let Some(id) = before {
        docker.rename_container(id, name).await?;
        docker.start_container(id).await?;
    }
    Ok(())
}

/// Carries all steps out. Whatever is made is noted in `undo` before Docker is asked for it: an answer may get lost. All
/// are waited for, also after one failed, so that nothing comes into being behind the back of a roll-back.
pub(super) async fn execute(docker: &Docker, steps: &[Step], undo: &Undo) -> Result<(), DockerError> {
    let removed = steps.iter().filter_map(|step| match step {
        Step::Remove { id, volumes, .. } => Some(remove(docker, id, volumes)),
        _ => None,
    });
    all(join_all(removed).await)?;
    let network = steps.iter().find_map(|step| match step {
        Step::CreateNetwork(plan) => Some(plan),
        _ => None,
    });
    let creates: Vec<(&ContainerPlan, &[String])> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Create { plan, new_volumes } => Some((plan, new_volumes.as_slice())),
            _ => None,
        })
        .collect();
    // Docker looks for the network when a container starts, not when it is made: both are done at once, and each container
    // starts as soon as itself and the network are there, and those have given way whose host ports it may get.
    let there = &Semaphore::new(0);
    let network = async {
        match network_and_replaced(docker, (network, steps), undo).await {
            Ok(()) => {
                there.add_permits(creates.len());
                Ok(())
            }
            Err(error) => {
                there.close();
                Err(error)
            }
        }
    };
    let started = creates.iter().map(|(plan, new_volumes)| async move {
        let made = create(docker, plan, new_volumes, undo).await;
        match there.acquire().await {
            Ok(turn) => turn.forget(),
            // There is no network, which is the error to tell.
            Err(_) => return Ok(()),
        }
        finish(docker, plan, made).await
    });
    let (network, started) = futures::join!(network, join_all(started));
    network?;
    all(started)?;
    all(join_all(steps.iter().filter_map(|step| match step {
        Step::Files { id, files, before, .. } => Some(change_files(docker, id, (files, before), undo)),
        _ => None,
    }))
    .await)?;
    all(join_all(steps.iter().filter_map(|step| match step {
        Step::Start { id, .. } => Some(docker.start_container(id)),
        _ => None,
    }))
    .await)
}

fn all(results: Vec<Result<(), DockerError>>) -> Result<(), DockerError> {
    results.into_iter().collect()
}

async fn network_and_replaced(
    docker: &Docker,
    (network, steps): (Option<&NetworkPlan>, &[Step]),
    undo: &Undo,
) -> Result<(), DockerError> {
    create_network(docker, network, undo).await?;
    all(join_all(steps.iter().filter_map(|step| match step {
        Step::Replace { id, plan } => Some(replace(docker, id, plan, undo)),
        _ => None,
    }))
    .await)
}

async fn create_network(docker: &Docker, plan: Option<&NetworkPlan>, undo: &Undo) -> Result<(), DockerError> {
    let Some(plan) = plan else { return Ok(()) };
    undo.note(Made::Network(plan.name.clone()));
    docker.create_network(plan).await
}

async fn create(
    docker: &Docker,
    plan: &ContainerPlan,
    new_volumes: &[String],
    undo: &Undo,
) -> Result<(), DockerError> {
    undo.note(Made::Container { name: plan.name.clone(), volumes: new_volumes.to_vec() });
    docker.create_container(plan).await?;
    put_files(docker, &plan.name, &plan.files).await
}

/// Starts what was created; creates it now where Docker wanted its network first.
async fn finish(
    docker: &Docker,
    plan: &ContainerPlan,
    made: Result<(), DockerError>,
) -> Result<(), DockerError> {
    match made {
        Err(DockerError::NotFound(why)) if why.contains("network") => {
            docker.create_container(plan).await?;
            put_files(docker, &plan.name, &plan.files).await?;
        }
        other => other?,
    }
    docker.start_container(&plan.name).await
}

async fn change_files(
    docker: &Docker,
    id: &str,
    (files, before): (&[PutFile], &[PutFile]),
    undo: &Undo,
) -> Result<(), DockerError> {
    undo.note(Made::Files { id: id.to_owned(), before: before.to_vec() });
    put_files(docker, id, files).await
}

pub(super) async fn put_files(
    docker: &Docker,
    container: &str,
    files: &[PutFile],
) -> Result<(), DockerError> {
    if files.is_empty() {
        return Ok(());
    }
    let files = files.iter().map(|(path, content, mode)| (Path::new(path), content.as_slice(), *mode));
    let tar = archive(files).map_err(|error| DockerError::Client(error.to_string()))?;
    docker.put_archive(container, "/", tar).await
}

async fn remove(docker: &Docker, id: &str, volumes: &[String]) -> Result<(), DockerError> {
    docker.remove_container(id).await?;
    remove_volumes(docker, volumes.iter()).await
}

/// The address and the host ports are free only once the one before has stopped.
async fn replace(docker: &Docker, id: &str, plan: &ContainerPlan, undo: &Undo) -> Result<(), DockerError> {
    docker.stop_container(id).await?;
    docker.rename_container(id, &format!("{}{}", plan.name, labels::BEFORE)).await?;
    undo.note(Made::Replaced { id: id.to_owned(), name: plan.name.clone() });
    docker.create_container(plan).await?;
    put_files(docker, &plan.name, &plan.files).await?;
    docker.start_container(&plan.name).await
}
