//! The client certificate of a connection.

use std::collections::BTreeMap;

use crate::user::UserInfo;
use pki::{CertificateInfo, PkiError};

/// The verified client certificate of a connection, read once; in the extensions of each of its requests as an `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    pub user: UserInfo,
    /// Seconds since 1970: a connection may outlive the certificate that it was opened with.
    pub not_after: i64,
}

impl PeerCertificate {
    /// The user that a certificate names: the common name, in the organizations as groups.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        let info = CertificateInfo::from_der(der)?;
        let groups: Vec<&str> = info.organizations.iter().map(String::as_str).collect();
        let mut user = UserInfo::new(info.common_name, &groups);
        let credential = vec![format!("X509SHA256={}", info.fingerprint)];
        user.extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), credential)]);
        Ok(Self { user, not_after: info.not_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::Authority;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn names_become_users_and_groups() {
        let identity = Authority::generate("t").unwrap().sign_client("jane", &["dev", "ops"]).unwrap();
        let der = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
        let peer = PeerCertificate::from_der(&der).unwrap();
        assert_eq!(peer.user.name, "jane");
        assert_eq!(peer.user.groups, ["dev", "ops", "system:authenticated"]);
    }
}
