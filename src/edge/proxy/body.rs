//! Bodies on their way through: of one type, and to be had back while nobody has read of them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of whatever origin.
pub(super) type Streamed = UnsyncBoxBody<Bytes, BoxError>;

/// A text as a body.
pub(super) fn text(text: impl Into<Bytes>) -> Streamed {
    http_body_util::Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that its owner can take back when the request was never sent.
#[derive(Clone)]
pub(super) struct Lent(Arc<Mutex<Option<Streamed>>>);

impl Lent {
    pub(super) fn new(body: Streamed) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    /// The same body again, for another attempt.
    pub(super) fn again(&self) -> Self {
        self.clone()
    }

    fn with<T>(&self, of: impl FnOnce(&mut Streamed) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(of)
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.with(|body| Pin::new(body).poll_frame(cx)).unwrap_or(Poll::Ready(None))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream()).unwrap_or(true)
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint()).unwrap_or_default()
    }
}

/// How much of a mirrored body may wait for a slow mirror, in frames; what comes too late is not mirrored.
const BEHIND: usize = 64;

/// A body that is copied while it is read.
pub(super) struct Copied {
    body: Streamed,
    to: Vec<Copy>,
}

/// Where a copy goes, and whether all of it went there.
struct Copy {
    frames: mpsc::Sender<Frame<Bytes>>,
    whole: Arc<AtomicBool>,
}

impl Copied {
    /// The body, and so many copies of it. A copy ends in an error when the body does, or when it was read too slowly.
    pub(super) fn new(body: Streamed, copies: usize) -> (Self, Vec<Streamed>) {
        let pair = |_| {
            let (frames, from) = mpsc::channel(BEHIND);
            let whole = Arc::new(AtomicBool::new(false));
            let end = whole.clone();
            let broken = move || {
                let broken: BoxError = "the copy of the body has broken off".into();
                futures::future::ready((!end.load(Ordering::Acquire)).then_some(Err(broken)))
            };
            let end = futures::stream::once(futures::future::lazy(move |_| broken())).filter_map(|end| end);
            let frames_of = ReceiverStream::new(from).map(Ok).chain(end);
            (Copy { frames, whole }, http_body_util::StreamBody::new(frames_of).boxed_unsync())
        };
        let (to, copies) = (0..copies).map(pair).unzip();
        (Self { body, to }, copies)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.to.iter().for_each(|copy| copy.whole.store(true, Ordering::Release));
        }
    }
}

impl Body for Copied {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.to.retain(|to| {
                let copy = match (frame.data_ref(), frame.trailers_ref()) {
                    (Some(data), _) => Frame::data(data.clone()),
                    (None, Some(trailers)) => Frame::trailers(trailers.clone()),
                    (None, None) => return true,
                };
                to.frames.try_send(copy).is_ok()
            });
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn copies_are_whole_or_say_that_they_are_not() {
        let (body, mut copies) = Copied::new(text("all of it"), 2);
        let late = copies.pop().expect("a copy");
        assert_eq!(body.collect().await.expect("read").to_bytes(), "all of it");
        for copy in copies.into_iter().chain([late]) {
            assert_eq!(copy.collect().await.expect("copied").to_bytes(), "all of it");
        }
        let (body, mut copies) = Copied::new(text("never read"), 1);
        drop(body);
        assert!(copies.pop().expect("a copy").collect().await.is_err());
    }
}
