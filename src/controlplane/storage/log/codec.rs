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

use crate::controlplane::storage::{Encodings, Entry};

const NEVER: i64 = i64::MIN;
const NOWHERE: u32 = u32::MAX;

/// Writes `entry` into `out`, which is cleared first.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    out.clear();
    out.extend(entry.created.to_le_bytes());
    out.extend(entry.expires.map_or(NEVER, Timestamp::as_millisecond).to_le_bytes());
    let offset = entry.revision_span.as_ref().map_or(NOWHERE, |span| span.start as u32);
    out.extend(offset.to_le_bytes());
    string(&entry.key, out);
    out.extend((entry.attrs.len() as u32).to_le_bytes());
    for (name, value) in entry.attrs.iter() {
        string(name, out);
        string(value, out);
    }
    out.extend_from_slice(&entry.data);
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The entry that was written at `revision`; `None` if the record is malformed.
pub(super) fn decode(revision: u64, record: &[u8]) -> Option<Entry> {
    let mut reader = Reader(record);
    let created = u64::from_le_bytes(reader.take()?);
    let expires = match i64::from_le_bytes(reader.take()?) {
        NEVER => None,
        ms => Some(Timestamp::from_millisecond(ms).ok()?),
    };
    let offset = u32::from_le_bytes(reader.take()?);
    let key: Arc<str> = reader.string()?.into();
    let count = u32::from_le_bytes(reader.take()?) as usize;
    // Every attribute takes eight bytes at least: a count beyond that is damage, and no reason to reserve memory.
    let mut attrs = Vec::with_capacity(count.min(reader.0.len() / 8));
    for _ in 0..count {
        attrs.push((reader.string()?.into(), reader.string()?.into()));
    }
    let data = Bytes::copy_from_slice(reader.0);
    let revision_span = match offset {
        NOWHERE => None,
        offset => {
            let start = offset as usize;
            let span = start..start + revision.to_string().len();
            data.get(span.clone())?;
            Some(span)
        }
    };
    let encodings = Encodings::default();
    Some(Entry { key, data, revision_span, attrs: attrs.into(), revision, created, expires, encodings })
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
    use crate::controlplane::storage::Payload;

    fn sample() -> Entry {
        let payload = Payload {
            data: Bytes::from_static(b"{\"resourceVersion\":\"\"}"),
            revision_at: Some(20),
            attrs: Arc::from([("l:app".into(), "web".into()), ("l:tier".into(), "".into())]),
            ttl: Some(Duration::from_secs(90)),
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
    fn a_cut_record_is_refused_or_has_less_data() {
        let mut record = Vec::new();
        encode(&sample(), &mut record);
        let header = record.len() - sample().data.len();
        for cut in 0..header + 24 {
            assert!(decode(1234, &record[..cut]).is_none(), "cut at {cut}");
        }
    }
}
