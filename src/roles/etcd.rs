//! The member of the cluster's etcd that a server runs, where a cluster was made for several servers.
//!
//! ```text
//! data there --------------------------> start
//! no data, a founder of the cluster ---> start with all the others
//! no data, a store to be taken over ---> start alone
//! no data otherwise --others: put the former self out, let this one in as a learner--> start --caught up--> has a vote
//! running --ends--> back-off --put out meanwhile: its data goes--> start
//! ```

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::state::STORE;
use config::{NodeConfig, Servers};
use pki::{EtcdPki, files};
use rt::{Backoff, Tasks};
use storage::{Etcd, Member, Members, StorageError};
use sys::exec::{Daemon, Invocation, log_tail};
use sys::supervise::{self, Program};

/// What is called, and what it may become: the image keeps etcd packed.
const PROGRAM: &str = "/usr/bin/etcd";
const UNPACKED: &str = "/var/lib/node-image/etcd";
const LOG: &str = "/var/log/etcd.log";
/// Where the number of its process is written down.
const NOTE: &str = "/run/etcd.pid";
/// In the state folder of the node.
const DATA: &str = "etcd";

/// Where upstream's API server keeps everything.
pub(super) const PREFIX: &str = "/registry";
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Between attempts to reach it while it starts, or to be let in: nothing tells when that is possible.
const RETRY: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_secs(1) };
/// A leader says so often that it lives, and one that was silent for so long, or up to twice as long, is replaced: reads go on within
/// a second. Members are next to each other; etcd's own second would be for members in different places.
const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION: Duration = Duration::from_millis(500);
/// What was written goes to etcd's own store together, after so long: it is in its log at once, and each time costs as much as several
/// writes.
const COMMIT: Duration = Duration::from_secs(1);
/// How long it is tried to put a member out: etcd refuses while it has not seen most of the members for five seconds.
const REMOVE: Duration = Duration::from_secs(15);
/// Entries between two snapshots. etcd keeps at least that many in memory, and by itself ten times as many.
const SNAPSHOT: u32 = 10_000;

/// Starts the member and keeps it running until the tasks stop; returns how it is reached when it serves, which needs most of
/// the members. Waits for them as long as it takes.
pub(super) async fn run(config: &NodeConfig, tasks: &Tasks) -> anyhow::Result<Etcd> {
    let own = Own::of(config)?;
    for program in [PROGRAM, UNPACKED] {
        Daemon::end_leftover(Path::new(NOTE), program, Own::STOP).await;
    }
    let daemon = own.start().await?;
    let reached = own.etcd(own.servers.for_node(&own.node));
    let stop = tasks.stop();
    tasks.spawn(supervise::keep(own, daemon, stop));
    Ok(reached)
}

/// Puts the member at an address out of the cluster's etcd: its server is about to go for good. Run at another server.
///
/// # Errors
///
/// Too few of the others answer.
pub async fn remove(config: &NodeConfig, ip: Ipv4Addr) -> anyhow::Result<()> {
    let own = Own::of(config)?;
    let members = Members::of(&own.etcd(own.servers.for_node(&own.node)))?;
    let begun = tokio::time::Instant::now();
    let mut failures = 0;
    loop {
        let removed = async {
            match find(&members.list().await?, ip) {
                Some(member) => members.remove(member.id).await,
                None => Ok(()),
            }
        };
        match removed.await {
            Err(_) if begun.elapsed() < REMOVE => failures += 1,
            removed => return Ok(removed?),
        }
        tokio::time::sleep(RETRY.delay(failures)).await;
    }
}

/// This server's member.
struct Own {
    node: String,
    ip: Ipv4Addr,
    cluster: String,
    servers: Servers,
    pki: EtcdPki,
    state: PathBuf,
}

/// How a member starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With what it knows.
    Resume,
    /// With the others, who know as little.
    Found,
    /// With what this server kept before it had an etcd: the others come later.
    Alone,
    /// Others must let it in.
    Join,
}

impl Start {
    fn of(data: bool, store: bool, founder: bool) -> Self {
        match (data, store, founder) {
            (true, ..) => Self::Resume,
            (false, true, _) => Self::Alone,
            (false, false, true) => Self::Found,
            (false, false, false) => Self::Join,
        }
    }
}

/// What has to be done at the others before a member without data starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// It has been let in, and has not started yet.
    Given,
    Ask,
    /// A member of that address has been there, and has voted on what this one does not know: it can never come back.
    Replace(u64),
}

impl Admission {
    fn of(members: &[Member], ip: Ipv4Addr) -> Self {
        match find(members, ip) {
            None => Self::Ask,
            Some(member) if member.name.is_empty() => Self::Given,
            Some(member) => Self::Replace(member.id),
        }
    }
}

/// Removes what the member of this server knows, which is in the state folder.
pub(super) fn forget(state: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state.join(DATA)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn peer_url(ip: Ipv4Addr) -> String {
    format!("https://{ip}:{PEER_PORT}")
}

fn find(members: &[Member], ip: Ipv4Addr) -> Option<&Member> {
    members.iter().find(|member| member.peer_urls.contains(&peer_url(ip)))
}

impl Own {
    fn of(config: &NodeConfig) -> anyhow::Result<Self> {
        let servers = Servers::read().with_context(|| format!("reading {}", Servers::FILE))?;
        let sans = [&config.node, "localhost", "127.0.0.1", &config.node_ip.to_string()].map(str::to_owned);
        Ok(Self {
            node: config.node.clone(),
            ip: config.node_ip,
            cluster: config.cluster.clone(),
            servers,
            pki: EtcdPki::prepare(Path::new(NodeConfig::PKI_DIR), &sans)?,
            state: NodeConfig::STATE_DIR.into(),
        })
    }

    /// How members are reached.
    fn etcd(&self, members: impl IntoIterator<Item = Ipv4Addr>) -> Etcd {
        Etcd {
            endpoints: members.into_iter().map(|ip| format!("https://{ip}:{CLIENT_PORT}")).collect(),
            authority_pem: Some(self.pki.authority_pem.clone()),
            identity: Some(self.pki.client.clone()),
            prefix: PREFIX.to_owned(),
            spelling: apiserver::upstream_path,
            holds: apiserver::held_names,
        }
    }

    /// The members that the other servers run.
    fn others(&self) -> Result<Members, StorageError> {
        let others = self.servers.0.iter().map(|server| server.ip).filter(|ip| *ip != self.ip);
        Members::of(&self.etcd(others))
    }

    /// Starts it; returns when it serves.
    async fn up(&self) -> anyhow::Result<Daemon> {
        let mut daemon = self.spawn().await?;
        tokio::select! {
            served = self.serves() => served?,
            status = daemon.wait() => {
                let log = log_tail(Path::new(LOG), 10);
                anyhow::bail!("etcd ended ({}); its log ends with:\n{log}", status.context("waiting for etcd")?);
            }
        }
        match fs::remove_file(NodeConfig::ETCD_FOUNDER) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(daemon),
        }
    }

    async fn spawn(&self) -> anyhow::Result<Daemon> {
        let data = self.state.join(DATA);
        let wal = fs::read_dir(data.join("member/wal"));
        let written = wal.is_ok_and(|mut files| files.next().is_some());
        let founder = files::read_if_there(Path::new(NodeConfig::ETCD_FOUNDER))?.is_some();
        let start = Start::of(written, self.state.join(STORE).exists(), founder);
        let mut members: Vec<(String, Ipv4Addr)> =
            self.servers.0.iter().map(|server| (server.node.clone(), server.ip)).collect();
        match start {
            Start::Resume | Start::Found => {}
            Start::Alone => members.retain(|(_, ip)| *ip == self.ip),
            Start::Join => {
                forget(&self.state)?;
                let admitted = self.join().await;
                members.retain(|(_, ip)| find(&admitted, *ip).is_some());
            }
        }
        let arguments = self.arguments(&members, start, &data);
        let invocation = Invocation::new(PROGRAM, arguments.iter().map(String::as_str));
        let daemon = Daemon::start(&invocation, Path::new(LOG))?;
        daemon.note(Path::new(NOTE)).with_context(|| format!("writing {NOTE}"))?;
        Ok(daemon)
    }

    fn arguments(&self, members: &[(String, Ipv4Addr)], start: Start, data: &Path) -> Vec<String> {
        let [authority, certificate, key] =
            EtcdPki::FILES.map(|name| Path::new(NodeConfig::PKI_DIR).join(name).display().to_string());
        let members: Vec<String> =
            members.iter().map(|(node, ip)| format!("{node}={}", peer_url(*ip))).collect();
        let client = |ip: Ipv4Addr| format!("https://{ip}:{CLIENT_PORT}");
        let state = if matches!(start, Start::Found | Start::Alone) { "new" } else { "existing" };
        let pairs = [
            ("name", self.node.clone()),
            ("data-dir", data.display().to_string()),
            ("listen-client-urls", format!("{},{}", client(self.ip), client(Ipv4Addr::LOCALHOST))),
            ("advertise-client-urls", client(self.ip)),
            ("listen-peer-urls", peer_url(self.ip)),
            ("initial-advertise-peer-urls", peer_url(self.ip)),
            ("initial-cluster", members.join(",")),
            ("initial-cluster-state", state.to_owned()),
            ("initial-cluster-token", self.cluster.clone()),
            ("client-cert-auth", "true".to_owned()),
            ("trusted-ca-file", authority.clone()),
            ("cert-file", certificate.clone()),
            ("key-file", key.clone()),
            ("peer-client-cert-auth", "true".to_owned()),
            ("peer-trusted-ca-file", authority),
            ("peer-cert-file", certificate),
            ("peer-key-file", key),
            ("heartbeat-interval", HEARTBEAT.as_millis().to_string()),
            ("election-timeout", ELECTION.as_millis().to_string()),
            ("backend-batch-interval", format!("{}ms", COMMIT.as_millis())),
            ("snapshot-count", SNAPSHOT.to_string()),
            ("log-level", "warn".to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }

    /// Has the others let it in; returns all members. Keeps trying while they cannot, or another one is just coming in.
    async fn join(&self) -> Vec<Member> {
        let mut failures = 0;
        loop {
            match self.try_join().await {
                Ok(members) => return members,
                Err(error) => tracing::info!(%error, "the other servers' etcd does not let this one in yet"),
            }
            failures += 1;
            tokio::time::sleep(RETRY.delay(failures)).await;
        }
    }

    async fn try_join(&self) -> Result<Vec<Member>, StorageError> {
        let others = self.others()?;
        let members = others.list().await?;
        match Admission::of(&members, self.ip) {
            Admission::Given => return Ok(members),
            Admission::Ask => {}
            Admission::Replace(id) => others.remove(id).await?,
        }
        others.add(&peer_url(self.ip)).await
    }

    /// Waits until it serves; one that has come in as a learner gets its vote.
    async fn serves(&self) -> Result<(), StorageError> {
        let own = Members::of(&self.etcd([self.ip]))?;
        let mut failures = 0;
        while let Err(error) = own.list().await {
            // A learner refuses clients, in these words.
            if error.to_string().contains("learner") {
                self.promote().await.unwrap_or_else(|error| tracing::debug!(%error, "no vote yet"));
            }
            tracing::debug!(%error, "etcd does not serve yet");
            failures += 1;
            tokio::time::sleep(RETRY.delay(failures)).await;
        }
        tracing::info!("etcd serves");
        Ok(())
    }

    async fn promote(&self) -> Result<(), StorageError> {
        let others = self.others()?;
        match find(&others.list().await?, self.ip).filter(|member| member.learner) {
            Some(member) => others.promote(member.id).await,
            None => Ok(()),
        }
    }

    /// Whether the others know this member no more.
    async fn put_out(&self) -> bool {
        let Ok(others) = self.others() else { return false };
        others.list().await.is_ok_and(|members| find(&members, self.ip).is_none())
    }
}

impl Program for Own {
    const NAME: &'static str = "etcd";
    /// It hands its leadership over before it ends.
    const STOP: Duration = Duration::from_secs(2);
    type Error = anyhow::Error;

    fn log(&self) -> &Path {
        Path::new(LOG)
    }

    /// One that was put out while it did not run joins anew.
    async fn start(&self) -> anyhow::Result<Daemon> {
        match self.up().await {
            Err(error) if self.put_out().await => {
                tracing::warn!(%error, "the other servers' etcd has put this one out: it joins again with nothing");
                forget(&self.state)?;
                self.up().await
            }
            up => up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn member(id: u64, name: &str, last: u8) -> Member {
        Member { id, name: name.to_owned(), peer_urls: vec![peer_url(ip(last))], ..Member::default() }
    }

    #[test]
    fn only_who_has_no_data_and_founds_nothing_has_to_be_let_in() {
        assert_eq!(Start::of(true, false, false), Start::Resume);
        assert_eq!(Start::of(true, true, true), Start::Resume);
        assert_eq!(Start::of(false, true, false), Start::Alone);
        assert_eq!(Start::of(false, false, true), Start::Found);
        assert_eq!(Start::of(false, false, false), Start::Join);
    }

    #[test]
    fn a_member_that_has_voted_never_comes_back_without_its_data() {
        let members = [member(1, "one", 1), member(2, "", 2)];
        assert_eq!(Admission::of(&members, ip(1)), Admission::Replace(1));
        assert_eq!(Admission::of(&members, ip(2)), Admission::Given);
        assert_eq!(Admission::of(&members, ip(3)), Admission::Ask);
    }

    #[test]
    fn etcd_is_told_who_may_speak_to_it() {
        let pki = tempfile::tempdir().expect("a folder");
        let own = Own {
            node: "c-server-0".to_owned(),
            ip: ip(1),
            cluster: "c".to_owned(),
            servers: Servers::default(),
            pki: EtcdPki::prepare(pki.path(), &[]).expect("certificates"),
            state: pki.path().to_owned(),
        };
        let members = [("c-server-0".to_owned(), ip(1)), ("c-server-1".to_owned(), ip(2))];
        let arguments = own.arguments(&members, Start::Found, Path::new("/data"));
        for expected in [
            "--initial-cluster=c-server-0=https://10.0.0.1:2380,c-server-1=https://10.0.0.2:2380",
            "--initial-cluster-state=new",
            "--client-cert-auth=true",
            "--peer-client-cert-auth=true",
            "--listen-client-urls=https://10.0.0.1:2379,https://127.0.0.1:2379",
            "--trusted-ca-file=/var/lib/minik/pki/etcd-ca.crt",
        ] {
            assert!(arguments.iter().any(|argument| argument == expected), "{expected}: {arguments:?}");
        }
        let alone = own.arguments(&members[..1], Start::Alone, Path::new("/data"));
        assert!(alone.contains(&"--initial-cluster=c-server-0=https://10.0.0.1:2380".to_owned()));
        assert!(alone.contains(&"--initial-cluster-state=new".to_owned()));
        let joining = own.arguments(&members, Start::Join, Path::new("/data"));
        assert!(joining.contains(&"--initial-cluster-state=existing".to_owned()));
    }
}
