use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Ttl;

/// Name-value pairs kept beside the bytes, for filters that must not parse them. Sorted by name.
pub type Attrs = Arc<[(Box<str>, Box<str>)]>;

/// What a writer hands in: the encoded object without its revision, and where the revision belongs.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    pub data: Bytes,
    /// The engine writes the decimal revision of the commit at this offset of `data`; `None`: nowhere.
    pub revision_at: Option<usize>,
    pub attrs: Attrs,
    pub ttl: Ttl,
}

/// One key's durable state.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Arc<str>,
    /// The bytes with the revision written in: exactly what readers get.
    pub data: Bytes,
    /// Where in `data` the revision stands.
    pub revision_span: Option<Range<usize>>,
    pub attrs: Attrs,
    /// The revision of the last write.
    pub revision: u64,
    /// The revision of the write that created the key.
    pub created: u64,
}

impl Entry {
    /// The same bytes, saying `revision`: what a watcher is told of a state that has gone.
    pub fn data_at(&self, revision: u64) -> Bytes {
        let Some(span) = &self.revision_span else { return self.data.clone() };
        let digits = revision.to_string();
        let mut data = Vec::with_capacity(self.data.len() + digits.len());
        data.extend_from_slice(&self.data[..span.start]);
        data.extend_from_slice(digits.as_bytes());
        data.extend_from_slice(&self.data[span.end..]);
        data.into()
    }

    /// The value of an attribute.
    pub fn attr(&self, name: &str) -> Option<&str> {
        let at = self.attrs.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        Some(&self.attrs[at].1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    pub revision: u64,
    /// The new state; for a delete, the last state stamped with the revision of the delete.
    pub entry: Arc<Entry>,
    /// The state before; `None` if the key was created by this event.
    pub prev: Option<Arc<Entry>>,
    encoded: [OnceLock<Bytes>; Event::SLOTS],
}

impl Event {
    /// How many encodings of one event readers may share.
    pub const SLOTS: usize = 3;

    pub fn new(kind: EventKind, entry: Arc<Entry>, prev: Option<Arc<Entry>>) -> Self {
        Self { kind, revision: entry.revision, entry, prev, encoded: Default::default() }
    }

    /// The readers' encoding in `slot`, made by the first reader that asks; all others share the buffer.
    /// What a slot holds is the readers' agreement.
    pub fn encoded(&self, slot: usize, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.encoded[slot].get_or_init(|| make(self)).clone()
    }
}
