//! What a Pod's worker does: actions, with everything they need, and the keys they are known by.

use std::fmt;

use jiff::Timestamp;

/// What identifies an action: two with one key are the same action, and only one of them is under way at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Volumes,
    /// Written volumes are brought up to date.
    Refresh,
    Sandbox,
    /// By container name.
    Pull(String),
    /// By container name.
    Start(String),
    /// By container id.
    PostStart(String),
    /// By container id.
    PreStop(String),
    /// By container id and the seconds it was given: a shorter time is another action.
    Stop(String, i64),
    /// By container id.
    Resize(String),
    StopSandbox(String),
    RemoveContainer(String),
    RemoveSandbox(String),
    Report,
    Release,
    Finish,
    Cleanup,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volumes => f.write_str("volumes"),
            Self::Refresh => f.write_str("refresh"),
            Self::Sandbox => f.write_str("sandbox"),
            Self::Pull(name) => write!(f, "pull {name}"),
            Self::Start(name) => write!(f, "start {name}"),
            Self::PostStart(id) => write!(f, "post-start {id}"),
            Self::PreStop(id) => write!(f, "pre-stop {id}"),
            Self::Stop(id, grace) => write!(f, "stop {id} {grace}"),
            Self::Resize(id) => write!(f, "resize {id}"),
            Self::StopSandbox(id) => write!(f, "stop-sandbox {id}"),
            Self::RemoveContainer(id) => write!(f, "remove {id}"),
            Self::RemoveSandbox(id) => write!(f, "remove-sandbox {id}"),
            Self::Report => f.write_str("report"),
            Self::Release => f.write_str("release"),
            Self::Finish => f.write_str("finish"),
            Self::Cleanup => f.write_str("cleanup"),
        }
    }
}

/// One thing to do, with everything it is done with. Those that take time run beside the worker and are busy under
/// their key meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Volumes,
    Sandbox {
        attempt: u32,
    },
    Pull {
        container: String,
    },
    Start(Start),
    PostStart(Hook),
    /// The hook may take until `until`; `message` is for the event.
    PreStop {
        hook: Hook,
        until: Timestamp,
        message: String,
    },
    Stop(Stop),
    /// Gives a running container other limits.
    Resize {
        container: String,
        id: String,
    },
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
        container: String,
        attempt: u32,
    },
    RemoveSandbox {
        id: String,
    },
    /// Lets go of the volumes of a Pod that has ended.
    Release,
    /// Writes the last status and deletes the Pod from the API server.
    Finish,
    /// Removes everything the node has of the Pod.
    Cleanup {
        sandboxes: Vec<String>,
    },
}

/// What a container is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    pub container: String,
    pub attempt: u32,
    /// The image's reference on this node.
    pub image: String,
    pub sandbox: String,
    pub sandbox_attempt: u32,
    /// The sandbox's addresses; empty on the node's own network.
    pub ips: Vec<String>,
    /// The container whose processes an ephemeral container wants to see, by id.
    pub target: Option<String>,
}

/// A lifecycle hook's container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    pub container: String,
    pub id: String,
    pub pod_ip: Option<String>,
}

/// How a container is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub container: String,
    pub id: String,
    /// Seconds it was given in all.
    pub grace: i64,
    /// When those are over.
    pub kill_at: Timestamp,
    pub message: String,
}

impl Action {
    /// What the action is known by while it is under way.
    pub fn key(&self) -> Key {
        match self {
            Self::Volumes => Key::Volumes,
            Self::Sandbox { .. } => Key::Sandbox,
            Self::Pull { container } => Key::Pull(container.clone()),
            Self::Start(start) => Key::Start(start.container.clone()),
            Self::PostStart(hook) => Key::PostStart(hook.id.clone()),
            Self::PreStop { hook, .. } => Key::PreStop(hook.id.clone()),
            Self::Stop(stop) => Key::Stop(stop.id.clone(), stop.grace),
            Self::Resize { id, .. } => Key::Resize(id.clone()),
            Self::StopSandbox { id } => Key::StopSandbox(id.clone()),
            Self::RemoveContainer { id, .. } => Key::RemoveContainer(id.clone()),
            Self::RemoveSandbox { id } => Key::RemoveSandbox(id.clone()),
            Self::Release => Key::Release,
            Self::Finish => Key::Finish,
            Self::Cleanup { .. } => Key::Cleanup,
        }
    }
}
