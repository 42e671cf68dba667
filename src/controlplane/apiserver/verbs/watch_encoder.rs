//! What one watcher gets of an event, in its media type.

use bytes::Bytes;
use serde_json::json;

use api::status::ApiError;
use storage::{Entry, Event, EventKind};

use super::super::selection::Selection;
use super::super::wire::Encoder;

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
    pub encoder: Encoder,
    pub selection: Selection,
}

impl WatchEncoder {
    /// The frame of an event, if it is one for this watcher. What the event is to everybody is encoded once for all.
    pub fn event(&self, event: &Event) -> Option<Bytes> {
        let natural = Change::plain(event);
        let change = if self.selection.is_all() {
            natural
        } else {
            Change::seen(event, |entry| self.selection.matches(entry))?
        };
        let shared = (change == natural).then(|| self.encoder.slot()).flatten();
        // An object that stopped matching is shown as it last did, at the revision of the change.
        let gone = (change == Change::Deleted && event.kind == EventKind::Put)
            .then_some(event.prev.as_deref())
            .flatten();
        let frame = match (shared, gone) {
            (Some(slot), _) => event.encodings.get(slot, || self.entry(natural, &event.entry)),
            (None, Some(prev)) => {
                let object = self.encoder.entry_at(prev, event.revision);
                object.map(|object| self.encoder.frame(change.word(), &object))
            }
            (None, None) => self.entry(change, &event.entry),
        };
        Some(frame.unwrap_or_else(|error| self.encoder.error_frame(&error)))
    }

    /// The frame of an object that the watch starts with.
    pub fn initial(&self, entry: &Entry) -> Bytes {
        let frame = self.entry(Change::Added, entry);
        frame.unwrap_or_else(|error| self.encoder.error_frame(&error))
    }

    fn entry(&self, change: Change, entry: &Entry) -> Result<Bytes, ApiError> {
        Ok(self.encoder.frame(change.word(), &self.encoder.entry(entry)?))
    }

    /// Says that everything up to `revision` has been delivered.
    pub fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.encoder.bookmark(meta) {
            Ok(object) => self.encoder.frame("BOOKMARK", &object),
            Err(error) => self.encoder.error_frame(&error),
        }
    }

    /// The frame that ends a watch that cannot go on.
    pub fn error(&self, error: &ApiError) -> Bytes {
        self.encoder.error_frame(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use storage::Encodings;

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
            encodings: Encodings::default(),
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
