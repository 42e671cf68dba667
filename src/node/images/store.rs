//! The shared store's files.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

use config::image_store::{BLOBS, Index, LOADS, Load, StoredBlob};

/// What went wrong with the store's files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{file} has the digest {actual} and should have {expected}")]
    Digest { file: String, expected: String, actual: String },
    #[error("{0} is not in the store")]
    NoSuchLoad(String),
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> StoreError + '_ {
    |source| StoreError::File { path: path.to_owned(), source }
}

/// Reads all loads; a store that is not there, or was never written, is empty. Fails when it cannot be read.
pub fn read_index(store: &Path) -> Result<Index, StoreError> {
    Ok(Index::new(loads(store)?.into_iter().map(|(_, load)| load).collect()))
}

/// The loads and their files. One that cannot be understood is being written, or was by a later version: it is passed
/// over.
fn loads(store: &Path) -> Result<Vec<(PathBuf, Load)>, StoreError> {
    let dir = store.join(LOADS);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::File { path: dir, source }),
    };
    let mut loads = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(&dir))?.path();
        let text = std::fs::read(&path).map_err(failed(&path))?;
        if let Ok(load) = serde_json::from_slice(&text) {
            loads.push((path, load));
        }
    }
    Ok(loads)
}

/// Reads the blobs of one load back and compares their digests. Fails with the first that differs.
pub fn verify(store: &Path, id: &str) -> Result<(), StoreError> {
    let path = store.join(LOADS).join(format!("{id}.json"));
    let text = std::fs::read(&path).map_err(|_| StoreError::NoSuchLoad(id.to_owned()))?;
    let load: Load = serde_json::from_slice(&text).map_err(|_| StoreError::NoSuchLoad(id.to_owned()))?;
    // The processor is what this waits for: every one of them takes the next file that is left.
    let left = Mutex::new(load.blobs.iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || std::iter::from_fn(next).try_for_each(|blob| verify_blob(store, blob));
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(load.blobs.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn verify_blob(store: &Path, blob: &StoredBlob) -> Result<(), StoreError> {
    let actual = digest_of(&store.join(BLOBS).join(&blob.file))?;
    match actual == blob.digest {
        true => Ok(()),
        false => {
            let (file, expected) = (blob.file.clone(), blob.digest.clone());
            Err(StoreError::Digest { file, expected, actual })
        }
    }
}

fn digest_of(path: &Path) -> Result<String, StoreError> {
    let mut file = std::fs::File::open(path).map_err(failed(path))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed(path))? {
            0 => return Ok(format!("sha256:{}", hex::encode(context.finish()))),
            length => context.update(&buffer[..length]),
        }
    }
}

/// Removes the blobs that no name needs and says the rest in one load; with nothing named everything goes. Only for the
/// one process that has the store to write. Returns the bytes freed. Fails when a file cannot be changed.
pub fn compact(store: &Path, keep: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
    let loads = loads(store)?;
    let time = loads.iter().map(|(_, load)| load.time).max().unwrap_or_default();
    let mut index = Index::new(loads.iter().map(|(_, load)| load.clone()).collect());
    index.names.retain(|name, _| keep(name));
    let used: BTreeSet<String> = index.used().into_iter().map(ToOwned::to_owned).collect();
    let mut images = Vec::new();
    for (name, image) in &index.names {
        let mut image = image.clone();
        image.names = vec![name.clone()];
        images.push(image);
    }
    let blobs: Vec<_> = index.blobs.values().filter(|blob| used.contains(&blob.digest)).cloned().collect();
    let kept: BTreeSet<&str> = blobs.iter().map(|blob| blob.file.as_str()).collect();
    let dir = store.join(BLOBS);
    let mut freed = 0;
    let mut unused = Vec::new();
    for entry in std::fs::read_dir(&dir).into_iter().flatten() {
        let entry = entry.map_err(failed(&dir))?;
        if !kept.contains(entry.file_name().to_string_lossy().as_ref()) {
            freed += entry.metadata().map(|data| data.len()).unwrap_or_default();
            unused.push(entry.path());
        }
    }
    // First what is said, then what it no longer says: a reader in between misses nothing.
    let whole = Load { time, images, blobs, removed: Vec::new() };
    let text = serde_json::to_vec(&whole).map_err(std::io::Error::other).map_err(failed(store))?;
    let path = store.join(LOADS).join("whole.json");
    let fresh = path.with_extension("new");
    std::fs::create_dir_all(store.join(LOADS)).map_err(failed(store))?;
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path)).map_err(failed(&path))?;
    for old in loads.iter().map(|(old, _)| old).filter(|old| **old != path).chain(&unused) {
        std::fs::remove_file(old).map_err(failed(old))?;
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use config::image_store::StoredImage;

    fn digest(content: &str) -> String {
        let digest = ring::digest::digest(&SHA256, content.as_bytes());
        format!("sha256:{}", hex::encode(digest))
    }

    fn put(store: &Path, time: i64, name: &str, content: &str) -> String {
        let (id, file) = (format!("load-{time}"), format!("{time}-0"));
        for dir in [BLOBS, LOADS] {
            std::fs::create_dir_all(store.join(dir)).expect("made");
        }
        std::fs::write(store.join(BLOBS).join(&file), content).expect("written");
        let blob = StoredBlob { digest: digest(content), size: content.len() as u64, file, alias: None };
        let image = StoredImage {
            names: vec![name.to_owned()],
            media_type: "m".to_owned(),
            digest: digest(content),
            size: 1,
            source: None,
            blobs: vec![digest(content)],
            children: BTreeMap::new(),
        };
        let load = Load { time, images: vec![image], blobs: vec![blob], removed: vec![] };
        let text = serde_json::to_vec(&load).expect("plain data");
        std::fs::write(store.join(LOADS).join(format!("{id}.json")), text).expect("written");
        id
    }

    #[test]
    fn a_store_that_was_never_written_is_empty() {
        let dir = tempfile::tempdir().expect("folder");
        assert!(read_index(dir.path()).expect("readable").names.is_empty());
        assert!(matches!(verify(dir.path(), "x"), Err(StoreError::NoSuchLoad(_))));
    }

    #[test]
    fn a_changed_blob_is_found() {
        let dir = tempfile::tempdir().expect("folder");
        let id = put(dir.path(), 1, "a", "one");
        verify(dir.path(), &id).expect("good");
        std::fs::write(dir.path().join(BLOBS).join("1-0"), "two").expect("written");
        assert!(matches!(verify(dir.path(), &id), Err(StoreError::Digest { .. })));
    }

    #[test]
    fn compacting_keeps_what_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        put(dir.path(), 1, "a", "old");
        put(dir.path(), 2, "a", "new");
        put(dir.path(), 3, "b", "other");
        std::fs::write(dir.path().join(LOADS).join("half.json"), "{\"ti").expect("written");
        assert_eq!(compact(dir.path(), |_| true).expect("compacted"), 3);
        let index = read_index(dir.path()).expect("readable");
        assert_eq!(index.names.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(index.names["a"].digest, digest("new"));
        assert!(index.is_complete(&index.names["a"]));
        assert_eq!(compact(dir.path(), |name| name == "b").expect("compacted"), 3);
        assert_eq!(compact(dir.path(), |_| false).expect("compacted"), 5);
        assert!(read_index(dir.path()).expect("readable").names.is_empty());
    }
}
