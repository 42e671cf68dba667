//! The form of a backup: a compressed archive of what it says of itself and the store's file, with that one's checksum.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::BackupError;
use crate::images::digest::Hasher;
use crate::node_image::archive;
use crate::record::ClusterRecord;
use crate::spec::ClusterName;

const ABOUT: &str = "about.json";
const STORE: &str = "store.redb";
const ENDING: &str = ".tar.gz";
/// The version of the form; a later one is refused, not guessed at.
const VERSION: u32 = 1;

/// What a backup says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    version: u32,
    pub created: String,
    /// The version of minik that made it.
    pub minik: String,
    pub revision: u64,
    pub objects: usize,
    pub sha256: String,
    pub record: ClusterRecord,
}

/// A backup, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupInfo {
    pub name: String,
    pub cluster: String,
    pub created: String,
    pub objects: usize,
    pub path: PathBuf,
}

impl About {
    pub(super) fn of(record: ClusterRecord, (revision, objects): (u64, usize), store: &[u8]) -> Self {
        Self {
            version: VERSION,
            created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            minik: crate::labels::THIS_VERSION.to_owned(),
            revision,
            objects,
            sha256: Hasher::of(store),
            record,
        }
    }
}

/// A folder of backups.
#[derive(Clone, Debug)]
pub struct Backups(PathBuf);

impl Backups {
    /// The folder in which this user's backups are; `None` where the environment tells of no home.
    pub fn of_user(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let data = set("XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(Path::new(&set("HOME")?).join(".local/share")))?;
        Some(Self::at(data.join("minik/backups")))
    }

    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn path(&self, name: &ClusterName) -> PathBuf {
        self.0.join(format!("{name}{ENDING}"))
    }

    /// All that can be read, by name.
    ///
    /// # Errors
    ///
    /// The folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<BackupInfo>, BackupError> {
        let unreadable = |source| BackupError::File { path: self.0.clone(), source };
        let files = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(unreadable)?,
        };
        let mut all = Vec::new();
        for file in files {
            let file = file.map_err(unreadable)?.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(ENDING)?.parse().ok());
            all.extend(name.and_then(|name| self.info(&name).ok()));
        }
        all.sort_by(|a: &BackupInfo, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// What lists show of one.
    ///
    /// # Errors
    ///
    /// It is not there, or no backup.
    pub fn info(&self, name: &ClusterName) -> Result<BackupInfo, BackupError> {
        let (about, _) = self.open(name)?;
        Ok(BackupInfo {
            name: name.to_string(),
            cluster: about.record.spec.name.to_string(),
            created: about.created,
            objects: about.objects,
            path: self.path(name),
        })
    }

    /// Removes a backup; returns whether it was there.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn delete(&self, name: &ClusterName) -> Result<bool, BackupError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true).map_err(|source| self.file_error(name, source)),
        }
    }

    /// Fails when the name is taken.
    pub(super) fn vacant(&self, name: &ClusterName) -> Result<(), BackupError> {
        match self.path(name).exists() {
            true => Err(BackupError::Exists(name.to_string())),
            false => Ok(()),
        }
    }

    /// Writes a backup, whole or not at all. Fails when the name is taken.
    pub(super) fn write(
        &self,
        name: &ClusterName,
        about: &About,
        store: &[u8],
    ) -> Result<BackupInfo, BackupError> {
        let written = || {
            fs::create_dir_all(&self.0)?;
            let text = serde_json::to_vec(about)?;
            let parts = [(Path::new(ABOUT), text.as_slice(), 0o600), (Path::new(STORE), store, 0o600)];
            // Only its owner may read it, as temporary files are made.
            let mut packed = GzEncoder::new(tempfile::NamedTempFile::new_in(&self.0)?, Compression::fast());
            packed.write_all(&archive(parts.into_iter())?)?;
            let file = packed.finish()?;
            file.as_file().sync_all()?;
            file.persist_noclobber(self.path(name)).map_err(|error| error.error)?;
            File::open(&self.0)?.sync_all()
        };
        match written() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(BackupError::Exists(name.to_string()))
            }
            written => written.map_err(|source| self.file_error(name, source)),
        }?;
        self.info(name)
    }

    /// Reads a backup and holds the store's file against its checksum.
    pub(super) fn read(&self, name: &ClusterName) -> Result<(About, Vec<u8>), BackupError> {
        let (about, mut archive) = self.open(name)?;
        let bad = |why: String| BackupError::Bad { name: name.to_string(), why };
        let mut entries = archive.entries().map_err(|error| bad(error.to_string()))?;
        let mut store = Vec::new();
        let read = match entries.nth(1) {
            Some(entry) => entry.and_then(|mut entry| entry.read_to_end(&mut store)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|error| bad(error.to_string()))?;
        match Hasher::of(&store) == about.sha256 {
            true => Ok((about, store)),
            false => Err(bad("what it holds does not have the checksum that was written down".to_owned())),
        }
    }

    /// What a backup says of itself, and its archive from the beginning.
    fn open(&self, name: &ClusterName) -> Result<(About, Packed), BackupError> {
        let open = || match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BackupError::NoSuch(name.to_string()))
            }
            file => Ok(tar::Archive::new(GzDecoder::new(file.map_err(|e| self.file_error(name, e))?))),
        };
        let bad = |why: String| BackupError::Bad { name: name.to_string(), why };
        let mut archive = open()?;
        let mut text = String::new();
        let first = archive.entries().and_then(|mut entries| match entries.next() {
            Some(entry) => entry?.read_to_string(&mut text),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        first.map_err(|error| bad(error.to_string()))?;
        let about: About = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        match about.version {
            VERSION => Ok((about, open()?)),
            other => Err(bad(format!("it has the form {other}, this program reads {VERSION}"))),
        }
    }

    fn file_error(&self, name: &ClusterName, source: io::Error) -> BackupError {
        BackupError::File { path: self.path(name), source }
    }
}

type Packed = tar::Archive<GzDecoder<File>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::test_drawn;
    use crate::spec::ClusterSpec;

    fn about(store: &[u8]) -> About {
        let spec = ClusterSpec::new("dev".parse().expect("good name"), 3).expect("good");
        About::of(ClusterRecord::new(spec, test_drawn()), (12, 3), store)
    }

    #[test]
    fn what_is_written_is_read_listed_and_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let backups = Backups::at(folder.path().join("deep/er"));
        assert_eq!(backups.list().expect("none"), []);
        let name: ClusterName = "one".parse().expect("good name");
        let info = backups.write(&name, &about(b"data"), b"data").expect("written");
        assert_eq!((info.cluster.as_str(), info.objects), ("dev", 3));
        assert_eq!(backups.list().expect("one"), [info]);
        let (read, store) = backups.read(&name).expect("readable");
        assert_eq!((read.revision, store.as_slice()), (12, b"data".as_slice()));
        let again = backups.write(&name, &about(b"other"), b"other");
        assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
        assert_eq!(backups.read(&name).expect("readable").1, b"data", "the one that was there stays");
        assert!(backups.delete(&name).expect("deleted") && !backups.delete(&name).expect("gone"));
        assert!(matches!(backups.read(&name), Err(BackupError::NoSuch(_))));
        assert_eq!(fs::read_dir(folder.path().join("deep/er")).expect("a folder").count(), 0);
    }

    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let backups = Backups::at(folder.path().to_owned());
        let name: ClusterName = "one".parse().expect("good name");
        backups.write(&name, &about(b"data"), b"other data").expect("written");
        let wrong = backups.read(&name).map(drop).expect_err("no good").to_string();
        assert!(wrong.contains("checksum"), "{wrong}");
        let path = backups.path(&name);
        let whole = fs::read(&path).expect("a file");
        for cut in [0, 20, whole.len() / 2] {
            fs::write(&path, &whole[..cut]).expect("a file");
            assert!(matches!(backups.read(&name), Err(BackupError::Bad { .. })), "cut at {cut}");
        }
    }

    #[test]
    fn the_folder_is_the_users() {
        let of = |pairs: &'static [(&str, &str)]| {
            let get =
                move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
            Backups::of_user(get).map(|backups| backups.0)
        };
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.local/share/minik/backups".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), Some("/d/minik/backups".into()));
        assert_eq!(of(&[("XDG_DATA_HOME", "")]), None);
    }
}
