//! What one watcher gets of an event, in its media type.

use bytes::Bytes;
use serde_json::json;

use api::status::ApiError;
use storage::{Entry, Event, EventKind};

use super::super::selection::Selection;
use super::super::wire::{Encoder, FRAME};

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
    /// Adds the frame of an event, if it is one for this watcher. An object goes from the store's bytes into the chunk that is
    /// sent: nothing is kept of it.
    pub fn event(&self, event: &Event, out: &mut Vec<u8>) {
        let change = match self.selection.is_all() {
            true => Change::plain(event),
            false => match Change::seen(event, |entry| self.selection.matches(entry)) {
                Some(change) => change,
                None => return,
            },
        };
        // An object that stopped matching is shown as it last did, at the revision of the change.
        let gone = (change == Change::Deleted && event.kind == EventKind::Put)
            .then_some(event.prev.as_deref())
            .flatten();
        match gone {
            Some(prev) => self.object(change, self.encoder.entry_at(prev, event.revision), out),
            None => self.entry(change, &event.entry, out),
        }
    }

    /// How much room the frames of these events take, about.
    pub fn room<'e>(&self, events: impl Iterator<Item = &'e Event>, most: usize) -> usize {
        // How many of them are for this watcher is not known before.
        if !self.selection.is_all() {
            return 0;
        }
        let mut room = 0;
        for event in events {
            room += event.entry.data.len() + FRAME;
            if room >= most {
                break;
            }
        }
        room
    }

    /// Adds the frame of an object that the watch starts with.
    pub fn initial(&self, entry: &Entry, out: &mut Vec<u8>) {
        self.entry(Change::Added, entry, out);
    }

    fn entry(&self, change: Change, entry: &Entry, out: &mut Vec<u8>) {
        match self.encoder.as_stored(entry) {
            Some(object) => self.encoder.frame(change.word(), object, out),
            None => self.object(change, self.encoder.entry(entry), out),
        }
    }

    fn object(&self, change: Change, object: Result<Bytes, ApiError>, out: &mut Vec<u8>) {
        match object {
            Ok(object) => self.encoder.frame(change.word(), &object, out),
            Err(error) => self.encoder.error_frame(&error, out),
        }
    }

    /// Says that everything up to `revision` has been delivered.
    pub fn bookmark(&self, revision: u64, initial_events_end: bool, out: &mut Vec<u8>) {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.encoder.bookmark(meta) {
            Ok(object) => self.encoder.frame("BOOKMARK", &object, out),
            Err(error) => self.encoder.error_frame(&error, out),
        }
    }

    /// Adds the frame that ends a watch that cannot go on.
    pub fn error(&self, error: &ApiError, out: &mut Vec<u8>) {
        self.encoder.error_frame(error, out);
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
