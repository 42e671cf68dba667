//! How an entry is written to disk.
//!
//! ```text
//! created u64 | expires i64, ms since 1970, MIN: never | revision offset u32, MAX: none | key | attribute count u32 | (name, value)* | data
//! ```
//!
//! Numbers are little-endian, strings have their length (u32) in front, the data takes the rest. The revision
//! is the record's key in its table.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::{Attrs, Encodings, Entry, Payload};

const NEVER: i64 = i64::MIN;
const NOWHERE: u32 = u32::MAX;

/// Writes `entry` into `out`, which is cleared first.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let at = entry.revision_span.as_ref().map(|span| span.start);
    write(entry.created, entry.expires, at, &entry.key, &entry.attrs, &entry.data, out);
}

/// Writes what `key` is to hold into `out`, before it is known at which revision. A record of this form is read by
/// [`decode_unstamped`]; it has the writer's `mark` in place of the revision at which the key was created.
pub(super) fn encode_unstamped(
    mark: u64,
    key: &str,
    payload: &Payload,
    expires: Option<Timestamp>,
    out: &mut Vec<u8>,
) {
    write(mark, expires, payload.revision_at, key, &payload.attrs, &payload.data, out);
}

fn write(
    created: u64,
    expires: Option<Timestamp>,
    revision_at: Option<usize>,
    key: &str,
    attrs: &Attrs,
    data: &[u8],
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend(created.to_le_bytes());
    out.extend(expires.map_or(NEVER, Timestamp::as_millisecond).to_le_bytes());
    out.extend(revision_at.map_or(NOWHERE, |at| at as u32).to_le_bytes());
    string(key, out);
    out.extend((attrs.len() as u32).to_le_bytes());
    for (name, value) in attrs.iter() {
        string(name, out);
        string(value, out);
    }
    out.extend_from_slice(data);
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The entry that was written at `revision`; `None` if the record is malformed.
pub(super) fn decode(revision: u64, record: &[u8]) -> Option<Entry> {
    let record = Record::read(record)?;
    let data = Bytes::copy_from_slice(record.data);
    let revision_span = match record.revision_at {
        None => None,
        Some(start) => {
            let span = start..start + revision.to_string().len();
            data.get(span.clone())?;
            Some(span)
        }
    };
    Some(Entry {
        key: record.key,
        data,
        revision_span,
        attrs: record.attrs,
        revision,
        created: record.created,
        expires: record.expires,
        encodings: Encodings::default(),
    })
}

/// The entry that an unstamped record became at `revision`, whose key was created at `created`; `None` if the record is
/// malformed.
pub(super) fn decode_unstamped(revision: u64, created: u64, record: &[u8]) -> Option<Entry> {
    let Record { expires, revision_at, key, attrs, data, .. } = Record::read(record)?;
    if revision_at.is_some_and(|at| at > data.len()) {
        return None;
    }
    let payload = Payload { data: Bytes::copy_from_slice(data), revision_at, attrs, ttl: None, turn: None };
    Some(Entry { expires, ..Entry::written(key, payload, revision, created, Timestamp::UNIX_EPOCH) })
}

struct Record<'a> {
    created: u64,
    expires: Option<Timestamp>,
    revision_at: Option<usize>,
    key: Arc<str>,
    attrs: Attrs,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(record: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(record);
        let created = u64::from_le_bytes(reader.take()?);
        let expires = match i64::from_le_bytes(reader.take()?) {
            NEVER => None,
            ms => Some(Timestamp::from_millisecond(ms).ok()?),
        };
        let revision_at = match u32::from_le_bytes(reader.take()?) {
            NOWHERE => None,
            at => Some(at as usize),
        };
        let key: Arc<str> = reader.string()?.into();
        let count = u32::from_le_bytes(reader.take()?) as usize;
        // Every attribute takes eight bytes at least: a count beyond that is damage, and no reason to reserve memory.
        let mut attrs = Vec::with_capacity(count.min(reader.0.len() / 8));
        for _ in 0..count {
            attrs.push((reader.string()?.into(), reader.string()?.into()));
        }
        Some(Self { created, expires, revision_at, key, attrs: attrs.into(), data: reader.0 })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample() -> Entry {
        let payload = Payload {
            data: Bytes::from_static(b"{\"resourceVersion\":\"\"}"),
            revision_at: Some(20),
            attrs: Arc::from([("l:app".into(), "web".into()), ("l:tier".into(), "".into())]),
            ttl: Some(Duration::from_secs(90)),
            turn: None,
        };
        Entry::written("/core/events/default/e".into(), payload, 1234, 7, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = sample();
        let mut record = Vec::new();
        encode(&entry, &mut record);
        let read = decode(1234, &record).expect("a good record");
        assert_eq!(format!("{read:?}"), format!("{entry:?}"));
        assert_eq!(&read.data[..], b"{\"resourceVersion\":\"1234\"}");
    }

    #[test]
    fn a_record_is_stamped_when_its_revision_is_known() {
        let payload = Payload {
            data: Bytes::from_static(b"{\"resourceVersion\":\"\"}"),
            revision_at: Some(20),
            attrs: Arc::from([("l:app".into(), "web".into())]),
            ..Payload::default()
        };
        let mut record = Vec::new();
        encode_unstamped(3, "/core/pods/default/a", &payload, None, &mut record);
        let read = decode_unstamped(98, 7, &record).expect("a good record");
        let entry = Entry::written("/core/pods/default/a".into(), payload, 98, 7, Timestamp::UNIX_EPOCH);
        assert_eq!(format!("{read:?}"), format!("{entry:?}"));
        assert!(
            decode_unstamped(98, 7, &record[..record.len() - 3]).is_none(),
            "the offset lies behind the data"
        );
    }

    #[test]
    fn a_cut_record_is_refused_or_has_less_data() {
        let mut record = Vec::new();
        encode(&sample(), &mut record);
        let header = record.len() - sample().data.len();
        for cut in 0..header + 24 {
            assert!(decode(1234, &record[..cut]).is_none(), "cut at {cut}");
        }
    }
}
