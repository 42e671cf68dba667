//! Container logs: reading, following, filtering.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::routes::{Body, Query, Refusal, Routes, text};
use crate::cri::api::ContainerState;
use crate::cri::{Runtime, labels};
use sys::inotify::Watcher;

/// Sent at once at the latest when so much is gathered.
const CHUNK: usize = 32 << 10;

/// Whoever writes a log that was turned over is done with the old file by then.
const HANDED_OVER: Duration = Duration::from_secs(5);

/// What of a log is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    timestamps: bool,
    previous: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
    stream: Option<String>,
}

impl Options {
    fn parse(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let number = |name: &str| -> Result<Option<i64>, Refusal> {
            let value = query.get(name).map(str::parse).transpose();
            value.map_err(|_| Refusal::bad(format!("{name} is not a number")))
        };
        let seconds = number("sinceSeconds")?.map(SignedDuration::from_secs);
        let time = query.get("sinceTime").map(str::parse::<Timestamp>).transpose();
        let time = time.map_err(|error| Refusal::bad(format!("sinceTime: {error}")))?;
        let size = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok());
        let stream = query.get("stream").filter(|stream| *stream != "All").map(str::to_lowercase);
        Ok(Self {
            follow: query.on(&["follow"]),
            timestamps: query.on(&["timestamps"]),
            previous: query.on(&["previous"]),
            tail: size(number("tailLines")?),
            since: time.or_else(|| now.checked_sub(seconds?).ok()),
            limit: size(number("limitBytes")?),
            stream,
        })
    }
}

/// The container whose log is read.
struct Subject {
    id: String,
    path: PathBuf,
}

/// Answers with the log as it is, and as it grows when asked to follow.
pub async fn answer(
    routes: &Arc<Routes>,
    pod: &Pod,
    container: &str,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let options = Options::parse(query, Timestamp::now())?;
    let subject = subject(routes, pod, container, options.previous).await?;
    let (sender, receiver) = mpsc::channel(4);
    let runtime = routes.runtime.clone();
    let events = routes.manager.events();
    routes.tasks.spawn_until_stop(async move {
        let mut reader = Reader { options, subject, out: Out::new(sender), runtime, events };
        if let Err(error) = reader.run().await {
            tracing::debug!(%error, "a log could not be read to its end");
        }
    });
    let stream = ReceiverStream::new(receiver).map(|bytes| Ok::<_, io::Error>(Frame::data(bytes)));
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = BodyExt::boxed(StreamBody::new(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn subject(routes: &Routes, pod: &Pod, container: &str, previous: bool) -> Result<Subject, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let containers =
        routes.runtime.containers(pod.metadata.uid.as_deref()).await.map_err(Refusal::internal)?;
    let mut named: Vec<_> = containers
        .into_iter()
        .filter(|c| c.labels.get(labels::CONTAINER_NAME).map(String::as_str) == Some(container))
        .filter(|c| c.state() != ContainerState::ContainerCreated)
        .collect();
    named.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    let chosen = if previous {
        let running = named.first().is_some_and(|c| c.state() == ContainerState::ContainerRunning);
        // While the next start waits, the one that ended last is the previous one.
        let waits = !running && restarts(pod, container);
        named.into_iter().nth(usize::from(!waits)).ok_or_else(|| {
            Refusal::bad(format!("previous terminated container \"{container}\" in pod \"{name}\" not found"))
        })?
    } else {
        named.into_iter().next().ok_or_else(|| {
            let why = waiting(pod, container).unwrap_or_else(|| "ContainerCreating".to_owned());
            Refusal::bad(format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}"))
        })?
    };
    let status = routes.runtime.container_status(&chosen.id).await.map_err(Refusal::internal)?;
    Ok(Subject { id: chosen.id, path: status.log_path.into() })
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ContainerStatus> {
    let status = pod.status.as_ref();
    let main = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    main.chain(status.into_iter().flat_map(|status| status.init_container_statuses.iter().flatten()))
        .chain(status.into_iter().flat_map(|status| status.ephemeral_container_statuses.iter().flatten()))
}

fn waiting(pod: &Pod, container: &str) -> Option<String> {
    let status = statuses(pod).find(|status| status.name == container)?;
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    let pulls = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];
    // As upstream: what keeps an image away is told apart from a container that is being made.
    Some(if pulls.contains(&reason.as_str()) {
        "trying and failing to pull image".to_owned()
    } else {
        reason
    })
}

fn restarts(pod: &Pod, container: &str) -> bool {
    waiting(pod, container).is_some()
}

/// Resolves at `bound`; never without one.
async fn expired(bound: Option<Instant>) {
    match bound {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Reader {
    options: Options,
    subject: Subject,
    out: Out,
    runtime: Runtime,
    /// Moves whenever the runtime reports something about any container.
    events: watch::Receiver<u64>,
}

impl Reader {
    async fn run(&mut self) -> io::Result<()> {
        let path = self.subject.path.clone();
        // Watched before the first read, so that nothing written in between is missed.
        let watcher = if self.options.follow { Some(self.watch(&path)?) } else { None };
        let mut file = File::open(&path).await?;
        let metadata = file.metadata().await?;
        let from = match self.options.tail {
            Some(lines) => tail_offset(&mut file, metadata.len(), lines).await?,
            None => 0,
        };
        file.seek(SeekFrom::Start(from)).await?;
        let mut inode = metadata.ino();
        // Who does not follow gets what there was: a container that never stops writing would hold the answer up.
        let rest = if self.options.follow { u64::MAX } else { metadata.len().saturating_sub(from) };
        let mut lines = BufReader::new(file.take(rest));
        let mut line = Vec::new();
        let mut alive = watcher.is_some();
        self.events.mark_changed();
        // Since when there is a new file under the name, and whether the old one is still written.
        let mut turned: Option<Instant> = None;
        let mut closed = false;
        loop {
            // Asked before reading: what was written before the end is read after it.
            if alive && self.events.has_changed().unwrap_or(true) {
                self.events.borrow_and_update();
                alive = self.alive().await;
            }
            while lines.read_until(b'\n', &mut line).await? > 0 {
                if line.last() != Some(&b'\n') {
                    break;
                }
                let more = self.line(&line).await;
                line.clear();
                if !more {
                    return Ok(());
                }
            }
            if !self.out.flush().await {
                return Ok(());
            }
            let Some(watcher) = watcher.as_ref() else { return Ok(()) };
            if !alive && turned.is_none() {
                return Ok(());
            }
            let bound = turned.map(|since| since + HANDED_OVER);
            tokio::select! {
                changed = watcher.changed() => closed |= changed?.closed,
                _ = self.events.changed(), if alive => self.events.mark_changed(),
                () = expired(bound) => closed = true,
                () = self.out.closed() => return Ok(()),
            }
            // A new file under the same name: the log was turned over. Whoever writes it ends the old one after the new one
            // has begun, and closes it then.
            let now = tokio::fs::metadata(&path).await.ok().filter(|metadata| metadata.ino() != inode);
            let Some(metadata) = now else {
                (turned, closed) = (None, false);
                continue;
            };
            turned.get_or_insert_with(Instant::now);
            if closed {
                while lines.read_until(b'\n', &mut line).await? > 0 {
                    if !self.line(&line).await {
                        return Ok(());
                    }
                    line.clear();
                }
                (turned, closed, inode) = (None, false, metadata.ino());
                lines = BufReader::new(File::open(&path).await?.take(u64::MAX));
                watcher.add(&path).map_err(io::Error::other)?;
            }
        }
    }

    fn watch(&self, path: &Path) -> io::Result<Watcher> {
        let watcher = Watcher::new().map_err(io::Error::other)?;
        watcher.add(path).map_err(io::Error::other)?;
        if let Some(dir) = path.parent() {
            watcher.add(dir).map_err(io::Error::other)?;
        }
        Ok(watcher)
    }

    async fn alive(&self) -> bool {
        let status = self.runtime.container_status(&self.subject.id).await;
        status.is_ok_and(|status| status.state() == ContainerState::ContainerRunning)
    }

    /// Takes one line of the file; false when enough was sent or nobody listens any more.
    async fn line(&mut self, line: &[u8]) -> bool {
        let Some(entry) = Entry::parse(line) else { return true };
        if self.options.stream.as_deref().is_some_and(|stream| stream.as_bytes() != entry.stream) {
            return true;
        }
        if let Some(since) = self.options.since
            && entry.time().is_some_and(|time| time < since)
        {
            return true;
        }
        let mut shown = BytesMut::with_capacity(line.len());
        if self.options.timestamps {
            shown.extend_from_slice(entry.stamp);
            shown.extend_from_slice(b" ");
        }
        shown.extend_from_slice(entry.text);
        if !entry.partial {
            shown.extend_from_slice(b"\n");
        }
        if let Some(limit) = &mut self.options.limit {
            shown.truncate(*limit);
            *limit -= shown.len();
            self.out.push(&shown).await;
            if *limit == 0 {
                self.out.flush().await;
                return false;
            }
            return true;
        }
        self.out.push(&shown).await
    }
}

/// One line of a log file: `<time> <stream> <P or F> <text>`.
struct Entry<'a> {
    stamp: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (stamp, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self { stamp, stream, partial: tag.split(|byte| *byte == b':').next() == Some(b"P"), text })
    }

    fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.stamp).ok()?.parse().ok()
    }
}

/// Gathers output into chunks.
struct Out {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Out {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, buffer: BytesMut::new() }
    }

    async fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() < CHUNK || self.flush().await
    }

    async fn flush(&mut self) -> bool {
        if self.buffer.is_empty() {
            return !self.sender.is_closed();
        }
        self.sender.send(self.buffer.split().freeze()).await.is_ok()
    }

    async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// Where the last `lines` lines before `end` begin; read from there, so that long logs cost nothing.
async fn tail_offset(file: &mut File, mut end: u64, lines: usize) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    if lines == 0 {
        return Ok(end);
    }
    // The newline that ends the file ends the last line; one more begins the first of those wanted.
    let mut missing = lines + 1;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        block.resize(usize::try_from(end - start).unwrap_or(0), 0);
        file.read_exact(&mut block).await?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            missing -= 1;
            if missing == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tail_is_found_from_the_end() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("0.log");
        std::fs::write(&path, "a\nbb\nccc\n").expect("written");
        let mut file = File::open(&path).await.expect("open");
        for (lines, expect) in [(0, 9), (1, 5), (2, 2), (3, 0), (9, 0)] {
            assert_eq!(tail_offset(&mut file, 9, lines).await.expect("read"), expect, "{lines}");
        }
        assert_eq!(tail_offset(&mut file, 5, 1).await.expect("read"), 2, "what came later does not count");
    }

    #[test]
    fn lines_are_taken_apart() {
        let entry = Entry::parse(b"2026-01-01T00:00:00.5Z stderr P hello  world\n").expect("an entry");
        assert_eq!((entry.stream, entry.partial, entry.text), (&b"stderr"[..], true, &b"hello  world"[..]));
        assert!(entry.time().is_some());
        assert!(Entry::parse(b"garbage\n").is_none());
    }
}
