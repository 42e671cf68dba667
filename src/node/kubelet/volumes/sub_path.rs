//! subPath and subPathExpr.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};

use crate::kubelet::container::expand;
use sys::mounts;

/// Replaces every variable; one that is not set is an error, because the path would be another one than was meant.
pub fn expand_all(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let missing = std::cell::RefCell::new(Vec::new());
    let lookup = |name: &str| {
        let value = env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if value.is_none() {
            missing.borrow_mut().push(name.to_owned());
        }
        value
    };
    let path = expand(text, lookup);
    match missing.into_inner().first() {
        Some(name) => Err(format!("missing value for \"{name}\"")),
        None => Ok(path),
    }
}

/// Where a container's part of a volume is bound, in upstream's layout.
pub fn place(dir: &Path, volume: &str, container: &str, index: usize) -> PathBuf {
    dir.join("volume-subpaths").join(volume).join(container).join(index.to_string())
}

/// Binds `path` inside `volume` at `place`. The path is opened beneath the volume and what was opened is what is bound:
/// whatever a container does to links meanwhile, nothing outside its volume is reached. Missing folders are made.
///
/// Fails when the path leaves the volume or cannot be made.
pub fn bind(volume: &Path, path: &str, place: &Path) -> Result<(), String> {
    let found = open_inside(volume, path)?;
    let folder = fstat(&found).is_ok_and(|stat| stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR);
    let make = || {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        if mounts::is_mounted(place) {
            mounts::unmount_below(place).map_err(std::io::Error::other)?;
        }
        if folder { fs::create_dir_all(place) } else { fs::File::create(place).map(drop) }
    };
    make().map_err(|error| format!("{}: {error}", place.display()))?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    mounts::bind(&source, place).map_err(|error| error.to_string())
}

/// Reads a file inside a volume, at most `limit` bytes of it; `None` where there is none. Like [`bind`] it reaches nothing
/// outside.
///
/// # Errors
///
/// When the path leaves the volume, is no file, or the file is longer than the limit.
pub fn read_inside(volume: &Path, path: &str, limit: u64) -> Result<Option<String>, String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err("it leaves the volume".to_owned());
    }
    let root = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY, Mode::empty())
        .map_err(|errno| format!("{}: {}", volume.display(), errno.desc()))?;
    // A pipe that a container left there must not hold the reader up.
    let file = match beneath(&root, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) {
        Err(Errno::ENOENT) => return Ok(None),
        other => fs::File::from(other.map_err(explain)?),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    if metadata.len() > limit {
        return Err(format!("it has {} bytes, more than {limit}", metadata.len()));
    }
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(Some(text))
}

/// Opens a path inside a volume, making folders that are missing. A link out of the volume is refused.
fn open_inside(volume: &Path, path: &str) -> Result<OwnedFd, String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err("it leaves the volume".to_owned());
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(volume, flags | OFlag::O_DIRECTORY, Mode::empty())
        .map_err(|errno| format!("{}: {}", volume.display(), errno.desc()))?;
    match beneath(&root, path, flags) {
        Err(Errno::ENOENT) => {
            make_folders(&root, path).map_err(explain)?;
            beneath(&root, path, flags).map_err(explain)
        }
        other => other.map_err(explain),
    }
}

fn explain(errno: Errno) -> String {
    match errno {
        Errno::EXDEV | Errno::ELOOP => "it leaves the volume".to_owned(),
        errno => errno.desc().to_owned(),
    }
}

fn beneath(root: &impl AsFd, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Makes what is missing of `path`, one folder at a time, each inside the one that was opened before it.
fn make_folders(root: &OwnedFd, path: &str) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // What is made is as open as the volume itself; the umask must not decide.
    let mode = Mode::from_bits_truncate(fstat(root)?.st_mode & 0o7777);
    let mut at = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let above = if at.is_empty() { ".".to_owned() } else { at.clone() };
        at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
        match beneath(root, &at, flags) {
            Ok(_) => {}
            Err(Errno::ENOENT) => {
                let parent = beneath(root, &above, flags)?;
                mkdirat(&parent, part, mode)?;
                fchmod(beneath(root, &at, flags)?, mode)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().expect("folder");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("link");
        fs::create_dir(dir.path().join("real")).expect("folder");
        std::os::unix::fs::symlink("real", dir.path().join("within")).expect("link");
        let check =
            |path: &str, fine: bool| assert_eq!(open_inside(dir.path(), path).is_ok(), fine, "{path}");
        check("a/b", true);
        check("../x", false);
        check("/etc", false);
        check("out", false);
        check("out/made", false);
        check("within/made", true);
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o3777)).expect("mode");
        check("open", true);
        let made = fs::metadata(dir.path().join("open")).expect("made");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&made) & 0o7777, 0o3777, "as the volume");
        assert!(dir.path().join("a/b").is_dir());
        assert!(dir.path().join("real/made").is_dir());
        assert!(!Path::new("/etc/made").exists());
    }

    #[test]
    fn files_are_read_inside_only() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("env"), "A='1'").expect("written");
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("out")).expect("link");
        let read = |path: &str| read_inside(dir.path(), path, 10);
        assert_eq!(read("env"), Ok(Some("A='1'".to_owned())));
        assert_eq!(read("none"), Ok(None));
        assert_eq!(read("out"), Err("it leaves the volume".to_owned()));
        assert_eq!(read("../env"), Err("it leaves the volume".to_owned()));
        assert_eq!(read("."), Err("it is no file".to_owned()));
        fs::write(dir.path().join("env"), "A='123456789'").expect("written");
        assert_eq!(read("env"), Err("it has 13 bytes, more than 10".to_owned()));
    }

    #[test]
    fn every_variable_must_be_set() {
        let env = [("A".to_owned(), "x".to_owned())];
        assert_eq!(expand_all("$(A)/b", &env), Ok("x/b".to_owned()));
        assert_eq!(expand_all("$(B)/b", &env), Err("missing value for \"B\"".to_owned()));
    }
}
