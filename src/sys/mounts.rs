//! Mounts: what a node container must change about its own before containers can run in it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mount that could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {source}")]
pub struct MountError {
    pub what: &'static str,
    pub path: String,
    pub source: io::Error,
}

/// One change of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make everything below shared, so that bind mounts with propagation work in Pods.
    Shared(PathBuf),
    /// Make the file system writable.
    Writable(PathBuf),
    /// Make this mount point writable and leave the file system's other mounts alone: cgroup v1 controllers are
    /// "busy" for a plain remount inside a container.
    WritableHere(PathBuf),
}

/// What must change, given /proc/self/mountinfo: a shared root, a writable /sys and writable cgroups.
pub fn plan(mountinfo: &str) -> Vec<Change> {
    let mut changes = vec![Change::Shared("/".into())];
    for mount in mountinfo.lines().filter_map(parse) {
        let read_only = mount.options.split(',').any(|option| option == "ro");
        match mount.kind {
            "sysfs" if read_only && mount.point == "/sys" => changes.push(Change::Writable("/sys".into())),
            "cgroup" | "cgroup2" if read_only => changes.push(Change::WritableHere(mount.point.into())),
            _ => {}
        }
    }
    changes
}

struct Mount<'a> {
    point: &'a str,
    options: &'a str,
    kind: &'a str,
}

/// One line of mountinfo: `id parent dev root point options [tags] - kind source super`.
fn parse(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    Some(Mount { point: left.next()?, options: left.next()?, kind: right.split(' ').next()? })
}

/// Carries out one change.
pub fn apply(change: &Change) -> Result<(), MountError> {
    let (what, path, flags) = match change {
        Change::Shared(path) => ("make shared", path, MsFlags::MS_REC | MsFlags::MS_SHARED),
        Change::Writable(path) => ("remount writable", path, MsFlags::MS_REMOUNT),
        Change::WritableHere(path) => {
            ("remount writable", path, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | hardening())
        }
    };
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).map_err(|errno| MountError {
        what,
        path: path.display().to_string(),
        source: errno.into(),
    })
}

fn hardening() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Prepares this container's mounts.
pub fn prepare() -> Result<(), MountError> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|source| MountError {
        what: "read",
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    plan(&text).iter().try_for_each(apply)
}

/// Mounts a tmpfs of at most `size` bytes (`None`: half of memory, the kernel's default) at `target`.
pub fn tmpfs(target: &Path, size: Option<u64>) -> Result<(), MountError> {
    let options = size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).map_err(|errno| {
        MountError { what: "mount tmpfs at", path: target.display().to_string(), source: errno.into() }
    })
}

/// Bind-mounts `source` on `target`, which must exist and be of the same kind.
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).map_err(
        |errno| MountError {
            what: "bind mount at",
            path: target.display().to_string(),
            source: errno.into(),
        },
    )
}

/// Mounts a layered file system, or a folder of one, for reading only, and so that no program in it can be run here.
/// `options` are those of the layers.
pub fn layers(kind: &str, source: &str, target: &Path, options: &[String]) -> Result<(), MountError> {
    let guard = MsFlags::MS_RDONLY | hardening();
    let failed = |errno: nix::errno::Errno| MountError {
        what: "mount an image at",
        path: target.display().to_string(),
        source: errno.into(),
    };
    if kind == "bind" {
        mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
        let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | guard;
        let guarded = mount(None::<&str>, target, None::<&str>, again, None::<&str>);
        return guarded.map_err(|errno| {
            let _ = umount2(target, MntFlags::MNT_DETACH);
            failed(errno)
        });
    }
    // What is a flag to the kernel is none to the file system.
    let words = ["ro", "rw", "rbind", "bind"];
    let own: Vec<&str> = options.iter().map(String::as_str).filter(|word| !words.contains(word)).collect();
    mount(Some(source), target, Some(kind), guard, Some(own.join(",").as_str())).map_err(failed)
}

/// Mounts an NFS export (`server:/path`) at `target`; `address` is the server's. The kernel does the talking.
pub fn nfs(source: &str, target: &Path, address: IpAddr, read_only: bool) -> Result<(), MountError> {
    let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let options = format!("addr={address},vers=4.2,clientaddr=0.0.0.0");
    mount(Some(source), target, Some("nfs4"), flags, Some(options.as_str())).map_err(|errno| {
        let why = match errno {
            nix::errno::Errno::ENODEV => {
                io::Error::other("this machine's kernel has no NFS client (on the host: modprobe nfs)")
            }
            errno => errno.into(),
        };
        MountError { what: "mount NFS at", path: target.display().to_string(), source: why }
    })
}

/// Tells whether something is mounted at exactly `target`.
pub fn is_mounted(target: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse).any(|mount| Path::new(mount.point) == target)
}

/// Takes away every mount at or below `dir`, deepest first.
pub fn unmount_below(dir: &Path) -> Result<(), MountError> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> =
        text.lines().filter_map(parse).map(|m| m.point).filter(|p| Path::new(p).starts_with(dir)).collect();
    points.sort_unstable_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        umount2(point, MntFlags::MNT_DETACH).map_err(|errno| MountError {
            what: "unmount",
            path: point.to_owned(),
            source: errno.into(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_only_what_is_read_only() {
        let info = "\
22 1 0:20 / / rw,relatime - overlay overlay rw
23 22 0:21 / /sys ro,nosuid - sysfs sysfs ro
24 23 0:22 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw
25 24 0:23 /docker/x /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 /docker/x /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
";
        assert_eq!(
            plan(info),
            [
                Change::Shared("/".into()),
                Change::Writable("/sys".into()),
                Change::WritableHere("/sys/fs/cgroup/cpu,cpuacct".into()),
            ]
        );
        let v2 = "30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(plan(v2), [Change::Shared("/".into()), Change::WritableHere("/sys/fs/cgroup".into())]);
    }
}
