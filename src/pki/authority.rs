//! The cluster's certificate authority.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams,
    ExtendedKeyUsagePurpose as Extended, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, SigningKey,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use super::request::{Csr, Key, distinguished_name};
use super::{PkiError, files, splice, subject};

/// A leaf certificate and its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by the authority's: a client that knows only the authority's hash can verify the chain.
    pub certificate_pem: String,
    pub key_pem: String,
}

/// What a certificate may be used for, in the words of `certificates.k8s.io/v1` `spec.usages`.
#[derive(Clone, Debug, Default)]
pub struct KeyUsages {
    pub(super) usages: Vec<Usage>,
    pub(super) extended: Vec<Extended>,
}

impl KeyUsages {
    /// Translates the API's names; an unknown one is an error.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, PkiError> {
        let mut all = Self::default();
        for name in names {
            match name.as_ref() {
                "signing" | "digital signature" => all.usages.push(Usage::DigitalSignature),
                "content commitment" => all.usages.push(Usage::ContentCommitment),
                "key encipherment" => all.usages.push(Usage::KeyEncipherment),
                "key agreement" => all.usages.push(Usage::KeyAgreement),
                "data encipherment" => all.usages.push(Usage::DataEncipherment),
                "cert sign" => all.usages.push(Usage::KeyCertSign),
                "crl sign" => all.usages.push(Usage::CrlSign),
                "encipher only" => all.usages.push(Usage::EncipherOnly),
                "decipher only" => all.usages.push(Usage::DecipherOnly),
                "any" => all.extended.push(Extended::Any),
                "server auth" => all.extended.push(Extended::ServerAuth),
                "client auth" => all.extended.push(Extended::ClientAuth),
                "code signing" => all.extended.push(Extended::CodeSigning),
                "email protection" | "s/mime" => all.extended.push(Extended::EmailProtection),
                "timestamping" => all.extended.push(Extended::TimeStamping),
                "ocsp signing" => all.extended.push(Extended::OcspSigning),
                other => return Err(PkiError::Usage(other.to_owned())),
            }
        }
        all.usages.dedup();
        all.extended.dedup();
        Ok(all)
    }
}

/// The cluster's certificate authority.
pub struct Authority {
    certificate_pem: String,
    certificate_der: Vec<u8>,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// How long the authority itself is valid: ten years, as kubeadm's.
    pub const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    /// How long the certificates it signs for this project's own parts are valid: one year, as kubeadm's.
    pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
    /// Certificates start this long before now: clocks of host and node may differ a little.
    const BACKDATE: Duration = Duration::from_secs(5 * 60);

    /// A new authority with a new key.
    pub fn generate(common_name: &str) -> Result<Self, PkiError> {
        let key = Key::generate()?;
        let mut params = params_for(common_name, &[], &[], Self::LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::KeyCertSign];
        let certificate = params.self_signed(&key.0)?;
        Self::from_pem(&certificate.pem(), &key.pem())
    }

    /// Takes an authority from its PEM certificate and key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = Key::from_pem(key_pem)?;
        let der = subject::first_certificate(certificate_pem)?;
        let issuer = Issuer::from_ca_cert_der(&der, key.0)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            certificate_der: der.to_vec(),
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// Reads `<name>.crt` and `<name>.key` from a folder, and makes a new authority there if there is no key yet. The key is
    /// written last: it is what says that there is one.
    pub fn load_or_generate(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if let Some(key) = files::read_if_there(&key)? {
            return Self::from_pem(&files::read(&certificate)?, &key);
        }
        let made = Self::generate(common_name)?;
        files::write_public(&certificate, &made.certificate_pem)?;
        files::write_private(&key, &made.key_pem)?;
        Ok(made)
    }

    /// The authority's own certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's own certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The authority's key, PKCS#8 PEM: for whoever has to put it into a node's volume.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// `sha256:<hex>` of the authority's public key: what joining nodes pin.
    pub fn spki_hash(&self) -> Result<String, PkiError> {
        subject::spki_hash(&self.certificate_der)
    }

    /// A client identity: user `common_name` in groups `organizations`.
    pub fn sign_client(&self, common_name: &str, organizations: &[&str]) -> Result<Identity, PkiError> {
        let mut params = params_for(common_name, organizations, &[], Self::LEAF_LIFETIME)?;
        params.key_usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment];
        params.extended_key_usages = vec![Extended::ClientAuth];
        self.sign(params, (organizations.len() > 1).then(|| splice::name(common_name, organizations)))
    }

    /// A serving identity for DNS names and addresses.
    pub fn sign_server(&self, common_name: &str, sans: &[String]) -> Result<Identity, PkiError> {
        let mut params = params_for(common_name, &[], sans, Self::LEAF_LIFETIME)?;
        params.key_usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment];
        params.extended_key_usages = vec![Extended::ServerAuth];
        self.sign(params, None)
    }

    /// An identity of one among equals: it serves under these DNS names and addresses, and is a client of the others.
    pub fn sign_peer(&self, common_name: &str, sans: &[String]) -> Result<Identity, PkiError> {
        let mut params = params_for(common_name, &[], sans, Self::LEAF_LIFETIME)?;
        params.key_usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment];
        params.extended_key_usages = vec![Extended::ServerAuth, Extended::ClientAuth];
        self.sign(params, None)
    }

    /// Signs a request as it stands (subject and alternative names), for the given usages and at most the
    /// authority's own remaining life. Returns the leaf certificate, PEM. Whether the requester may have it is
    /// the caller's decision.
    pub fn sign_csr(
        &self,
        request_pem: &str,
        usages: &KeyUsages,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let wanted = Csr::parse(request_pem)?;
        let der = CertificateSigningRequestDer::from_pem_slice(request_pem.as_bytes())
            .map_err(|error| PkiError::Request(error.to_string()))?;
        let mut request = CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| PkiError::Request(error.to_string()))?;
        let own = super::CertificateInfo::from_der(&self.certificate_der)?;
        let left = own.not_after.saturating_sub(Timestamp::now().as_second()).max(0).unsigned_abs();
        set_validity(&mut request.params, lifetime.min(Duration::from_secs(left)));
        request.params.is_ca = IsCa::NoCa;
        request.params.use_authority_key_identifier_extension = true;
        request.params.key_usages = usages.usages.clone();
        request.params.extended_key_usages = usages.extended.clone();
        let signed = request.signed_by(&self.issuer)?;
        splice::with_subject(signed.der(), &wanted.subject, |tbs| self.issuer.key().sign(tbs))
    }

    fn sign(&self, mut params: CertificateParams, subject: Option<Vec<u8>>) -> Result<Identity, PkiError> {
        params.use_authority_key_identifier_extension = true;
        let key = Key::generate()?;
        let signed = params.signed_by(&key.0, &self.issuer)?;
        let leaf = match subject {
            Some(subject) => splice::with_subject(signed.der(), &subject, |tbs| self.issuer.key().sign(tbs))?,
            None => signed.pem(),
        };
        Ok(Identity { certificate_pem: format!("{leaf}{}", self.certificate_pem), key_pem: key.pem() })
    }
}

fn params_for(
    common_name: &str,
    organizations: &[&str],
    sans: &[String],
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(sans.to_vec())?;
    params.distinguished_name = distinguished_name(common_name, organizations);
    set_validity(&mut params, lifetime);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(Timestamp::now().as_second().max(0).unsigned_abs());
    params.not_before = epoch + now.saturating_sub(Authority::BACKDATE);
    params.not_after = epoch + now + lifetime;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CertificateInfo;

    fn authority() -> Authority {
        Authority::generate("minik-test").unwrap()
    }

    #[test]
    fn an_authority_survives_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let made = Authority::load_or_generate(dir.path(), "ca", "minik-test").unwrap();
        let loaded = Authority::load_or_generate(dir.path(), "ca", "another").unwrap();
        assert_eq!(made.spki_hash().unwrap(), loaded.spki_hash().unwrap());
        assert_eq!(made.spki_hash().unwrap().len(), "sha256:".len() + 64);
    }

    #[test]
    fn subjects_carry_user_and_all_groups() {
        let identity = authority().sign_client("jane", &["dev", "ops", "qa"]).unwrap();
        let info = CertificateInfo::from_pem(&identity.certificate_pem).unwrap();
        assert_eq!(info.common_name, "jane");
        assert_eq!(info.organizations, ["dev", "ops", "qa"]);
        let left = info.not_after - Timestamp::now().as_second();
        assert!((left - 365 * 24 * 3600).abs() < 60);
    }

    #[test]
    fn serving_certificates_name_their_hosts() {
        let sans = ["kubernetes".to_owned(), "10.43.0.1".to_owned()];
        let identity = authority().sign_server("apiserver", &sans).unwrap();
        let info = CertificateInfo::from_pem(&identity.certificate_pem).unwrap();
        assert_eq!(info.dns_names, ["kubernetes"]);
        assert_eq!(info.ip_addresses, ["10.43.0.1".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn requests_are_signed_as_they_stand() {
        let authority = authority();
        let key = Key::generate().unwrap();
        let sans = ["n1".to_owned(), "172.20.0.3".to_owned()];
        let request = key.request("system:node:n1", Some("system:nodes"), &sans).unwrap();
        let asked = Csr::parse(&request).unwrap();
        assert_eq!(
            (asked.common_name.as_str(), asked.organizations.as_slice()),
            ("system:node:n1", &["system:nodes".to_owned()][..])
        );
        let usages = KeyUsages::parse(&["digital signature", "server auth"]).unwrap();
        let pem = authority.sign_csr(&request, &usages, Duration::from_secs(3600)).unwrap();
        let info = CertificateInfo::from_pem(&pem).unwrap();
        assert_eq!(info.common_name, "system:node:n1");
        assert_eq!(info.dns_names, ["n1"]);
        let left = info.not_after - Timestamp::now().as_second();
        assert!((left - 3600).abs() < 60, "{left}");
        assert!(KeyUsages::parse(&["flying"]).is_err());
        assert!(Csr::parse("nonsense").is_err());
    }

    #[test]
    fn the_chain_verifies_under_the_authority() {
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let authority = authority();
        let key = Key::generate().unwrap();
        let request = key.request("n1", None, &["n1".to_owned()]).unwrap();
        let usages = KeyUsages::parse(&["server auth"]).unwrap();
        let pem = authority.sign_csr(&request, &usages, Duration::from_secs(3600)).unwrap();
        let leaf = subject::first_certificate(&pem).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(authority.certificate_der().to_vec())).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        use rustls::client::danger::ServerCertVerifier;
        let name = ServerName::try_from("n1").unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).unwrap();
    }
}
