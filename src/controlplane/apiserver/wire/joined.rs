//! Joins stored bytes into a list.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use api::protobuf::encode::field_head;

/// What stands around the items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// `head a,b,c]}`
    Json,
    /// Each item is field 2 of the list's message.
    Protobuf,
}

impl Join {
    fn tail(self) -> &'static [u8] {
        match self {
            Self::Json => b"]}",
            Self::Protobuf => b"",
        }
    }

    fn lead(self, first: bool, length: usize, out: &mut Vec<u8>) {
        match self {
            Self::Json if first => {}
            Self::Json => out.push(b','),
            Self::Protobuf => field_head(2, length, out),
        }
    }
}

/// The bytes that `items` take when they are joined, without a head.
pub fn joined_length(join: Join, items: &[Bytes]) -> usize {
    let mut lead = Vec::with_capacity(8);
    let items = items.iter().enumerate().map(|(n, item)| {
        lead.clear();
        join.lead(n == 0, item.len(), &mut lead);
        lead.len() + item.len()
    });
    items.sum::<usize>() + join.tail().len()
}

/// A list's body: items that are encoded already, joined chunk by chunk as the connection takes them. Nothing is parsed
/// and the whole is never held in memory twice.
pub struct Joined {
    join: Join,
    head: Option<Bytes>,
    items: Vec<Bytes>,
    next: usize,
    left: u64,
}

impl Joined {
    /// Bytes per chunk: large enough that a chunk's overhead does not count, small enough to be joined in the cache.
    const CHUNK: usize = 128 * 1024;

    /// `head` is everything before the first item.
    pub fn new(join: Join, head: Bytes, items: Vec<Bytes>) -> Self {
        let left = (head.len() + joined_length(join, &items)) as u64;
        Self { join, head: Some(head), items, next: 0, left }
    }

    fn chunk(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::CHUNK.min(self.left as usize) + 4096);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        let mut lead = Vec::with_capacity(8);
        while let Some(item) = self.items.get(self.next) {
            if !out.is_empty() && out.len() + item.len() > Self::CHUNK {
                return out.freeze();
            }
            lead.clear();
            self.join.lead(self.next == 0, item.len(), &mut lead);
            out.extend_from_slice(&lead);
            out.extend_from_slice(item);
            self.next += 1;
        }
        out.extend_from_slice(self.join.tail());
        out.freeze()
    }
}

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = self.chunk();
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn check(join: Join, items: &[&'static [u8]], expect: &[u8]) {
        let items: Vec<Bytes> = items.iter().map(|item| Bytes::from_static(item)).collect();
        let joined = Joined::new(join, Bytes::from_static(b"["), items);
        assert_eq!(http_body::Body::size_hint(&joined).exact(), Some(expect.len() as u64));
        assert_eq!(joined.collect().await.expect("infallible").to_bytes(), expect);
    }

    #[tokio::test]
    async fn items_are_joined() {
        check(Join::Json, &[], b"[]}").await;
        check(Join::Json, &[b"a", b"bc"], b"[a,bc]}").await;
        check(Join::Protobuf, &[], b"[").await;
        check(Join::Protobuf, &[b"a", b"bc"], b"[\x12\x01a\x12\x02bc").await;
    }
}
