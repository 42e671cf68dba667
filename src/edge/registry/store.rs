//! The registry's files.
//!
//! ```text
//! blobs/ALGORITHM/HEX                       content, once for all repositories
//! repositories/NAME/_blobs/DIGEST           empty: the repository has the blob
//! repositories/NAME/_manifests/DIGEST       what the manifest is: media type, subject, ...
//! repositories/NAME/_tags/TAG               the digest it means
//! uploads/ID                                what has come so far
//! ```
//!
//! What is named appears whole, by a rename, after what it speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Serialize};

use super::path::{Digest, Reference, checked};

const BLOBS: &str = "_blobs";
const MANIFESTS: &str = "_manifests";
const TAGS: &str = "_tags";

/// What is known of a manifest beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct About {
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) artifact_type: Option<String>,
    /// The digest of what it is about.
    pub(super) subject: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Digests of what it consists of.
    pub(super) parts: Vec<String>,
}

/// A store of images in a folder.
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the store in a folder, and clears away what nothing speaks of any more. Fails when the folder cannot be used.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let store = Self { dir: dir.to_owned() };
        for part in ["blobs", "repositories", "uploads"] {
            fs::create_dir_all(dir.join(part))?;
        }
        store.collect()?;
        Ok(store)
    }

    pub(super) fn blob_file(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn of(&self, name: &str, folder: &str) -> PathBuf {
        self.dir.join("repositories").join(name).join(folder)
    }

    pub(super) fn has_repository(&self, name: &str) -> bool {
        [BLOBS, MANIFESTS].iter().any(|folder| self.of(name, folder).is_dir())
    }

    /// Whether a repository has a blob; its size.
    pub(super) fn blob(&self, name: &str, digest: &Digest) -> Option<u64> {
        let there = self.of(name, BLOBS).join(digest.file()).exists()
            || self.of(name, MANIFESTS).join(digest.file()).exists();
        fs::metadata(self.blob_file(digest)).ok().filter(|_| there).map(|data| data.len())
    }

    /// Says that a repository has a blob that is in the store; returns whether it is.
    pub(super) fn mount(&self, name: &str, digest: &Digest) -> io::Result<bool> {
        if !self.blob_file(digest).exists() {
            return Ok(false);
        }
        put(&self.of(name, BLOBS).join(digest.file()), b"")?;
        Ok(true)
    }

    /// Takes a blob away from a repository, and its content when no other has it; returns whether it was there.
    pub(super) fn remove_blob(&self, name: &str, digest: &Digest) -> io::Result<bool> {
        let removed = gone(fs::remove_file(self.of(name, BLOBS).join(digest.file())))?;
        if removed && !self.repositories()?.iter().any(|other| self.blob(other, digest).is_some()) {
            gone(fs::remove_file(self.blob_file(digest)))?;
        }
        Ok(removed)
    }

    /// A place for what comes; returns its id.
    pub(super) fn begin_upload(&self) -> io::Result<String> {
        let id = uuid::Uuid::new_v4().to_string();
        fs::File::create_new(self.dir.join("uploads").join(&id))?;
        Ok(id)
    }

    /// The file of an upload; `None`: there is none of this id.
    pub(super) fn upload_file(&self, id: &str) -> Option<PathBuf> {
        let id = uuid::Uuid::parse_str(id).ok()?.to_string();
        Some(self.dir.join("uploads").join(id)).filter(|path| path.exists())
    }

    /// Makes an upload a blob of a repository, if it has the digest that was said; returns whether it has.
    pub(super) fn finish_upload(&self, name: &str, upload: &Path, digest: &Digest) -> io::Result<bool> {
        if digest_of(upload, digest.algorithm())? != digest.as_str() {
            return Ok(false);
        }
        let file = self.blob_file(digest);
        fs::create_dir_all(file.parent().unwrap_or(&file))?;
        fs::File::open(upload)?.sync_all()?;
        fs::rename(upload, &file)?;
        put(&self.of(name, BLOBS).join(digest.file()), b"")?;
        Ok(true)
    }

    /// Stores a manifest, under a tag as well if one is said; returns its digest.
    pub(super) fn put_manifest(
        &self,
        name: &str,
        content: &[u8],
        about: &About,
        reference: &Reference,
    ) -> io::Result<Digest> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(_) => Digest::of_file(&format!("sha256-{}", digest_of_bytes(content, "sha256")))
                .ok_or(ErrorKind::InvalidData)?,
        };
        put(&self.blob_file(&digest), content)?;
        let text = serde_json::to_vec(about).map_err(io::Error::other)?;
        put(&self.of(name, MANIFESTS).join(digest.file()), &text)?;
        if let Reference::Tag(tag) = reference {
            put(&self.of(name, TAGS).join(tag), digest.as_str().as_bytes())?;
        }
        Ok(digest)
    }

    /// The digest that a tag means, or the digest itself.
    pub(super) fn resolve(&self, name: &str, reference: &Reference) -> Option<Digest> {
        match reference {
            Reference::Digest(digest) => Some(digest.clone()),
            Reference::Tag(tag) => {
                Digest::parse(&fs::read_to_string(self.of(name, TAGS).join(tag)).ok()?).ok()
            }
        }
    }

    pub(super) fn about(&self, name: &str, digest: &Digest) -> Option<About> {
        serde_json::from_slice(&fs::read(self.of(name, MANIFESTS).join(digest.file())).ok()?).ok()
    }

    /// Removes a tag, or a manifest with all tags that mean it; returns whether it was there.
    pub(super) fn remove_manifest(&self, name: &str, reference: &Reference) -> io::Result<bool> {
        match reference {
            Reference::Tag(tag) => gone(fs::remove_file(self.of(name, TAGS).join(tag))),
            Reference::Digest(digest) => {
                for tag in self.tags(name)? {
                    if self.resolve(name, &Reference::Tag(tag.clone())).as_ref() == Some(digest) {
                        gone(fs::remove_file(self.of(name, TAGS).join(&tag)))?;
                    }
                }
                let removed = gone(fs::remove_file(self.of(name, MANIFESTS).join(digest.file())))?;
                let elsewhere = self.repositories()?.iter().any(|other| self.blob(other, digest).is_some());
                if removed && !elsewhere {
                    gone(fs::remove_file(self.blob_file(digest)))?;
                }
                Ok(removed)
            }
        }
    }

    /// A repository's tags, sorted.
    pub(super) fn tags(&self, name: &str) -> io::Result<Vec<String>> {
        files(&self.of(name, TAGS))
    }

    /// A repository's manifests.
    pub(super) fn manifests(&self, name: &str) -> io::Result<Vec<(Digest, About)>> {
        let of = |file: String| {
            let digest = Digest::of_file(&file)?;
            Some((digest.clone(), self.about(name, &digest)?))
        };
        Ok(files(&self.of(name, MANIFESTS))?.into_iter().filter_map(of).collect())
    }

    /// The names of all repositories, sorted.
    pub(super) fn repositories(&self) -> io::Result<Vec<String>> {
        let root = self.dir.join("repositories");
        let mut names = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root.join(&folder))? {
                let part = entry?.file_name().to_string_lossy().into_owned();
                let name = if folder.is_empty() { part.clone() } else { format!("{folder}/{part}") };
                if part == MANIFESTS || part == BLOBS {
                    names.push(folder.clone());
                } else if checked(&name).is_ok() {
                    folders.push(name);
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Removes uploads that nobody finishes and blobs that no manifest speaks of. Only while nobody pushes.
    fn collect(&self) -> io::Result<()> {
        for upload in files(&self.dir.join("uploads"))? {
            gone(fs::remove_file(self.dir.join("uploads").join(upload)))?;
        }
        let mut used: BTreeSet<Digest> = BTreeSet::new();
        for name in self.repositories()? {
            let mut own: BTreeSet<Digest> = BTreeSet::new();
            for (digest, about) in self.manifests(&name)? {
                own.insert(digest);
                own.extend(about.parts.iter().filter_map(|part| Digest::parse(part).ok()));
            }
            for blob in files(&self.of(&name, BLOBS))? {
                if Digest::of_file(&blob).is_none_or(|digest| !own.contains(&digest)) {
                    gone(fs::remove_file(self.of(&name, BLOBS).join(blob)))?;
                }
            }
            used.extend(own);
        }
        for algorithm in ["sha256", "sha512"] {
            for hex in files(&self.dir.join("blobs").join(algorithm))? {
                if Digest::parse(&format!("{algorithm}:{hex}")).is_ok_and(|digest| !used.contains(&digest)) {
                    gone(fs::remove_file(self.dir.join("blobs").join(algorithm).join(hex)))?;
                }
            }
        }
        Ok(())
    }
}

/// Names of the files in a folder, sorted; none in one that is not there.
fn files(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // One that is being written is not there yet.
        if !name.starts_with(".new-") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes a file as a whole, or not at all.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir)?;
    let fresh = dir.join(format!(".new-{}", uuid::Uuid::new_v4()));
    let mut file = fs::File::create_new(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

/// Whether it was there.
fn gone(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn context(algorithm: &str) -> Context {
    Context::new(if algorithm == "sha512" { &SHA512 } else { &SHA256 })
}

/// The digest of a text, in hexadecimal.
pub(super) fn digest_of_bytes(content: &[u8], algorithm: &str) -> String {
    let mut context = context(algorithm);
    context.update(content);
    hex::encode(context.finish())
}

fn digest_of(path: &Path, algorithm: &str) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut context = context(algorithm);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{algorithm}:{}", hex::encode(context.finish()))),
            length => context.update(&buffer[..length]),
        }
    }
}
