//! What the runtime has of one Pod.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::cri::api::{self, ContainerState};
use crate::kubelet::container::{HASH, RESOURCES};

/// What the runtime has of one Pod.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
    /// When a container ended last whose rules then restart all of the Pod, in the runtime's nanoseconds: what was made
    /// before that is of the past.
    pub reset: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    /// Empty for Pods on the node's own network.
    pub ips: Vec<String>,
    pub created_at: i64,
}

/// One container, as the runtime last described it.
#[derive(Clone, Debug, Default)]
pub struct Container {
    pub sandbox: String,
    pub status: api::ContainerStatus,
    /// What the container left at its termination message path, read once after it ended.
    pub message: Option<String>,
}

impl Container {
    pub fn id(&self) -> &str {
        &self.status.id
    }

    pub fn name(&self) -> &str {
        self.status.metadata.as_ref().map_or("", |metadata| &metadata.name)
    }

    /// How often it was started before: 0 for the first.
    pub fn attempt(&self) -> u32 {
        self.status.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
    }

    pub fn is_running(&self) -> bool {
        self.status.state() == ContainerState::ContainerRunning
    }

    /// Ended; a container the runtime lost track of counts as ended, as upstream has it.
    pub fn is_exited(&self) -> bool {
        matches!(self.status.state(), ContainerState::ContainerExited | ContainerState::ContainerUnknown)
    }

    pub fn exit_code(&self) -> i32 {
        self.status.exit_code
    }

    pub fn finished_at(&self) -> Timestamp {
        nanoseconds(self.status.finished_at)
    }

    pub fn started_at(&self) -> Timestamp {
        nanoseconds(self.status.started_at)
    }

    pub fn hash(&self) -> Option<&str> {
        self.status.annotations.get(HASH).map(String::as_str)
    }

    /// The resources it was made with.
    pub fn resources(&self) -> Option<&str> {
        self.status.annotations.get(RESOURCES).map(String::as_str)
    }
}

/// The runtime's times are nanoseconds since 1970.
pub fn nanoseconds(value: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(value)).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl View {
    /// The sandbox containers start in: the newest, if it is ready.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of that name, in whichever sandbox.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name() == name)
    }

    /// The newest container of that name in the present sandbox, made since all were restarted together.
    pub fn current(&self, name: &str) -> Option<&Container> {
        let sandbox = self.sandbox()?;
        self.fresh(name).filter(|c| c.sandbox == sandbox.id)
    }

    /// The newest container of that name, unless all have been restarted since.
    pub fn fresh(&self, name: &str) -> Option<&Container> {
        self.latest(name).filter(|container| !self.is_past(container))
    }

    /// Whether a container was made before all were restarted together.
    pub fn is_past(&self, container: &Container) -> bool {
        self.reset.is_some_and(|reset| container.status.created_at <= reset)
    }

    /// The container before the newest one of that name.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|container| container.name() == name).nth(1)
    }

    pub fn by_id(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.id() == id)
    }

    /// Those that must be stopped before their Pod may go. One that was created but never started has no process;
    /// it goes with its sandbox.
    pub fn alive(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.is_running())
    }
}

/// What was learned earlier and cannot have changed: it saves a call per container.
#[derive(Debug, Default)]
pub struct Known {
    pub containers: HashMap<String, Container>,
    pub sandboxes: HashMap<String, Sandbox>,
}

/// What the tests of plan and status share.
#[cfg(test)]
pub(super) mod testing {
    use super::Container;
    use crate::cri::api;

    /// A container as the runtime tells of it: name, sandbox, attempt, running or its exit code.
    pub fn container(name: &str, sandbox: &str, attempt: u32, exit: Option<i32>) -> Container {
        let state = if exit.is_some() {
            api::ContainerState::ContainerExited
        } else {
            api::ContainerState::ContainerRunning
        };
        let status = api::ContainerStatus {
            id: format!("{name}-{attempt}"),
            metadata: Some(api::ContainerMetadata { name: name.into(), attempt }),
            state: state.into(),
            created_at: i64::from(attempt) + 1,
            started_at: 1_000_000_000,
            finished_at: if exit.is_some() { 2_000_000_000 } else { 0 },
            exit_code: exit.unwrap_or(0),
            ..Default::default()
        };
        Container { sandbox: sandbox.into(), status, message: None }
    }
}
