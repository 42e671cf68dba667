//! Failures on purpose, carried out inside the node they are for; each is healed in here too, whatever becomes of who
//! asked for it.
//!
//! ```text
//! begin: keeper started -> fault in force, and written down      keeper: (sleeps until then) -> healed
//! heal, sooner: healed, and the keeper sent home                  a node that starts again has none, but to stay dead
//! ```

mod effects;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use config::{Fault, FaultKind, NodeConfig};
use rt::Tasks;
use sys::exec::{Exec, ExecError, Invocation, System};
use sys::inotify::{WatchError, Watcher};
use sys::netlink::{self, Netlink};
use sys::nftables::Nftables;
use sys::{foreground, freeze};

/// Where faults are written down; gone when the container stops, as they are themselves.
const DIR: &str = "/run/minik/faults";
/// A node that was killed stays dead until the time in here; in the state folder, as that outlives it.
const DEAD: &str = "dead.json";

/// Why a fault is not in force.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot stop the node's processes: {0}")]
    Freeze(std::io::Error),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(
        "the kernel of this machine cannot delay packets ({0}): sudo modprobe sch_netem, or use --rate and --loss, which need no module"
    )]
    NoDelay(ExecError),
    #[error("the time is out of bounds")]
    Time,
}

/// A fault in force, and who heals it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    fault: Fault,
    keeper: i32,
    /// Processes that stood still before.
    #[serde(default)]
    stood_still: Vec<i32>,
}

/// A fault that is in force.
pub struct Begun {
    pub fault: Fault,
    /// Where the node dies of it: it dies when this process, which has yet to tell, has ended.
    pub strike: Option<foreground::Heir>,
}

/// The faults of a node.
pub struct Faults {
    dir: PathBuf,
    state: PathBuf,
    exec: Arc<dyn Exec>,
}

impl Faults {
    /// Those of the node this process runs on.
    pub fn of_this_node() -> Self {
        Self { dir: DIR.into(), state: NodeConfig::STATE_DIR.into(), exec: Arc::new(System) }
    }

    /// Breaks this node for so many seconds; a fault of the same kind gives way. Fails when it cannot be had, and leaves
    /// nothing broken then.
    pub async fn begin(&self, kind: FaultKind, seconds: u32) -> Result<Begun, FaultError> {
        let name = kind.name();
        self.heal(Some(name)).await?;
        let until = Timestamp::now().checked_add(SignedDuration::from_secs(i64::from(seconds)));
        let fault = Fault { kind, until: until.map_err(|_| FaultError::Time)? };
        if fault.kind == FaultKind::Kill {
            write(&self.state.join(DEAD), &fault)?;
            let strike = foreground::heir(&["node", "fault", "strike"]);
            if strike.is_err() {
                remove(&self.state.join(DEAD))?;
            }
            return Ok(Begun { fault, strike: Some(strike?) });
        }
        // Who heals is there before there is anything to heal.
        let keeper = foreground::detached(&["node", "fault", "keep", name, &fault.until.to_string()])?;
        let mut kept = Kept { fault: fault.clone(), keeper, stood_still: Vec::new() };
        let path = self.dir.join(format!("{name}.json"));
        let done = async {
            write(&path, &kept)?;
            self.put_in_force(&mut kept).await?;
            write(&path, &kept)
        };
        if let Err(error) = done.await {
            self.heal(Some(name)).await?;
            return Err(error);
        }
        Ok(Begun { fault, strike: None })
    }

    async fn put_in_force(&self, kept: &mut Kept) -> Result<(), FaultError> {
        match &kept.fault.kind {
            FaultKind::Kill => {}
            FaultKind::Pause => {
                kept.stood_still = freeze::stop_all(&[kept.keeper]).map_err(FaultError::Freeze)?;
            }
            FaultKind::Partition { from } => {
                let behind = if from.is_empty() { Vec::new() } else { pods_behind(from).await? };
                self.filter(effects::partition(from, &behind)).await?;
            }
            FaultKind::Slow { delay_ms, jitter_ms, loss_per_mille, rate_kbit } => {
                if let Some(words) = effects::queue(*delay_ms, *jitter_ms, *rate_kbit) {
                    self.tc(&words).await.map_err(|error| match delay_ms {
                        Some(_) => FaultError::NoDelay(error),
                        None => error.into(),
                    })?;
                }
                if let Some(lost) = loss_per_mille {
                    self.filter(effects::loss(*lost)).await?;
                }
            }
        }
        Ok(())
    }

    /// Mends what is broken on purpose: one kind, or everything. Returns what it mended. Fails when something stays broken.
    pub async fn heal(&self, only: Option<&str>) -> Result<Vec<Fault>, FaultError> {
        let mut healed = Vec::new();
        for kept in self.kept() {
            if only.is_some_and(|name| name != kept.fault.kind.name()) {
                continue;
            }
            self.undo(&kept).await?;
            remove(&self.dir.join(format!("{}.json", kept.fault.kind.name())))?;
            let own = nix::unistd::getpid().as_raw();
            if kept.keeper > 1 && kept.keeper != own {
                // One that has ended needs no signal.
                let keeper = nix::unistd::Pid::from_raw(kept.keeper);
                let _ = nix::sys::signal::kill(keeper, nix::sys::signal::SIGTERM);
            }
            healed.push(kept.fault);
        }
        if only.is_none_or(|name| name == "kill")
            && let Some(fault) = self.dead()
        {
            // Whoever waits in there for its time to come sees the file go.
            remove(&self.state.join(DEAD))?;
            healed.push(fault);
        }
        Ok(healed)
    }

    async fn undo(&self, kept: &Kept) -> Result<(), FaultError> {
        match &kept.fault.kind {
            FaultKind::Kill => {}
            FaultKind::Pause => freeze::go_on(&kept.stood_still).map_err(FaultError::Freeze)?,
            FaultKind::Partition { .. } => self.filter(effects::remove("partition")).await?,
            FaultKind::Slow { delay_ms, rate_kbit, .. } => {
                self.filter(effects::remove("slow")).await?;
                if delay_ms.is_some() || rate_kbit.is_some() {
                    // It is not there when it could not be made.
                    let _ = self.tc(&effects::remove_queue()).await;
                }
            }
        }
        Ok(())
    }

    /// What is broken on purpose.
    pub fn list(&self) -> Vec<Fault> {
        self.kept().into_iter().map(|kept| kept.fault).chain(self.dead()).collect()
    }

    /// The keeper's work: sleeps until then, and heals the fault that it was started for.
    pub async fn keep(&self, name: &str, until: Timestamp) -> Result<(), FaultError> {
        sleep_until(until).await;
        let own = |kept: &Kept| kept.fault.kind.name() == name && kept.fault.until == until;
        if self.kept().iter().any(own) {
            self.heal(Some(name)).await?;
        }
        Ok(())
    }

    /// Resolves when this node may live: at once, unless it was killed for a time. Until then nobody can reach it. Fails
    /// when its files cannot be watched.
    pub async fn wait_while_dead(&self) -> Result<(), FaultError> {
        let Some(fault) = self.dead().filter(|fault| fault.until > Timestamp::now()) else {
            return remove(&self.state.join(DEAD));
        };
        tracing::info!(until = %fault.until, "dead on purpose");
        let watcher = Watcher::new()?;
        watcher.add(&self.state)?;
        // Where packets cannot be dropped it is silent all the same: nothing listens.
        if let Err(error) = self.filter(effects::partition(&[], &[])).await {
            tracing::warn!(%error, "a dead node answers pings");
        }
        let revived = async {
            while self.dead().is_some() {
                if let Err(error) = watcher.changed().await {
                    tracing::warn!(%error, "watching for the end of a fault");
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            () = sleep_until(fault.until) => {}
            () = revived => {}
        }
        remove(&self.state.join(DEAD))?;
        self.filter(effects::remove("partition")).await
    }

    fn dead(&self) -> Option<Fault> {
        serde_json::from_slice(&std::fs::read(self.state.join(DEAD)).ok()?).ok()
    }

    fn kept(&self) -> Vec<Kept> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()).collect()
    }

    async fn filter(&self, batch: String) -> Result<(), FaultError> {
        Ok(Nftables::new(self.exec.clone()).apply(batch).await?)
    }

    async fn tc(&self, words: &str) -> Result<(), ExecError> {
        self.exec.run(Invocation::new("tc", words.split(' '))).await.map(drop)
    }
}

/// The networks of Pods to which these nodes are the way.
async fn pods_behind(nodes: &[std::net::Ipv4Addr]) -> Result<Vec<ipnet::Ipv4Net>, FaultError> {
    let tasks = Tasks::new();
    let routes = Netlink::open(&tasks)?.our_routes().await?;
    Ok(routes
        .into_iter()
        .filter(|route| route.via.is_some_and(|via| nodes.contains(&via)))
        .map(|route| route.to)
        .collect())
}

async fn sleep_until(then: Timestamp) {
    let left = then.duration_since(Timestamp::now());
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), FaultError> {
    let failed = |source| FaultError::File { path: path.to_owned(), source };
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(value).map_err(std::io::Error::other).map_err(failed)?;
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path)).map_err(failed)
}

fn remove(path: &Path) -> Result<(), FaultError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FaultError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::exec::Recorder;

    fn faults(dir: &Path) -> (Faults, Recorder) {
        let recorder = Recorder::default();
        let exec = Arc::new(recorder.clone());
        (Faults { dir: dir.join("faults"), state: dir.to_owned(), exec }, recorder)
    }

    fn in_force(faults: &Faults, kind: FaultKind, until: Timestamp) {
        let name = kind.name();
        let kept = Kept { fault: Fault { kind, until }, keeper: 0, stood_still: Vec::new() };
        write(&faults.dir.join(format!("{name}.json")), &kept).expect("written");
    }

    #[tokio::test]
    async fn a_keeper_heals_its_own_fault_and_no_later_one() {
        let dir = tempfile::tempdir().expect("folder");
        let (faults, recorder) = faults(dir.path());
        let (first, second) = (Timestamp::UNIX_EPOCH, Timestamp::now());
        in_force(&faults, FaultKind::Partition { from: Vec::new() }, second);
        faults.keep("partition", first).await.expect("nothing to do");
        assert_eq!(faults.list().len(), 1);
        faults.keep("partition", second).await.expect("healed");
        assert!(faults.list().is_empty());
        let seen = recorder.take();
        assert!(seen.len() == 1 && seen[0].program == "nft", "{seen:?}");
    }

    #[tokio::test]
    async fn everything_is_healed_at_once() {
        let dir = tempfile::tempdir().expect("folder");
        let (faults, recorder) = faults(dir.path());
        let later = Timestamp::now().checked_add(SignedDuration::from_hours(1)).expect("a time");
        let slow =
            FaultKind::Slow { delay_ms: None, jitter_ms: None, loss_per_mille: None, rate_kbit: Some(100) };
        in_force(&faults, slow, later);
        in_force(&faults, FaultKind::Partition { from: Vec::new() }, later);
        write(&faults.state.join(DEAD), &Fault { kind: FaultKind::Kill, until: later }).expect("written");
        assert_eq!(faults.list().len(), 3);
        assert_eq!(faults.heal(None).await.expect("healed").len(), 3);
        assert!(faults.list().is_empty() && faults.heal(None).await.expect("nothing").is_empty());
        assert!(recorder.take().iter().any(|run| run.line() == "tc qdisc del dev eth0 root handle 6d:"));
    }

    #[tokio::test]
    async fn the_dead_come_back_when_their_time_has_come_or_somebody_says_so() {
        let dir = tempfile::tempdir().expect("folder");
        let (faults, recorder) = faults(dir.path());
        faults.wait_while_dead().await.expect("it never died");
        let past = Fault { kind: FaultKind::Kill, until: Timestamp::UNIX_EPOCH };
        write(&faults.state.join(DEAD), &past).expect("written");
        faults.wait_while_dead().await.expect("its time is over");
        assert!(faults.list().is_empty() && recorder.take().is_empty());

        let until = Timestamp::now().checked_add(SignedDuration::from_hours(1)).expect("a time");
        write(&faults.state.join(DEAD), &Fault { kind: FaultKind::Kill, until }).expect("written");
        let heal = async {
            tokio::task::yield_now().await;
            faults.heal(Some("kill")).await
        };
        let (waited, healed) = tokio::join!(faults.wait_while_dead(), heal);
        waited.expect("alive");
        assert_eq!(healed.expect("healed").len(), 1);
        assert_eq!(recorder.take().len(), 2, "cut off while dead, and no longer");
    }
}
