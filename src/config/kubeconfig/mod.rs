//! The user's kubeconfig: one cluster's entries put in and taken out, everybody else's left as they are.
//!
//! Files are changed under a lock and replaced by a rename, so neither a crash nor two commands at once lose anything.
//! Documents are kept as generic data: fields this program does not know survive (comments do not).

mod document;
mod file;

use std::path::{Path, PathBuf};

pub use document::Entry;

/// Why a kubeconfig could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot change {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a kubeconfig: {why}")]
    Malformed { path: PathBuf, why: String },
    #[error("no place for a kubeconfig: neither KUBECONFIG nor HOME is set")]
    NoPlace,
}

/// The kubeconfig files in kubectl's order: those of `KUBECONFIG`, else `~/.kube/config`.
pub fn files(get: impl Fn(&str) -> Option<String>) -> Result<Vec<PathBuf>, KubeconfigError> {
    let listed: Vec<PathBuf> = get("KUBECONFIG")
        .iter()
        .flat_map(|list| list.split(':'))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let home = get("HOME").filter(|home| !home.is_empty()).ok_or(KubeconfigError::NoPlace)?;
    Ok(vec![Path::new(&home).join(".kube/config")])
}

/// Puts an entry into the file that kubectl would write to: the first that exists, else the last. With `switch` its
/// context becomes the current one, and the one before is remembered. Returns the file.
pub fn merge(files: &[PathBuf], entry: &Entry, switch: bool) -> Result<PathBuf, KubeconfigError> {
    let path = files.iter().find(|path| path.exists()).or(files.last()).ok_or(KubeconfigError::NoPlace)?;
    file::change(path, true, |document| {
        document.put(entry, switch);
        true
    })?;
    Ok(path.clone())
}

/// Replaces an entry where it is, and leaves the current context alone. Returns whether it was anywhere.
pub fn renew(files: &[PathBuf], entry: &Entry) -> Result<bool, KubeconfigError> {
    let mut any = false;
    for path in files {
        any |= file::change(path, false, |document| document.renew(entry))?;
    }
    Ok(any)
}

/// Makes an entry's context the current one, in the first file that has it. Returns that file.
pub fn switch(files: &[PathBuf], name: &str) -> Result<Option<PathBuf>, KubeconfigError> {
    for path in files {
        if file::change(path, false, |document| document.switch(name))? {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// Takes an entry out of every file it is in; a current context that was it goes back to the one before, if that still
/// exists. Returns whether there was anything.
pub fn remove(files: &[PathBuf], name: &str) -> Result<bool, KubeconfigError> {
    let mut any = false;
    for path in files {
        any |= file::change(path, false, |document| document.remove(name))?;
    }
    Ok(any)
}

/// A kubeconfig with this entry alone.
pub fn standalone(entry: &Entry) -> Result<String, KubeconfigError> {
    let mut document = document::Document::default();
    document.put(entry, true);
    document.to_yaml(Path::new("kubeconfig"))
}
