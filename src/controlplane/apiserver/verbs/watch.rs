//! Watches a collection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use rand::RngExt as _;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use api::status::ApiError;
use rt::Stop;
use storage::{Batch, Entry, Event, StorageError, Watch};

use super::super::context::{RequestContext, from_storage};
use super::super::conversion::Converter;
use super::super::observe::Watched;
use super::super::selection::Selection;
use super::super::wire;
use super::Answer;
use super::list;
use super::list_plan::{ListOptions, Snapshot, Start};
use super::watch_encoder::WatchEncoder;

/// How often a quiet watch says how far it is, as upstream does.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a timeout of its own ends after one to two of these, so that clients spread over servers.
const LIFETIME: Duration = Duration::from_secs(1800);
/// Bytes of one chunk, about: many frames travel in one write.
const CHUNK: usize = 64 * 1024;

/// Answers a stream of what happens to a collection.
pub async fn watch(context: &RequestContext<'_>) -> Answer {
    let options = ListOptions::read(&context.params)?;
    let start = options.start()?;
    let encoder = WatchEncoder {
        encoder: context.encoder(),
        selection: Selection::read(context.resource, &context.params, context.only_name())?,
    };
    let content_type = context.media.format.stream_type();
    let lifetime = lifetime(context.params.integer("timeoutSeconds")?);
    let bookmarks = context.params.flag("allowWatchBookmarks");
    let begun = match begin(context, &encoder, start).await {
        Ok(begun) => begun,
        // Once a request is understood, a watch that cannot start says so in its first event.
        Err(error @ ApiError { code: 410, .. }) => {
            let mut frame = Vec::new();
            encoder.error(&error, &mut frame);
            return Ok(wire::raw(StatusCode::OK, content_type, frame));
        }
        Err(error) => return Err(error),
    };
    let state = Streaming {
        watch: begun.watch,
        initial: begun.initial.into(),
        end_of_initial: begun.announce.then_some(begun.revision),
        encoder,
        converter: context.engine.converter.clone(),
        stop: context.resource.end.as_ref().unwrap_or(&context.engine.stop).clone(),
        deadline: Box::pin(tokio::time::sleep(lifetime)),
        bookmarks: bookmarks.then(|| {
            let mut every = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        }),
        sent: context.engine.observer.watched(context.info),
        behind: VecDeque::new(),
        last: Vec::new(),
        over: false,
    };
    let body = Body::from_stream(stream::unfold(state, |mut state| async move {
        let chunk = state.chunk().await?;
        Some((Ok::<_, Infallible>(chunk), state))
    }));
    Ok(wire::raw(StatusCode::OK, content_type, body))
}

fn lifetime(seconds: Option<i64>) -> Duration {
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        None => LIFETIME.mul_f64(1.0 + rand::rng().random::<f64>()),
    }
}

struct Begun {
    watch: Box<dyn Watch>,
    initial: Vec<Arc<Entry>>,
    revision: u64,
    announce: bool,
}

async fn begin(
    context: &RequestContext<'_>,
    encoder: &WatchEncoder,
    start: Start,
) -> Result<Begun, ApiError> {
    let prefix = format!("{}{}", context.collection().prefix(&context.info.namespace), context.only_name());
    let store = &context.engine.store;
    let (revision, initial, announce) = match start {
        Start::Now => (store.revision(), Vec::new(), false),
        Start::Behind(revision) => (revision, Vec::new(), false),
        Start::State { at_least, announce_end } => {
            let snapshot = Snapshot { at_least, ..Snapshot::default() };
            let (_, listing) = list::fetch(context, &encoder.selection, &snapshot, 0).await?;
            (listing.revision, listing.entries, announce_end)
        }
    };
    let watch = store.watch(prefix, revision).map_err(watch_error)?;
    Ok(Begun { watch, initial, revision, announce })
}

fn watch_error(error: StorageError) -> ApiError {
    match error {
        StorageError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        error => from_storage(error),
    }
}

/// One watch on its way: what it still owes, and what it waits for.
///
/// ```text
/// initial events -> end of initial events (bookmark) -> batches and bookmarks -> timeout (bookmark), stop, or ERROR
/// ```
struct Streaming {
    watch: Box<dyn Watch>,
    initial: VecDeque<Arc<Entry>>,
    end_of_initial: Option<u64>,
    encoder: WatchEncoder,
    converter: Arc<Converter>,
    stop: Stop,
    deadline: Pin<Box<Sleep>>,
    bookmarks: Option<Interval>,
    sent: Arc<Watched>,
    /// Events that are not sent yet.
    behind: VecDeque<Arc<Event>>,
    /// The frame that comes after them.
    last: Vec<u8>,
    over: bool,
}

enum Wake {
    Batch(Result<Batch, StorageError>),
    Bookmark,
    Deadline,
    Stop,
}

impl Streaming {
    /// The next bytes to send; `None` ends the stream.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            match self.wake().await {
                Wake::Batch(batch) => self.take(batch).await,
                Wake::Bookmark => self.bookmark().await,
                Wake::Deadline => {
                    self.over = true;
                    if self.bookmarks.is_some() {
                        self.bookmark().await;
                    }
                }
                Wake::Stop => return None,
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let tick = async {
            match &mut self.bookmarks {
                Some(every) => every.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stop,
            () = self.deadline.as_mut() => Wake::Deadline,
            batch = self.watch.next() => Wake::Batch(batch),
            _ = tick => Wake::Bookmark,
        }
    }

    /// What can be sent without waiting: as many frames as one write takes.
    fn ready(&mut self) -> Option<Bytes> {
        let events = self.behind.iter().map(|event| &**event);
        let mut chunk = Vec::with_capacity(self.encoder.room(events, CHUNK));
        self.frame_initial(&mut chunk);
        while chunk.len() < CHUNK
            && let Some(event) = self.behind.pop_front()
        {
            self.frame(&mut chunk, |encoder, chunk| encoder.event(&event, chunk));
        }
        if self.initial.is_empty() && self.behind.is_empty() {
            let mut last = std::mem::take(&mut self.last);
            self.frame(&mut chunk, |_, chunk| chunk.append(&mut last));
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// Adds a frame, and counts it if there is one.
    fn frame(&self, chunk: &mut Vec<u8>, add: impl FnOnce(&WatchEncoder, &mut Vec<u8>)) {
        let before = chunk.len();
        add(&self.encoder, chunk);
        if chunk.len() > before {
            self.sent.sent(chunk.len() - before);
        }
    }

    fn frame_initial(&mut self, chunk: &mut Vec<u8>) {
        while chunk.len() < CHUNK {
            let Some(entry) = self.initial.pop_front() else {
                // Who does not take bookmarks is not told where the initial events end.
                if let Some(revision) = self.end_of_initial.take().filter(|_| self.bookmarks.is_some()) {
                    self.frame(chunk, |encoder, chunk| encoder.bookmark(revision, true, chunk));
                }
                return;
            };
            self.frame(chunk, |encoder, chunk| encoder.initial(&entry, chunk));
        }
    }

    async fn take(&mut self, batch: Result<Batch, StorageError>) {
        let batch = match batch {
            Ok(batch) => self.converter.batch(&self.encoder.encoder.resource, batch).await,
            Err(error) => Err(watch_error(error)),
        };
        match batch {
            Ok(batch) => self.behind = batch.events.into(),
            Err(error) => {
                self.over = true;
                self.encoder.error(&error, &mut self.last);
            }
        }
    }

    /// Sends what has happened up to now, and says up to where that is.
    async fn bookmark(&mut self) {
        match self.watch.progress() {
            Ok(batch) => {
                let revision = batch.revision;
                self.take(Ok(batch)).await;
                self.encoder.bookmark(revision, false, &mut self.last);
            }
            Err(error) => self.take(Err(error)).await,
        }
    }
}
