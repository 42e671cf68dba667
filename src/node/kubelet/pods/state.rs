//! What a worker remembers between rounds: back-off, failures, verdicts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use k8s_openapi::api::core::v1::PodStatus;

use super::action::Key;
use super::admission::Refusal;
use super::view::Container;
use crate::kubelet::volumes::Volumes;
use rt::Backoff;

/// Upstream's back-off for containers that keep ending, and for images that cannot be fetched.
pub const CRASH: Backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(300) };
pub const PULL: Backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_secs(300) };
/// For what fails in the runtime or in the Pod's own definition: sandboxes, volumes, containers that cannot be created.
pub const SETUP: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
/// A container that ran this long is forgiven its earlier crashes.
const FORGIVE: SignedDuration = SignedDuration::from_mins(10);

/// A failure that is tried again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackoffEntry {
    /// As the waiting reason in container status says it.
    pub reason: String,
    pub message: String,
    pub failures: u32,
    pub retry_at: Timestamp,
}

impl BackoffEntry {
    /// The next failure after `earlier`.
    pub fn after(
        earlier: Option<&Self>,
        backoff: Backoff,
        reason: &str,
        message: String,
        now: Timestamp,
    ) -> Self {
        let failures = earlier.map_or(1, |trouble| trouble.failures + 1);
        let delay = SignedDuration::try_from(backoff.delay(failures)).unwrap_or(SignedDuration::MAX);
        Self { reason: reason.to_owned(), message, failures, retry_at: later(now, delay) }
    }
}

/// `now + delay`, never past the end of time.
pub fn later(now: Timestamp, delay: SignedDuration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// The name under which it is remembered where the image of a volume is; no container has such a name.
pub fn mounted_image(volume: &str) -> String {
    format!("volume/{volume}")
}

/// The volume that such a name stands for.
pub fn volume_of(slot: &str) -> Option<&str> {
    slot.strip_prefix("volume/")
}

/// Where an image is, that a container runs or a volume shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// To be looked at before the next start.
    #[default]
    Unknown,
    /// On the node, under this reference; used up by the next start.
    Ready(String),
    Failed(BackoffEntry),
}

impl Image {
    /// Why it is not there.
    pub fn trouble(&self) -> Option<&BackoffEntry> {
        match self {
            Self::Failed(trouble) => Some(trouble),
            _ => None,
        }
    }
}

/// What a worker remembers of one container name.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub image: Image,
    /// Why it could not be created or started.
    pub trouble: Option<BackoffEntry>,
    pub restarted: Option<Restarted>,
}

/// The last restart: which container it followed, and how many had gone before since it last ran well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarted {
    pub attempt: u32,
    pub level: u32,
}

/// Why a Pod ends on the node's account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    pub reason: String,
    pub message: String,
    /// Seconds its containers get, where that is not what the Pod says.
    pub grace: Option<i64>,
    /// The node needs its room: whoever counts failures may leave this one out.
    pub disrupted: bool,
}

impl Failed {
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), ..Self::default() }
    }
}

/// Why a container is stopped though its Pod stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub message: String,
    /// Seconds, where the probe says its own.
    pub grace: Option<i64>,
}

/// Everything a worker knows that neither the API server nor the runtime does.
#[derive(Clone, Debug, Default)]
pub struct WorkerState {
    pub slots: HashMap<String, Slot>,
    /// Actions under way.
    pub busy: HashSet<Key>,
    /// Actions that failed, and when each is tried again.
    pub troubles: HashMap<Key, BackoffEntry>,
    pub volumes_ready: bool,
    /// Where the volumes are, once they are ready.
    pub volumes: Arc<Volumes>,
    /// Sandboxes that were stopped, though the runtime may not say so yet.
    pub stopped_sandboxes: HashSet<String>,
    /// Containers and sandboxes removed, though the runtime may not say so yet.
    pub removed: HashSet<String>,
    /// Containers that passed their startup probe (or have none), by id.
    pub started: HashSet<String>,
    /// Containers that passed their readiness probe (or have none), by id.
    pub ready: HashSet<String>,
    /// Containers that this worker started and whose postStart hook has not ended yet, by id.
    pub hooked: HashSet<String>,
    /// Containers whose preStop hook has run, by id: it runs once.
    pub pre_stopped: HashSet<String>,
    /// Containers that are being stopped though their Pod stays, by id, and since when.
    pub stopping: HashMap<String, Timestamp>,
    /// Containers condemned by a liveness or startup probe, or by a failed hook, by id.
    pub condemned: HashMap<String, Verdict>,
    /// Resources given to running containers since they were made, by id, as [`resources_hash`] spells them.
    ///
    /// [`resources_hash`]: crate::kubelet::container::resources_hash
    pub resized: HashMap<String, String>,
    /// Why the node has no room for what a running Pod asks for now.
    pub no_room: Option<Refusal>,
    /// The Pod ended on the node's account: reason and message of its Failed phase.
    pub failed: Option<Failed>,
    /// Since when the Pod as a whole is ending: its containers share the time it was given.
    pub ending_since: Option<Timestamp>,
    /// The node stops: seconds each Pod gets to end its containers.
    pub shutdown: Option<i64>,
    /// The API server has no such Pod any more.
    pub gone: bool,
    /// What an earlier agent told of its containers was taken over.
    pub adopted: bool,
    /// Its volumes were let go of after it had ended.
    pub released: bool,
    /// The deletion was sent.
    pub finished: bool,
    /// The status last sent to the API server, and the revision the Pod had after that.
    pub reported: Option<PodStatus>,
    pub reported_at: Option<String>,
    /// When that was.
    pub reported_when: Option<Timestamp>,
    /// When this node took the Pod up.
    pub start_time: Option<Timestamp>,
}

impl WorkerState {
    pub fn slot(&self, name: &str) -> Slot {
        self.slots.get(name).cloned().unwrap_or_default()
    }

    pub fn slot_mut(&mut self, name: &str) -> &mut Slot {
        self.slots.entry(name.to_owned()).or_default()
    }

    pub fn is_busy(&self, key: &Key) -> bool {
        self.busy.contains(key)
    }

    /// Notes that an action failed: it is tried again after a while, later each time.
    pub fn fail(&mut self, key: Key, message: String, now: Timestamp) {
        let trouble = BackoffEntry::after(self.troubles.get(&key), SETUP, "ContainerCreating", message, now);
        self.troubles.insert(key, trouble);
    }

    /// When a container that ended may start again, and how long that back-off is.
    pub fn restart_at(&self, ended: &Container) -> (Timestamp, Duration) {
        let delay = CRASH.delay(self.level(ended));
        let signed = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        (later(ended.finished_at(), signed), delay)
    }

    /// Counts the restart that follows `ended`.
    pub fn count_restart(&mut self, ended: &Container) {
        let restarted = Restarted { attempt: ended.attempt(), level: self.level(ended) };
        self.slot_mut(ended.name()).restarted = Some(restarted);
    }

    fn level(&self, ended: &Container) -> u32 {
        if ended.finished_at().duration_since(ended.started_at()) >= FORGIVE {
            return 0;
        }
        match self.slots.get(ended.name()).and_then(|slot| slot.restarted) {
            // Its restart is under way: nothing changes for the one that ended.
            Some(last) if last.attempt >= ended.attempt() => last.level,
            Some(last) => last.level + 1,
            // After an agent's restart the container's own count stands in for what was forgotten.
            None => ended.attempt(),
        }
    }
}
