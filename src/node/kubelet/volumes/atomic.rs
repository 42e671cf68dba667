//! Volumes of files that change all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use jiff::Timestamp;

/// One file of a volume: contents and permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub contents: Vec<u8>,
    pub mode: u32,
    /// Who owns it; root where nobody is named.
    pub owner: Option<u32>,
}

/// The files of a volume by relative path.
pub type Files = BTreeMap<String, File>;

const DATA: &str = "..data";

/// Makes `dir` show exactly `files`. Readers see all of the old or all of the new: files live in a folder of their
/// own, `..data` is a link that is swapped, and the visible names are links through it (the layout people know from
/// any cluster). Nothing is touched when nothing changed. `group` owns the files, where given.
pub fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let data = dir.join(DATA);
    if read(&data, files) {
        return Ok(false);
    }
    let stamp = Timestamp::now().as_nanosecond();
    let fresh = dir.join(format!("..{stamp}"));
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.contents)?;
        // The group may read what it owns; nothing of it is written by containers.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        if group.is_some() || file.owner.is_some() {
            chown(&target, file.owner, group)?;
        }
    }
    let old = fs::read_link(&data).ok();
    let draft = dir.join("..data_tmp");
    let _ = fs::remove_file(&draft);
    symlink(format!("..{stamp}"), &draft)?;
    fs::rename(&draft, &data)?;
    links(dir, files)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

/// Whether `data` holds exactly `files` already.
fn read(data: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &File)| {
        fs::read(data.join(path)).is_ok_and(|contents| contents == file.contents)
    };
    data.exists() && count(data) == files.len() && files.iter().all(same)
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { count(&entry.path()) } else { 1 })
        .sum()
}

/// The visible names: first path components, linked through `..data`; names no longer there go.
fn links(dir: &Path, files: &Files) -> io::Result<()> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = files.keys().map(first).collect();
    for name in &names {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("{DATA}/{name}"), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_all_at_once_and_only_when_changed() {
        let dir = tempfile::tempdir().expect("folder");
        let file = |text: &str| File { contents: text.as_bytes().to_vec(), mode: 0o644, owner: None };
        let files =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), file(v))).collect::<Files>();
        let path = dir.path();
        assert!(write(path, &files(&[("a", "1"), ("sub/b", "2")]), None).expect("written"));
        assert!(!write(path, &files(&[("a", "1"), ("sub/b", "2")]), None).expect("same"));
        assert_eq!(fs::read_to_string(path.join("sub/b")).expect("there"), "2");
        assert!(write(path, &files(&[("a", "3")]), None).expect("changed"));
        assert_eq!(fs::read_to_string(path.join("a")).expect("there"), "3");
        assert!(!path.join("sub").exists());
        let hidden = fs::read_dir(path).expect("folder").flatten().count();
        assert_eq!(hidden, 3, "one data folder, its link and one name");
    }
}
