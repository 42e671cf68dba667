//! The kernel's packet filter through iptables' own tools, and connection tracking through conntrack.

use std::io;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;

/// A tool could not be started, or said no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{tool} could not be run: {source}")]
    Start { tool: &'static str, source: io::Error },
    #[error("{tool} failed: {message}")]
    Failed { tool: &'static str, message: String },
}

/// What the packet filter can do.
pub trait PacketFilter: Send + Sync {
    /// Applies a batch in iptables-restore's format; chains that it does not name stay. Each table is all or nothing.
    fn restore(&self, batch: String) -> BoxFuture<'_, Result<(), Error>>;
    /// The table's chains and rules, in iptables-save's format.
    fn save(&self, table: &'static str) -> BoxFuture<'_, Result<String, Error>>;
    /// Deletes tracked connections that match these conntrack arguments; none to delete is no error.
    fn forget_flows(&self, matching: Vec<String>) -> BoxFuture<'_, Result<(), Error>>;
}

/// Which of iptables' two kernel interfaces is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// What the distribution made the default (nf_tables on Debian), shared with the CNI plugins.
    Default,
    /// For kernels without nf_tables.
    Legacy,
}

/// The tools of this machine.
#[derive(Debug)]
pub struct Tools {
    variant: Variant,
}

impl Tools {
    /// Finds out which kernel interface answers.
    pub async fn detect() -> Result<Self, Error> {
        let default = Self { variant: Variant::Default };
        let Err(error) = default.save("nat").await else { return Ok(default) };
        let legacy = Self { variant: Variant::Legacy };
        match legacy.save("nat").await {
            Ok(_) => {
                tracing::warn!(%error, "iptables' default kernel interface does not work here; using iptables-legacy");
                Ok(legacy)
            }
            Err(_) => Err(error),
        }
    }

    fn tool(&self, default: &'static str, legacy: &'static str) -> &'static str {
        match self.variant {
            Variant::Default => default,
            Variant::Legacy => legacy,
        }
    }
}

impl PacketFilter for Tools {
    fn restore(&self, batch: String) -> BoxFuture<'_, Result<(), Error>> {
        let tool = self.tool("iptables-restore", "iptables-legacy-restore");
        Box::pin(
            async move { run(tool, &["-w", "5", "--noflush", "--counters"], Some(batch)).await.map(drop) },
        )
    }

    fn save(&self, table: &'static str) -> BoxFuture<'_, Result<String, Error>> {
        let tool = self.tool("iptables-save", "iptables-legacy-save");
        Box::pin(async move { run(tool, &["-t", table], None).await })
    }

    fn forget_flows(&self, matching: Vec<String>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let args: Vec<&str> = std::iter::once("-D").chain(matching.iter().map(String::as_str)).collect();
            match run("conntrack", &args, None).await {
                Err(Error::Failed { message, .. }) if message.contains("0 flow entries") => Ok(()),
                other => other.map(drop),
            }
        })
    }
}

#[allow(clippy::disallowed_types)] // this is sys: the place where processes start
async fn run(tool: &'static str, args: &[&str], input: Option<String>) -> Result<String, Error> {
    let start = |source| Error::Start { tool, source };
    let mut child = tokio::process::Command::new(tool)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let feed = async move {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A tool that stops reading says why on stderr, and its exit code counts.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(start)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Failed { tool, message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Records what it is asked and answers `save` with what it was given.
#[derive(Debug, Default)]
pub struct Recorder {
    batches: Mutex<Vec<String>>,
    forgotten: Mutex<Vec<String>>,
    saved: Mutex<Vec<(&'static str, String)>>,
    refuse: Mutex<bool>,
}

impl Recorder {
    /// What `save` says of a table from now on.
    pub fn saved(&self, table: &'static str, text: &str) {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).push((table, text.to_owned()));
    }

    /// Whether `restore` fails from now on.
    pub fn refuse(&self, refuse: bool) {
        *self.refuse.lock().unwrap_or_else(PoisonError::into_inner) = refuse;
    }

    /// The batches applied since the last call.
    pub fn take_batches(&self) -> Vec<String> {
        std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The flows forgotten since the last call.
    pub fn take_forgotten(&self) -> Vec<String> {
        std::mem::take(&mut *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PacketFilter for Recorder {
    fn restore(&self, batch: String) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if *self.refuse.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(Error::Failed { tool: "iptables-restore", message: "refused".into() });
            }
            self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
            Ok(())
        })
    }

    fn save(&self, table: &'static str) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(async move {
            let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(saved
                .iter()
                .rev()
                .find(|(of, _)| *of == table)
                .map(|(_, text)| text.clone())
                .unwrap_or_default())
        })
    }

    fn forget_flows(&self, matching: Vec<String>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).push(matching.join(" "));
            Ok(())
        })
    }
}
