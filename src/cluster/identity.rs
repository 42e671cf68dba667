use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use super::ClusterError;
use super::docker::{Docker, DockerError};
use super::labels;
use super::node_image::archive;
use crate::config::NodeConfig;
use crate::config::kubeconfig::Entry;
use crate::pki::AuthorityFiles;

/// How the host's clients reach a cluster: where, whom to trust, and who they are. PEM texts.
#[derive(Clone)]
pub struct Access {
    pub cluster: String,
    pub server: String,
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

impl Access {
    pub(super) fn new(cluster: &str, server: &str, files: &AuthorityFiles) -> Self {
        Self {
            cluster: cluster.to_owned(),
            server: server.to_owned(),
            ca: files.authority.certificate_pem().to_owned(),
            certificate: files.admin.certificate_pem.clone(),
            key: files.admin.key_pem.clone(),
        }
    }

    /// The same as an entry of a kubeconfig.
    pub fn entry(&self) -> Entry {
        Entry {
            name: labels::context(&self.cluster),
            server: self.server.clone(),
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// The authority and the administrator, as an archive to be unpacked at `/` of the server's container.
pub(super) fn server_archive(files: &AuthorityFiles) -> std::io::Result<Bytes> {
    let dir = Path::new(NodeConfig::PKI_DIR).strip_prefix("/").unwrap_or(Path::new(NodeConfig::PKI_DIR));
    let entries: Vec<_> = files
        .files()
        .into_iter()
        .map(|(name, text, private)| (dir.join(name), text, if private { 0o600 } else { 0o644 }))
        .collect();
    archive(entries.iter().map(|(path, text, mode)| (path.as_path(), text.as_bytes(), *mode)))
}

/// Reads a cluster's access back from its server's volume; the server need not run.
pub async fn access_of(docker: &Docker, cluster: &str) -> Result<Access, ClusterError> {
    let containers = docker.containers(Some(cluster)).await?;
    if containers.is_empty() {
        return Err(ClusterError::NoSuchCluster(cluster.to_owned()));
    }
    let server = containers
        .iter()
        .find_map(|container| Some((container, container.labels.get(labels::API)?)))
        .ok_or_else(|| ClusterError::NoSuchCluster(cluster.to_owned()))?;
    let tar = docker.get_archive(&server.0.id, NodeConfig::PKI_DIR).await?;
    let file = |name: &str| {
        member(&tar, name).ok_or_else(|| {
            DockerError::NotFound(format!("{}/{name} is missing in {}", NodeConfig::PKI_DIR, server.0.name))
        })
    };
    Ok(Access {
        cluster: cluster.to_owned(),
        server: server.1.clone(),
        ca: file("ca.crt")?,
        certificate: file("admin.crt")?,
        key: file("admin.key")?,
    })
}

/// The text of the member of an archive with this file name.
fn member(tar: &[u8], name: &str) -> Option<String> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        if entry.path().ok()?.file_name().is_some_and(|file| file == name) {
            let mut text = String::new();
            entry.read_to_string(&mut text).ok()?;
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_gets_authority_and_administrator() {
        let files = AuthorityFiles::generate("t").expect("made");
        let tar = server_archive(&files).expect("in memory");
        let mut archive = tar::Archive::new(tar.as_ref());
        let list: Vec<_> = archive
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("readable");
                let path = entry.path().expect("path").display().to_string();
                (path, entry.header().mode().expect("mode"))
            })
            .collect();
        assert_eq!(
            list,
            [
                ("var/lib/minik/pki/ca.crt".to_owned(), 0o644),
                ("var/lib/minik/pki/ca.key".to_owned(), 0o600),
                ("var/lib/minik/pki/admin.crt".to_owned(), 0o644),
                ("var/lib/minik/pki/admin.key".to_owned(), 0o600),
            ]
        );
        assert_eq!(member(&tar, "admin.key"), Some(files.admin.key_pem.clone()));
    }
}
