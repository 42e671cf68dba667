use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::json;

use crate::api::resources::Resource;
use crate::api::status::ApiError;
use crate::api::table::IncludeObject;
use crate::controlplane::storage::{Entry, Event, EventKind};

use super::super::convert;
use super::super::selection::Selection;
use super::super::wire::{self, Shape};

/// Slots of [`Event::encoded`]: what all readers of one form share.
const PLAIN: usize = 0;
const PARTIAL: usize = 1;
const TABLE: usize = 2;

/// What an event is to one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// What the event is to a watcher of everything.
    fn plain(event: &Event) -> Self {
        match (event.kind, &event.prev) {
            (EventKind::Delete, _) => Self::Deleted,
            (EventKind::Put, None) => Self::Added,
            (EventKind::Put, Some(_)) => Self::Modified,
        }
    }

    /// What the event is to a watcher of what `matches`: an object that starts to match is new to it, one that no longer
    /// does is gone. `None`: nothing.
    fn seen(event: &Event, matches: impl Fn(&Entry) -> bool) -> Option<Self> {
        let before = event.prev.as_deref().is_some_and(&matches);
        match event.kind {
            EventKind::Delete => (before || matches(&event.entry)).then_some(Self::Deleted),
            EventKind::Put => match (before, matches(&event.entry)) {
                (false, true) => Some(Self::Added),
                (true, true) => Some(Self::Modified),
                (true, false) => Some(Self::Deleted),
                (false, false) => None,
            },
        }
    }
}

/// How one watch's frames are made.
pub struct WatchEncoder {
    pub resource: Arc<Resource>,
    pub shape: Shape,
    pub include: IncludeObject,
    pub selection: Selection,
}

impl WatchEncoder {
    /// The frame of an event, if it is one for this watcher. What the event is to everybody is encoded once for all.
    pub fn event(&self, event: &Event, now: Timestamp) -> Option<Bytes> {
        let natural = Change::plain(event);
        let change = if self.selection.is_all() {
            natural
        } else {
            Change::seen(event, |entry| self.selection.matches(entry))?
        };
        if change == natural && !convert::converts(&self.resource) {
            let slot = match self.shape {
                Shape::Plain => Some(PLAIN),
                Shape::Partial => Some(PARTIAL),
                Shape::Table => (self.include == IncludeObject::Metadata).then_some(TABLE),
            };
            if let Some(slot) = slot {
                return Some(event.encoded(slot, |event| self.frame(natural, &event.entry, None, now)));
            }
        }
        // An object that stopped matching is shown as it last did, at the revision of the change.
        let gone = (change == Change::Deleted && event.kind == EventKind::Put)
            .then_some(event.prev.as_ref())
            .flatten();
        Some(match gone {
            Some(prev) => self.frame(change, prev, Some(event.revision), now),
            None => self.frame(change, &event.entry, None, now),
        })
    }

    /// The frame of an object that the watch starts with.
    pub fn initial(&self, entry: &Arc<Entry>, now: Timestamp) -> Bytes {
        self.frame(Change::Added, entry, None, now)
    }

    fn frame(&self, change: Change, entry: &Entry, revision: Option<u64>, now: Timestamp) -> Bytes {
        let data = revision.map_or_else(|| entry.data.clone(), |revision| entry.data_at(revision));
        let converts = convert::converts(&self.resource);
        match self.shape {
            Shape::Plain if !converts => enclose(change.word(), &data),
            Shape::Partial => enclose(change.word(), &wire::partial(&data)),
            Shape::Plain | Shape::Table => match convert::read(&self.resource, &data) {
                Ok(object) if self.shape == Shape::Plain => {
                    enclose(change.word(), object.to_string().as_bytes())
                }
                Ok(object) => {
                    let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                    let table = convert::table_of(&self.resource, &[object], meta, self.include, now);
                    enclose(change.word(), table.to_string().as_bytes())
                }
                Err(error) => error_frame(&error),
            },
        }
    }

    /// Says that everything up to `revision` has been delivered.
    pub fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.shape {
            Shape::Plain => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": meta,
            }),
            Shape::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            Shape::Table => convert::table_of(&self.resource, &[], meta, self.include, Timestamp::UNIX_EPOCH),
        };
        enclose("BOOKMARK", object.to_string().as_bytes())
    }
}

/// The frame that ends a watch that cannot go on.
pub fn error_frame(error: &ApiError) -> Bytes {
    enclose("ERROR", error.to_status().to_string().as_bytes())
}

fn enclose(kind: &str, object: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(object.len() + 40);
    frame.put_slice(b"{\"type\":\"");
    frame.put_slice(kind.as_bytes());
    frame.put_slice(b"\",\"object\":");
    frame.put_slice(object);
    frame.put_slice(b"}\n");
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(label: &str) -> Arc<Entry> {
        let attrs: Vec<(Box<str>, Box<str>)> = vec![("l:app".into(), label.into())];
        Arc::new(Entry {
            key: "/core/pods/a/b".into(),
            data: Bytes::new(),
            revision_span: None,
            attrs: attrs.into(),
            revision: 1,
            created: 1,
            expires: None,
        })
    }

    #[test]
    fn what_starts_or_stops_matching_comes_or_goes() {
        let seen = |kind, before: Option<&str>, after: &str| {
            let event = Event::new(kind, entry(after), before.map(entry));
            Change::seen(&event, |entry| entry.attr("l:app") == Some("x"))
        };
        use EventKind::{Delete, Put};
        assert_eq!(seen(Put, None, "x"), Some(Change::Added));
        assert_eq!(seen(Put, None, "y"), None);
        assert_eq!(seen(Put, Some("y"), "x"), Some(Change::Added));
        assert_eq!(seen(Put, Some("x"), "x"), Some(Change::Modified));
        assert_eq!(seen(Put, Some("x"), "y"), Some(Change::Deleted));
        assert_eq!(seen(Put, Some("y"), "y"), None);
        assert_eq!(seen(Delete, Some("x"), "x"), Some(Change::Deleted));
        assert_eq!(seen(Delete, Some("y"), "y"), None);
    }
}
