//! Which Pod has which address of the node's range: one file per address, named by it.
//!
//! The folder is on /run, as the Pods' interfaces are in the kernel: both outlive this program and the runtime, and both
//! end with the node. Files are laid out as the reference plugin host-local does.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};

/// Where the search begins the next time.
const LAST: &str = "last_reserved_ip.0";
const LOCK: &str = "lock";

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("every address of {0} is in use")]
    Exhausted(Ipv4Net),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// Whose an address is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub container: &'a str,
    pub interface: &'a str,
    /// The file that holds the Pod's network namespace.
    pub namespace: &'a str,
}

impl Owner<'_> {
    fn text(&self) -> String {
        format!("{}\r\n{}\r\n{}", self.container, self.interface, self.namespace)
    }

    /// The namespace's file is not known any more when a Pod ends.
    fn has(&self, text: &str) -> bool {
        let mut lines = text.lines();
        lines.next() == Some(self.container) && lines.next() == Some(self.interface)
    }
}

/// The addresses in use.
#[derive(Clone, Debug)]
pub struct Leases {
    dir: PathBuf,
}

impl Leases {
    /// Kept in `dir`, which is made when it is missing.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// An address of `network` for a Pod: the one it has already, or a free one, those that were free for the longest
    /// time first. The network's first address is the gateway's.
    ///
    /// Fails when none is free, and when the folder cannot be written to.
    pub fn take(&self, network: Ipv4Net, owner: Owner<'_>) -> Result<Ipv4Addr, LeaseError> {
        let _lock = self.lock()?;
        let mut taken = self.all()?;
        if let Some((address, _)) =
            taken.iter().find(|(address, text)| network.contains(address) && owner.has(text))
        {
            return Ok(*address);
        }
        let last = fs::read_to_string(self.dir.join(LAST)).ok().and_then(|text| text.trim().parse().ok());
        let found = match free(network, last, &taken) {
            Some(address) => address,
            None => {
                // Those whose end nobody told: their namespaces are no more.
                taken.retain(|(address, text)| {
                    let gone = text.lines().nth(2).is_some_and(|path| !Path::new(path).exists());
                    !(gone && fs::remove_file(self.file(*address)).is_ok())
                });
                free(network, last, &taken).ok_or(LeaseError::Exhausted(network))?
            }
        };
        self.write(&found.to_string(), &owner.text())?;
        self.write(LAST, &found.to_string())?;
        Ok(found)
    }

    /// Gives back what a Pod has; having nothing is no error.
    pub fn release(&self, owner: Owner<'_>) -> Result<(), LeaseError> {
        let _lock = self.lock()?;
        for (address, _) in self.all()?.iter().filter(|(_, text)| owner.has(text)) {
            let path = self.file(*address);
            fs::remove_file(&path).map_err(|source| LeaseError::File { path, source })?;
        }
        Ok(())
    }

    /// Whether a Pod has an address.
    pub fn has(&self, owner: Owner<'_>) -> Result<bool, LeaseError> {
        Ok(self.all()?.iter().any(|(_, text)| owner.has(text)))
    }

    fn file(&self, address: Ipv4Addr) -> PathBuf {
        self.dir.join(address.to_string())
    }

    /// Held until it is dropped, whatever becomes of this process.
    fn lock(&self) -> Result<Flock<OwnedFd>, LeaseError> {
        let path = self.dir.join(LOCK);
        let failed = |source| LeaseError::File { path: path.clone(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let file =
            fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        Flock::lock(OwnedFd::from(file), FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
    }

    fn all(&self) -> Result<Vec<(Ipv4Addr, String)>, LeaseError> {
        let failed = |source| LeaseError::File { path: self.dir.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(address) = name.to_str().and_then(|name| name.parse().ok()) {
                all.push((address, fs::read_to_string(self.file(address)).unwrap_or_default()));
            }
        }
        Ok(all)
    }

    /// Renamed into place: whoever is killed here leaves no address that belongs to nobody.
    fn write(&self, name: &str, text: &str) -> Result<(), LeaseError> {
        let path = self.dir.join(name);
        let draft = self.dir.join(format!(".{name}"));
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| LeaseError::File { path, source })
    }
}

/// The first free address after `last`, round and round.
fn free(network: Ipv4Net, last: Option<Ipv4Addr>, taken: &[(Ipv4Addr, String)]) -> Option<Ipv4Addr> {
    let gateway = gateway(network);
    let all = || network.hosts().filter(|address| *address != gateway);
    let after = all().filter(|address| last.is_none_or(|last| *address > last));
    after.chain(all()).find(|address| taken.iter().all(|(taken, _)| taken != address))
}

/// The node's own address in its Pods' network.
pub fn gateway(network: Ipv4Net) -> Ipv4Addr {
    network.hosts().next().unwrap_or_else(|| network.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<'a>(container: &'a str, namespace: &'a str) -> Owner<'a> {
        Owner { container, interface: "eth0", namespace }
    }

    #[test]
    fn addresses_go_round_and_come_back() {
        let dir = tempfile::tempdir().expect("folder");
        let leases = Leases::at(dir.path().join("minik"));
        let network: Ipv4Net = "10.42.1.0/29".parse().expect("network");
        let here = dir.path().display().to_string();
        let take = |name: &str| leases.take(network, owner(name, &here)).map(|ip| ip.octets()[3]);
        assert_eq!([take("a").expect("a"), take("b").expect("b")], [2, 3]);
        assert_eq!(take("a").expect("asked again"), 2, "the same container keeps its address");
        leases.release(owner("a", "")).expect("given back");
        assert_eq!(take("c").expect("c"), 4, "one that was free for longer comes first");
        assert_eq!([take("d").expect("d"), take("e").expect("e")], [5, 6]);
        assert_eq!(take("f").expect("round"), 2);
        assert!(matches!(take("g"), Err(LeaseError::Exhausted(_))));
        assert!(leases.has(owner("f", "")).expect("read"));
        leases.release(owner("nobody", "")).expect("nothing to give back");
    }

    #[test]
    fn what_a_crash_left_is_found_when_nothing_else_is_free() {
        let dir = tempfile::tempdir().expect("folder");
        let leases = Leases::at(dir.path().to_owned());
        let network: Ipv4Net = "10.42.1.0/30".parse().expect("network");
        let lost = leases.take(network, owner("lost", "/nonexistent/namespace")).expect("the only one");
        let here = dir.path().display().to_string();
        assert_eq!(leases.take(network, owner("next", &here)).expect("taken over"), lost);
    }
}
