//! Who may speak to a cluster: its authority and administrator, written when it is made and read back later.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use super::ClusterError;
use super::docker::{Container, Docker, DockerError};
use super::labels;
use super::plan::{PutFile, role_name};
use config::kubeconfig::Entry;
use config::{JoinToken, LbConfig, NodeConfig, Role};
use pki::{Authority, AuthorityFiles};

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

/// The authority and the administrator: path in the server's container, content and mode.
pub(super) fn server_files(files: &AuthorityFiles) -> Vec<PutFile> {
    let dir = relative(NodeConfig::PKI_DIR);
    let entry = |(name, text, private): (&str, String, bool)| {
        (dir.join(name), text.into_bytes(), if private { 0o600 } else { 0o644 })
    };
    files.files().into_iter().map(entry).collect()
}

/// What all servers of a cluster have in common, read back from the volume of one of them; it need not run.
pub(super) async fn common_files(
    docker: &Docker,
    servers: &[&Container],
) -> Result<Vec<PutFile>, ClusterError> {
    let dir = relative(NodeConfig::PKI_DIR);
    let tar = first_archive(docker, servers).await?;
    let file = |(name, private): (&str, bool)| {
        let text = pki_file(&tar, name, "the server")?;
        Ok((dir.join(name), text.into_bytes(), if private { 0o600 } else { 0o644 }))
    };
    AuthorityFiles::FILES.into_iter().map(file).collect()
}

/// Containers of servers, by name.
pub(super) fn servers(containers: &[Container]) -> Vec<&Container> {
    let is_server =
        |c: &&Container| c.labels.get(labels::ROLE).is_some_and(|role| role == role_name(Role::Server));
    let mut servers: Vec<&Container> = containers.iter().filter(is_server).collect();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}

/// Tells a server of a new cluster that it is one of those that form the etcd.
pub(super) fn founder_file() -> PutFile {
    (relative(NodeConfig::ETCD_FOUNDER).to_owned(), Vec::new(), 0o600)
}

/// What an added agent joins with.
pub(super) fn agent_files(token: &JoinToken) -> Vec<PutFile> {
    vec![(relative(NodeConfig::JOIN_TOKEN).to_owned(), token.to_string().into_bytes(), 0o600)]
}

/// What a load balancer's container reads Services with: an identity of its own, that may do nothing else.
pub(super) fn lb_files(authority: &Authority) -> Result<Vec<PutFile>, ClusterError> {
    let identity = authority.sign_client(LbConfig::USER, &[])?;
    let dir = relative(LbConfig::IDENTITY_DIR);
    Ok(vec![
        (dir.join("ca.crt"), authority.certificate_pem().as_bytes().to_vec(), 0o644),
        (dir.join("lb.crt"), identity.certificate_pem.into_bytes(), 0o644),
        (dir.join("lb.key"), identity.key_pem.into_bytes(), 0o600),
    ])
}

fn relative(dir: &str) -> &Path {
    let dir = Path::new(dir);
    dir.strip_prefix("/").unwrap_or(dir)
}

/// Reads a cluster's authority back from a server's volume; the server need not run.
pub(super) async fn authority_of(docker: &Docker, servers: &[&Container]) -> Result<Authority, ClusterError> {
    let tar = first_archive(docker, servers).await?;
    let file = |name: &str| pki_file(&tar, name, "the server");
    Ok(Authority::from_pem(&file("ca.crt")?, &file("ca.key")?)?)
}

/// The folder of keys of the first server that has it.
async fn first_archive(docker: &Docker, servers: &[&Container]) -> Result<Bytes, DockerError> {
    let mut failure = DockerError::NotFound("no server is left".to_owned());
    for server in servers {
        match docker.get_archive(&server.id, NodeConfig::PKI_DIR).await {
            Ok(tar) => return Ok(tar),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn pki_file(tar: &[u8], name: &str, server: &str) -> Result<String, DockerError> {
    member(tar, name).ok_or_else(|| {
        DockerError::NotFound(format!("{}/{name} is missing in {server}", NodeConfig::PKI_DIR))
    })
}

/// Reads a cluster's access back from its server's volume; the server need not run.
pub async fn access_of(docker: &Docker, cluster: &str) -> Result<Access, ClusterError> {
    let containers = docker.containers(Some(cluster)).await?;
    if containers.is_empty() {
        return Err(ClusterError::NoSuchCluster(cluster.to_owned()));
    }
    let servers = servers(&containers);
    let url = servers
        .iter()
        .find_map(|server| server.labels.get(labels::API))
        .ok_or_else(|| ClusterError::NoSuchCluster(cluster.to_owned()))?;
    let tar = first_archive(docker, &servers).await?;
    let file = |name: &str| pki_file(&tar, name, "the server");
    Ok(Access {
        cluster: cluster.to_owned(),
        server: url.clone(),
        ca: file("ca.crt")?,
        certificate: file("admin.crt")?,
        key: file("admin.key")?,
    })
}

/// The texts of all members of an archive whose names end so.
pub(super) fn members(tar: &[u8], ending: &str) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let Ok(entries) = archive.entries() else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.path().is_ok_and(|path| path.to_string_lossy().ends_with(ending)))
        .filter_map(|mut entry| {
            let mut text = String::new();
            entry.read_to_string(&mut text).ok().map(|_| text)
        })
        .collect()
}

/// The text of the member of an archive with this file name.
pub(super) fn member(tar: &[u8], name: &str) -> Option<String> {
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
    use super::super::node_image::archive;
    use super::*;

    #[test]
    fn the_server_gets_authority_and_administrator() {
        let files = AuthorityFiles::generate("t").expect("made");
        let made = server_files(&files);
        let list: Vec<_> = made.iter().map(|(path, _, mode)| (path.display().to_string(), *mode)).collect();
        assert_eq!(
            list[..4],
            [
                ("var/lib/minik/pki/ca.crt".to_owned(), 0o644),
                ("var/lib/minik/pki/ca.key".to_owned(), 0o600),
                ("var/lib/minik/pki/admin.crt".to_owned(), 0o644),
                ("var/lib/minik/pki/admin.key".to_owned(), 0o600),
            ]
        );
        assert_eq!(list.last(), Some(&("var/lib/minik/pki/sa.key".to_owned(), 0o600)));
        let tar =
            archive(made.iter().map(|(path, content, mode)| (path.as_path(), content.as_slice(), *mode)));
        assert_eq!(member(&tar.expect("in memory"), "admin.key"), Some(files.admin.key_pem.clone()));
    }
}
