//! The server's keys and certificates.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;

use super::{Authority, CertificateInfo, Identity, Key, PkiError, files};

/// What exists before a cluster's first server starts, and what all its servers have in common: the authorities, the
/// administrator's identity, and the key that signs ServiceAccount tokens.
pub struct AuthorityFiles {
    pub authority: Authority,
    pub admin: Identity,
    front_proxy: Authority,
    etcd: Authority,
    service_account_key: Key,
}

/// File names, without their endings, of what all servers have in common.
const FRONT_PROXY_AUTHORITY: &str = "front-proxy-ca";
const ETCD_AUTHORITY: &str = "etcd-ca";
const SERVICE_ACCOUNT_KEY: &str = "sa.key";

impl AuthorityFiles {
    /// User and group of the administrator, as in kubeadm's `admin.conf`.
    pub const ADMIN: (&'static str, &'static str) = ("kubernetes-admin", "system:masters");

    /// A new authority and an administrator of it.
    pub fn generate(cluster: &str) -> Result<Self, PkiError> {
        let authority = Authority::generate(&format!("minik-{cluster}"))?;
        let admin = authority.sign_client(Self::ADMIN.0, &[Self::ADMIN.1])?;
        Ok(Self {
            authority,
            admin,
            front_proxy: Authority::generate(FRONT_PROXY_AUTHORITY)?,
            etcd: Authority::generate(ETCD_AUTHORITY)?,
            service_account_key: Key::generate()?,
        })
    }

    /// The names of the files; `true`: private.
    pub const FILES: [(&'static str, bool); 9] = [
        ("ca.crt", false),
        ("ca.key", true),
        ("admin.crt", false),
        ("admin.key", true),
        ("front-proxy-ca.crt", false),
        ("front-proxy-ca.key", true),
        ("etcd-ca.crt", false),
        ("etcd-ca.key", true),
        (SERVICE_ACCOUNT_KEY, true),
    ];

    /// File names and contents, for whoever puts them into a node's volume; `true`: private.
    pub fn files(&self) -> Vec<(&'static str, String, bool)> {
        let of =
            |authority: &Authority| [authority.certificate_pem(), authority.key_pem()].map(str::to_owned);
        let admin = [self.admin.certificate_pem.clone(), self.admin.key_pem.clone()];
        let [front_proxy, etcd] = [&self.front_proxy, &self.etcd].map(of);
        let texts = [of(&self.authority), admin, front_proxy, etcd].concat();
        let texts = texts.into_iter().chain([self.service_account_key.pem()]);
        Self::FILES.into_iter().zip(texts).map(|((name, private), text)| (name, text, private)).collect()
    }
}

/// What a server needs to run a member of the cluster's etcd, and to speak to it.
pub struct EtcdPki {
    /// Signs members and their clients.
    pub authority_pem: String,
    /// Who the API server is to etcd.
    pub client: Identity,
}

impl EtcdPki {
    /// The API server's name towards etcd, as kubeadm has it.
    const CLIENT: &'static str = "apiserver-etcd-client";
    /// Files in the folder that etcd itself reads: the authority's certificate, the member's certificate and its key.
    pub const FILES: [&'static str; 3] = ["etcd-ca.crt", "etcd-member.crt", "etcd-member.key"];

    /// Loads what is in the folder, and makes what is missing, runs out soon or lacks one of `sans` (names and addresses of the
    /// member).
    pub fn prepare(dir: &Path, sans: &[String]) -> Result<Self, PkiError> {
        let authority = Authority::load_or_generate(dir, ETCD_AUTHORITY, ETCD_AUTHORITY)?;
        identity(dir, "etcd-member", &authority, &Wanted { sans, groups: None }, || {
            authority.sign_peer("etcd-member", sans)
        })?;
        let client = identity(dir, Self::CLIENT, &authority, &Wanted::client(&[]), || {
            authority.sign_client(&format!("kube-{}", Self::CLIENT), &[])
        })?;
        Ok(Self { authority_pem: authority.certificate_pem().to_owned(), client })
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
        let front_proxy = Authority::load_or_generate(dir, FRONT_PROXY_AUTHORITY, FRONT_PROXY_AUTHORITY)?;
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
        let key_file = dir.join(SERVICE_ACCOUNT_KEY);
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
            write(&path, &text).unwrap();
        }
        let sans = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = ServerPki::prepare(dir.path(), "dev", &sans).unwrap();
        assert!(first.admin == files.admin, "the administrator's identity is kept");
        assert_eq!(first.service_account_key.pem(), files.service_account_key.pem());
        assert_eq!(first.front_proxy_authority_pem, files.front_proxy.certificate_pem());
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

    #[test]
    fn members_of_one_etcd_trust_each_other() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = AuthorityFiles::generate("dev").unwrap();
        let sans = |ip: &str| ["server".to_owned(), ip.to_owned()];
        let prepare = |dir: &Path, ip: &str| {
            for (name, text, _) in files.files() {
                files::write_private(&dir.join(name), &text).unwrap();
            }
            EtcdPki::prepare(dir, &sans(ip)).unwrap()
        };
        let (first, second) = (prepare(one.path(), "10.0.0.2"), prepare(two.path(), "10.0.0.3"));
        assert_eq!(first.authority_pem, second.authority_pem);
        let [_, certificate, _] = EtcdPki::FILES;
        let read = || std::fs::read_to_string(one.path().join(certificate)).unwrap();
        let member = read();
        assert!(member.ends_with(&first.authority_pem));
        prepare(one.path(), "10.0.0.2");
        assert_eq!(read(), member, "what is good stays");
        prepare(one.path(), "10.0.0.9");
        assert_ne!(read(), member, "it has another address");
    }
}
