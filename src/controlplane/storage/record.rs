//! Entries, payloads and events.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;

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
    /// The write is made only if no other one that took this turn was made since the turn was asked for.
    pub turn: Option<Turn>,
}

/// A place in the order of writes that go one after the other, whichever servers make them: those that count before they write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub(super) name: Arc<str>,
    /// The revision of the last write that took it; 0: none is known.
    pub(super) last: u64,
}

/// Encodings that readers share: each is made by the first reader that asks for it. What a slot holds is the readers'
/// agreement.
#[derive(Debug, Default)]
pub struct Encodings(OnceLock<Box<[OnceLock<Bytes>; Encodings::SLOTS]>>);

impl Encodings {
    pub const SLOTS: usize = 2;

    /// The encoding in `slot`, made by `make` if nobody has asked for it before. Fails as `make` does; then nothing is kept.
    pub fn get<E>(&self, slot: usize, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        let slot = &self.0.get_or_init(Box::default)[slot];
        match slot.get() {
            Some(made) => Ok(made.clone()),
            None => {
                let made = make()?;
                Ok(slot.get_or_init(|| made).clone())
            }
        }
    }
}

/// A copy is about to become another state: nothing made of the old one holds.
impl Clone for Encodings {
    fn clone(&self) -> Self {
        Self::default()
    }
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
    /// When the engine deletes the key by itself.
    pub expires: Option<Timestamp>,
    /// What readers have made of `data`.
    pub encodings: Encodings,
}

impl Entry {
    /// The state that `payload` becomes when it is written to `key` at `revision`. The payload's time to
    /// live starts at `now`.
    pub(super) fn written(
        key: Arc<str>,
        payload: Payload,
        revision: u64,
        created: u64,
        now: Timestamp,
    ) -> Self {
        let expires = payload.ttl.map(|ttl| now.checked_add(ttl).unwrap_or(Timestamp::MAX));
        let (data, revision_span) = match payload.revision_at {
            None => (payload.data, None),
            Some(at) => {
                let (data, span) = splice(&payload.data, at..at, revision);
                (data, Some(span))
            }
        };
        Self {
            key,
            data,
            revision_span,
            attrs: payload.attrs,
            revision,
            created,
            expires,
            encodings: Encodings::default(),
        }
    }

    /// The same state, stamped with `revision`.
    pub(super) fn stamped(&self, revision: u64) -> Self {
        let (data, revision_span) = match &self.revision_span {
            None => (self.data.clone(), None),
            Some(span) => {
                let (data, span) = splice(&self.data, span.clone(), revision);
                (data, Some(span))
            }
        };
        Self { data, revision_span, revision, ..self.clone() }
    }

    /// The same state in other bytes: what readers of another version of the object get.
    pub fn with_payload(&self, payload: Payload) -> Self {
        let (data, revision_span) = match payload.revision_at {
            None => (payload.data, None),
            Some(at) => {
                let (data, span) = splice(&payload.data, at..at, self.revision);
                (data, Some(span))
            }
        };
        Self { data, revision_span, attrs: payload.attrs, encodings: Encodings::default(), ..self.clone() }
    }

    /// What has to be written elsewhere so that the same stands there; `None` if it has expired by `now`.
    pub(super) fn payload(&self, now: Timestamp) -> Option<Payload> {
        let ttl = match self.expires {
            None => None,
            Some(expires) if expires > now => Some(now.duration_until(expires).unsigned_abs()),
            Some(_) => return None,
        };
        let (data, revision_at) = match &self.revision_span {
            None => (self.data.clone(), None),
            Some(span) => {
                let data = [&self.data[..span.start], &self.data[span.end..]].concat();
                (data.into(), Some(span.start))
            }
        };
        Some(Payload { data, revision_at, attrs: self.attrs.clone(), ttl, turn: None })
    }

    /// The same bytes, saying `revision`: what a watcher is told of a state that has gone.
    pub fn data_at(&self, revision: u64) -> Bytes {
        let Some(span) = &self.revision_span else { return self.data.clone() };
        splice(&self.data, span.clone(), revision).0
    }

    /// The value of an attribute.
    pub fn attr(&self, name: &str) -> Option<&str> {
        let at = self.attrs.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        Some(&self.attrs[at].1)
    }
}

/// `data` with the decimal `revision` in place of `span`, and where it then stands. A span that does not lie
/// inside the data is moved to its end: the offset is the caller's promise, and no reason to stop the writer.
fn splice(data: &[u8], span: Range<usize>, revision: u64) -> (Bytes, Range<usize>) {
    let digits = revision.to_string();
    let start = span.start.min(data.len());
    let end = span.end.clamp(start, data.len());
    let mut out = Vec::with_capacity(data.len() - (end - start) + digits.len());
    out.extend_from_slice(&data[..start]);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(&data[end..]);
    (out.into(), start..start + digits.len())
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
}

impl Event {
    pub fn new(kind: EventKind, entry: Arc<Entry>, prev: Option<Arc<Entry>>) -> Self {
        Self { kind, revision: entry.revision, entry, prev }
    }
}
