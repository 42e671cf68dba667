//! Bodies on their way through: of one type, and to be had back while nobody has read of them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

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
