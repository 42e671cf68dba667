//! The file that events are appended to. A full one is put aside, and a new one begun.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::counts::Counts;
use rt::Tasks;

/// How many events may wait for the disk.
const QUEUE: usize = 10_000;
/// A file that is larger is put aside as `<name>.1`, and what that was is gone.
const LARGEST: u64 = 100 << 20;

/// Appends lines to a file, in a thread of its own.
pub(super) struct Log {
    lines: mpsc::Sender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Log {
    /// Opens the file, which is made if it is not there.
    pub(super) fn open(path: &Path, tasks: &Tasks, counts: Arc<Counts>) -> io::Result<Self> {
        let mut target = Target::open(path)?;
        let (sender, mut lines) = mpsc::channel::<Vec<u8>>(QUEUE);
        let (stop, blocking, counted) = (tasks.stop(), tasks.clone(), counts.clone());
        tasks.spawn(async move {
            let mut batch = Vec::new();
            loop {
                // What waits when the server goes is still written.
                let count = tokio::select! {
                    biased;
                    count = lines.recv_many(&mut batch, QUEUE) => count,
                    () = stop.cancelled() => return,
                };
                if count == 0 {
                    return;
                }
                let text: Vec<u8> = batch.drain(..).flatten().collect();
                let written = blocking.spawn_blocking(move || {
                    let outcome = target.append(&text);
                    (target, outcome)
                });
                match written.await {
                    Ok((back, outcome)) => {
                        target = back;
                        if let Err(error) = outcome {
                            counted.lost(count);
                            tracing::error!(%error, lost = count, "audit events could not be written");
                        }
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self { lines: sender, counts })
    }

    /// Appends a line; waits while too many others wait.
    pub(super) async fn write(&self, line: Vec<u8>) {
        // The receiver is gone only when the server is.
        let _ = self.lines.send(line).await;
    }

    /// Appends a line from where nobody can wait; says so when there is no room.
    pub(super) fn write_soon(&self, line: Vec<u8>) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.lines.try_send(line) {
            self.counts.lost(1);
            tracing::error!("an audit event found no room and is lost");
        }
    }
}

struct Target {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.size > LARGEST {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(text)?;
        self.size += text.len() as u64;
        Ok(())
    }
}
