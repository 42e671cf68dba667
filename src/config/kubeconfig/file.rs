//! Kubeconfig files: locks, atomic writes.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::KubeconfigError;
use super::document::Document;

/// Changes one file under its lock; `change` returns whether there is anything to write. With `create` a missing file
/// is made. Returns what `change` returned.
pub(super) fn change(
    path: &Path,
    create: bool,
    change: impl FnOnce(&mut Document) -> bool,
) -> Result<bool, KubeconfigError> {
    let failed = |source| KubeconfigError::File { path: path.to_owned(), source };
    let target = resolve(path).map_err(failed)?;
    if !create && !target.exists() {
        return Ok(false);
    }
    if let Some(dir) = target.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(failed)?;
    }
    let _lock = lock(&target).map_err(failed)?;
    let text = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let mut document = Document::parse(&text, path)?;
    if !change(&mut document) {
        return Ok(false);
    }
    replace(&target, &document.to_yaml(path)?).map_err(failed)?;
    Ok(true)
}

/// Follows symbolic links, so that a rename replaces the file and not the link.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other("too many symbolic links"))
}

/// Takes the lock beside the file; it is released when the handle is dropped. The lock file stays: removing it would
/// let two processes lock two different files of the same name.
fn lock(target: &Path) -> std::io::Result<File> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".minik-lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(target.with_file_name(name))?;
    file.lock()?;
    Ok(file)
}

/// Writes beside the file and renames over it; readers see the old text or the new one. Only its owner may read it.
fn replace(target: &Path, text: &str) -> std::io::Result<()> {
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".kubeconfig-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    // Under sudo the file may be somebody else's: it stays theirs.
    if let Ok(old) = fs::metadata(target) {
        let _ = std::os::unix::fs::chown(file.path(), Some(old.uid()), Some(old.gid()));
    }
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, files, merge, remove};
    use super::*;

    fn entry(name: &str) -> Entry {
        let text = || name.to_owned();
        Entry { name: text(), server: text(), ca: text(), certificate: text(), key: text() }
    }

    #[test]
    fn a_new_file_is_private() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("deep/er/config");
        assert_eq!(merge(std::slice::from_ref(&path), &entry("a"), true).expect("merged"), path);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert!(remove(std::slice::from_ref(&path), "a").expect("removed"));
        assert!(!remove(&[dir.path().join("none")], "a").expect("nothing to do"));
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().expect("folder");
        let (link, real) = (dir.path().join("link"), dir.path().join("real"));
        std::os::unix::fs::symlink("real", &link).expect("link");
        merge(std::slice::from_ref(&link), &entry("a"), true).expect("merged");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert!(fs::read_to_string(&real).expect("text").contains("current-context: a"));
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("config");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = path.clone();
                scope.spawn(move || merge(&[path], &entry(&format!("c{n}")), true).expect("merged"));
            }
        });
        let text = fs::read_to_string(&path).expect("text");
        for n in 0..8 {
            assert!(text.contains(&format!("name: c{n}")), "{text}");
        }
    }

    #[test]
    fn a_malformed_file_is_left_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("config");
        fs::write(&path, "clusters: 7\n").expect("written");
        assert!(merge(std::slice::from_ref(&path), &entry("a"), true).is_err());
        assert_eq!(fs::read_to_string(&path).expect("text"), "clusters: 7\n");
    }

    #[test]
    fn the_files_are_kubectls() {
        let list = |vars: &'static [(&'static str, &'static str)]| {
            files(|name| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(list(&[("HOME", "/h")]).expect("a place"), [PathBuf::from("/h/.kube/config")]);
        let two = list(&[("HOME", "/h"), ("KUBECONFIG", "/a::/b")]).expect("a place");
        assert_eq!(two, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(list(&[("KUBECONFIG", "")]).is_err());
        let dir = tempfile::tempdir().expect("folder");
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        let both = [first.clone(), second.clone()];
        assert_eq!(merge(&both, &entry("a"), true).expect("merged"), second, "none exists: the last");
        fs::write(&first, "").expect("written");
        assert_eq!(merge(&both, &entry("b"), true).expect("merged"), first, "the first that exists");
    }
}
