//! The event recorder: says what happened to an object as core/v1 Events, the same thing once with a count.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use rt::{Clock, Tasks};

/// Notes that wait to be written; when more come than can be written, the newest are dropped.
const BACKLOG: usize = 1024;
/// How many are written at once: each waits for the disk, and they can share a wait.
const LANES: usize = 8;
/// How many different events are remembered, to count repetitions.
const REMEMBERED: usize = 2048;
/// This many different messages about one object and reason within [`SIMILAR_WINDOW`] are told apart;
/// more are folded into one event, as upstream does.
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug)]
struct Note {
    about: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    source: EventSource,
}

/// Writes Events in the background; recording never waits and never fails its caller.
#[derive(Clone, Debug)]
pub struct Recorder {
    source: EventSource,
    notes: mpsc::Sender<Note>,
}

impl Recorder {
    /// A recorder that writes through `client` in the name of `component` on `host` (empty: none).
    pub fn start(client: Client, component: &str, host: &str, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let (notes, inbox) = mpsc::channel(BACKLOG);
        let lanes = std::array::from_fn(|_| {
            let (lane, planned) = mpsc::channel(BACKLOG / LANES);
            tasks.spawn_until_stop(write(client.clone(), planned));
            lane
        });
        tasks.spawn_until_stop(plan(inbox, lanes, clock));
        let host = Some(host.to_owned()).filter(|host| !host.is_empty());
        Self { source: EventSource { component: Some(component.to_owned()), host }, notes }
    }

    /// The same writer, speaking for another component.
    pub fn component(&self, component: &str) -> Self {
        let source = EventSource { component: Some(component.to_owned()), host: self.source.host.clone() };
        Self { source, notes: self.notes.clone() }
    }

    /// Records something normal about an object.
    pub fn normal(&self, about: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, Severity::Normal, reason, message.into());
    }

    /// Records something wrong about an object.
    pub fn warning(&self, about: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, Severity::Warning, reason, message.into());
    }

    fn record(&self, about: ObjectReference, severity: Severity, reason: &str, message: String) {
        let note = Note { about, severity, reason: reason.to_owned(), message, source: self.source.clone() };
        if self.notes.try_send(note).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait to be written");
        }
    }
}

/// What makes two notes about the same thing; the message too, unless they were folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    namespace: String,
    kind: String,
    name: String,
    uid: String,
    field: String,
    reason: String,
    severity: Severity,
    component: String,
}

impl Group {
    fn of(note: &Note) -> Self {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Self {
            namespace: text(&note.about.namespace),
            kind: text(&note.about.kind),
            name: text(&note.about.name),
            uid: text(&note.about.uid),
            field: text(&note.about.field_path),
            reason: note.reason.clone(),
            severity: note.severity,
            component: text(&note.source.component),
        }
    }
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

#[derive(Clone, Debug)]
struct Written {
    name: String,
    count: i32,
    first: Timestamp,
}

/// What was written lately, to tell repetitions from news.
#[derive(Debug, Default)]
struct Correlator {
    written: HashMap<(Group, String), Written>,
    order: VecDeque<(Group, String)>,
    similar: HashMap<Group, Similar>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Create { name: String },
    Count { name: String, count: i32, first: Timestamp },
}

impl Correlator {
    /// Decides how a note is written; may change its message.
    fn plan(&mut self, note: &mut Note, now: Timestamp) -> Step {
        let group = Group::of(note);
        let similar = self
            .similar
            .entry(group.clone())
            .or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR_LIMIT {
            similar.messages.insert(note.message.clone());
        }
        let folded = !similar.messages.contains(&note.message);
        let key = (group, if folded { String::new() } else { note.message.clone() });
        if folded {
            note.message = format!("(combined from similar events): {}", note.message);
        }
        if let Some(written) = self.written.get_mut(&key) {
            written.count += 1;
            return Step::Count { name: written.name.clone(), count: written.count, first: written.first };
        }
        let object = note.about.name.as_deref().unwrap_or_default();
        let name = format!("{object}.{:x}", now.as_nanosecond());
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.similar.remove(&oldest.0);
            self.written.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.written.insert(key, Written { name: name.clone(), count: 1, first: now });
        Step::Create { name }
    }
}

/// A note, how it is to be written, and when it was made.
type Planned = (Note, Step, Timestamp);

/// Decides how each note is written; those about one object go the same way, so that none overtakes another.
async fn plan(mut inbox: mpsc::Receiver<Note>, lanes: [mpsc::Sender<Planned>; LANES], clock: Arc<dyn Clock>) {
    let mut correlator = Correlator::default();
    while let Some(mut note) = inbox.recv().await {
        let now = clock.now();
        let step = correlator.plan(&mut note, now);
        let lane = lane(&note.about);
        if lanes[lane].send((note, step, now)).await.is_err() {
            return;
        }
    }
}

/// Which way notes about an object go.
fn lane(about: &ObjectReference) -> usize {
    let mut hasher = DefaultHasher::new();
    (&about.kind, &about.namespace, &about.name).hash(&mut hasher);
    usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0)
}

async fn write(client: Client, mut planned: mpsc::Receiver<Planned>) {
    while let Some((note, step, now)) = planned.recv().await {
        if let Err(error) = write_one(&client, note, step, now).await {
            tracing::debug!(%error, "an event was not written");
        }
    }
}

async fn write_one(client: &Client, note: Note, step: Step, now: Timestamp) -> Result<(), kube::Error> {
    let namespace = note.about.namespace.clone().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let event = match step {
        Step::Create { name } => event(note, &namespace, name, 1, now, now),
        Step::Count { name, count, first } => {
            let patch = json!({"count": count, "lastTimestamp": Time(now), "message": note.message, "type": note.severity.name()});
            match events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(|_| ()),
            }
            event(note, &namespace, name, count, first, now)
        }
    };
    events.create(&PostParams::default(), &event).await.map(|_| ())
}

fn event(note: Note, namespace: &str, name: String, count: i32, first: Timestamp, last: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.about,
        reason: Some(note.reason),
        message: Some(note.message),
        type_: Some(note.severity.name().to_owned()),
        count: Some(count),
        first_timestamp: Some(Time(first)),
        last_timestamp: Some(Time(last)),
        reporting_component: note.source.component.clone(),
        reporting_instance: note.source.host.clone(),
        source: Some(note.source),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let about = ObjectReference { name: Some("web".into()), ..ObjectReference::default() };
        let source = EventSource { component: Some("test".into()), host: None };
        Note { about, severity: Severity::Normal, reason: "Why".into(), message: message.into(), source }
    }

    #[test]
    fn repetitions_are_counted_and_many_similar_ones_folded() {
        let mut correlator = Correlator::default();
        let now = Timestamp::UNIX_EPOCH;
        assert!(matches!(correlator.plan(&mut note("a"), now), Step::Create { .. }));
        assert!(matches!(correlator.plan(&mut note("a"), now), Step::Count { count: 2, .. }));
        for n in 1..10 {
            assert!(matches!(correlator.plan(&mut note(&n.to_string()), now), Step::Create { .. }), "{n}");
        }
        let mut eleventh = note("eleventh");
        assert!(matches!(correlator.plan(&mut eleventh, now), Step::Create { .. }));
        assert_eq!(eleventh.message, "(combined from similar events): eleventh");
        assert!(matches!(correlator.plan(&mut note("twelfth"), now), Step::Count { count: 2, .. }));
        let later = now + SignedDuration::from_mins(11);
        let mut fresh = note("thirteenth");
        assert!(matches!(correlator.plan(&mut fresh, later), Step::Create { .. }));
        assert_eq!(fresh.message, "thirteenth");
    }

    #[test]
    fn notes_about_one_object_go_one_way() {
        let about = |name: &str| ObjectReference { name: Some(name.into()), ..ObjectReference::default() };
        let lanes: HashSet<usize> = (0..100).map(|n| lane(&about(&n.to_string()))).collect();
        assert!(lanes.len() > 1 && lanes.iter().all(|lane| *lane < LANES), "{lanes:?}");
        assert_eq!(lane(&about("a")), lane(&about("a")));
    }
}
