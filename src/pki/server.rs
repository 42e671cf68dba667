//! The server's keys and certificates.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;

use super::{Authority, CertificateInfo, Identity, Key, PkiError, files};

/// The authority and the administrator's identity: what exists before the server node first starts.
pub struct AuthorityFiles {
    pub authority: Authority,
    pub admin: Identity,
}

impl AuthorityFiles {
    /// User and group of the administrator, as in kubeadm's `admin.conf`.
    pub const ADMIN: (&'static str, &'static str) = ("kubernetes-admin", "system:masters");

    /// A new authority and an administrator of it.
    pub fn generate(cluster: &str) -> Result<Self, PkiError> {
        let authority = Authority::generate(&format!("minik-{cluster}"))?;
        let admin = authority.sign_client(Self::ADMIN.0, &[Self::ADMIN.1])?;
        Ok(Self { authority, admin })
    }

    /// File names and contents, for whoever puts them into a node's volume; `true`: private.
    pub fn files(&self) -> [(&'static str, &str, bool); 4] {
        [
            ("ca.crt", self.authority.certificate_pem(), false),
            ("ca.key", self.authority.key_pem(), true),
            ("admin.crt", &self.admin.certificate_pem, false),
            ("admin.key", &self.admin.key_pem, true),
        ]
    }
}

/// Everything the API server needs.
pub struct ServerPki {
    pub authority: Authority,
    pub admin: Identity,
    /// Serving identity.
    pub serving: Identity,
    /// What the API server shows to kubelets.
    pub kubelet_client: Identity,
    /// What the API server shows to other API servers when it passes a user's request on.
    pub front_proxy_client: Identity,
    /// Who signed that: its word on who the user is must be worth more than any client certificate of the cluster.
    pub front_proxy_authority_pem: String,
    /// Signs ServiceAccount tokens.
    pub service_account_key: Key,
}

impl ServerPki {
    /// User of the API server towards kubelets, as kubeadm names it.
    pub const KUBELET_CLIENT: &'static str = "kube-apiserver-kubelet-client";
    /// The API server's name towards other API servers, as kubeadm has it.
    pub const FRONT_PROXY: &'static str = "front-proxy-client";
    /// A certificate with less than this left is made anew at start.
    const RENEW_BELOW_SECONDS: i64 = 90 * 24 * 3600;

    /// Loads what is in the folder and makes what is missing, runs out soon or lacks one of `sans`
    /// (names and addresses under which clients reach the API server).
    pub fn prepare(dir: &Path, cluster: &str, sans: &[String]) -> Result<Self, PkiError> {
        let authority = Authority::load_or_generate(dir, "ca", &format!("minik-{cluster}"))?;
        let front_proxy = Authority::load_or_generate(dir, "front-proxy-ca", "front-proxy-ca")?;
        let front_proxy_client =
            identity(dir, Self::FRONT_PROXY, &front_proxy, &Wanted::client(&[]), || {
                front_proxy.sign_client(Self::FRONT_PROXY, &[])
            })?;
        let admin = identity(dir, "admin", &authority, &Wanted::client(&[AuthorityFiles::ADMIN.1]), || {
            authority.sign_client(AuthorityFiles::ADMIN.0, &[AuthorityFiles::ADMIN.1])
        })?;
        let names = Wanted { sans, groups: None };
        let serving =
            identity(dir, "apiserver", &authority, &names, || authority.sign_server("kube-apiserver", sans))?;
        // In no group: it opens kubelets, and nothing else that it might be led to.
        let kubelet_client =
            identity(dir, "apiserver-kubelet-client", &authority, &Wanted::client(&[]), || {
                authority.sign_client(Self::KUBELET_CLIENT, &[])
            })?;
        let key_file = dir.join("sa.key");
        let service_account_key = match files::read_if_there(&key_file)? {
            Some(pem) => Key::from_pem(&pem)?,
            None => {
                let key = Key::generate()?;
                files::write_private(&key_file, &key.pem())?;
                key
            }
        };
        let front_proxy_authority_pem = front_proxy.certificate_pem().to_owned();
        Ok(Self {
            authority,
            admin,
            serving,
            kubelet_client,
            front_proxy_client,
            front_proxy_authority_pem,
            service_account_key,
        })
    }
}

/// What a certificate must say to be kept.
struct Wanted<'a> {
    /// All of these names and addresses.
    sans: &'a [String],
    /// Exactly these groups; `None`: any.
    groups: Option<&'a [&'a str]>,
}

impl<'a> Wanted<'a> {
    fn client(groups: &'a [&'a str]) -> Self {
        Self { sans: &[], groups: Some(groups) }
    }
}

fn identity(
    dir: &Path,
    name: &str,
    authority: &Authority,
    wanted: &Wanted<'_>,
    make: impl FnOnce() -> Result<Identity, PkiError>,
) -> Result<Identity, PkiError> {
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if let (Some(certificate_pem), Some(key_pem)) =
        (files::read_if_there(&certificate)?, files::read_if_there(&key)?)
        && still_good(&certificate_pem, authority, wanted)
    {
        return Ok(Identity { certificate_pem, key_pem });
    }
    let made = make()?;
    files::write_private(&key, &made.key_pem)?;
    files::write_public(&certificate, &made.certificate_pem)?;
    Ok(made)
}

fn still_good(certificate_pem: &str, authority: &Authority, wanted: &Wanted<'_>) -> bool {
    // The chain ends with the authority that signed it.
    let Ok(info) = CertificateInfo::from_pem(certificate_pem) else { return false };
    certificate_pem.ends_with(authority.certificate_pem())
        && info.not_after - Timestamp::now().as_second() > ServerPki::RENEW_BELOW_SECONDS
        && wanted.groups.is_none_or(|groups| info.organizations == groups)
        && wanted.sans.iter().all(|san| match san.parse::<IpAddr>() {
            Ok(address) => info.ip_addresses.contains(&address),
            Err(_) => info.dns_names.iter().any(|name| name == san),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_stays_and_what_lacks_a_name_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let files = AuthorityFiles::generate("dev").unwrap();
        for (name, text, private) in files.files() {
            let path = dir.path().join(name);
            let write = if private { files::write_private } else { files::write_public };
            write(&path, text).unwrap();
        }
        let sans = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = ServerPki::prepare(dir.path(), "dev", &sans).unwrap();
        assert!(first.admin == files.admin, "the administrator's identity is kept");
        let second = ServerPki::prepare(dir.path(), "dev", &sans).unwrap();
        assert!(first.serving == second.serving);
        assert_eq!(first.service_account_key.pem(), second.service_account_key.pem());
        let more = [&sans[..], &["api.example".to_owned()]].concat();
        let third = ServerPki::prepare(dir.path(), "dev", &more).unwrap();
        assert!(third.serving != second.serving);
        assert!(third.kubelet_client == second.kubelet_client);
        let shown = CertificateInfo::from_pem(&third.kubelet_client.certificate_pem).unwrap();
        assert!(shown.organizations.is_empty(), "kubelets know it by its name; it is in no group");
        let masters = third.authority.sign_client(ServerPki::KUBELET_CLIENT, &["system:masters"]).unwrap();
        files::write_public(&dir.path().join("apiserver-kubelet-client.crt"), &masters.certificate_pem)
            .unwrap();
        let fourth = ServerPki::prepare(dir.path(), "dev", &sans).unwrap();
        assert!(fourth.kubelet_client.certificate_pem != masters.certificate_pem, "an older one is replaced");
    }
}
