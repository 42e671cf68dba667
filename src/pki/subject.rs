//! Subjects of certificates.

use std::net::IpAddr;

use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::PkiError;

/// What a certificate says about its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Kubernetes reads this as the user name.
    pub common_name: String,
    /// Kubernetes reads these as the user's groups.
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    /// Seconds since 1970, as is `not_after`.
    pub not_before: i64,
    pub not_after: i64,
    /// SHA-256 of the whole certificate, lower-case hex.
    pub fingerprint: String,
    /// The issuer's subject, DER.
    pub issuer: Vec<u8>,
}

impl CertificateInfo {
    /// Reads a DER certificate; its signature is not checked here (TLS has done that).
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = parse(der)?;
        let (dns_names, ip_addresses) = alternative_names(&certificate);
        let (common_name, organizations) = names(certificate.subject());
        Ok(Self {
            common_name,
            organizations,
            dns_names,
            ip_addresses,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            fingerprint: hex::encode(digest::digest(&digest::SHA256, der)),
            issuer: certificate.issuer().as_raw().to_vec(),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::from_der(&first_certificate(pem)?)
    }
}

/// `sha256:<hex>` of the certificate's SubjectPublicKeyInfo, as `kubeadm join --discovery-token-ca-cert-hash` writes it.
pub fn spki_hash(der: &[u8]) -> Result<String, PkiError> {
    let certificate = parse(der)?;
    let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
    Ok(format!("sha256:{}", hex::encode(hash)))
}

/// [`spki_hash`] of the first certificate of a PEM text.
pub fn spki_hash_of_pem(pem: &str) -> Result<String, PkiError> {
    spki_hash(&first_certificate(pem)?)
}

pub(super) fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| PkiError::Certificate(error.to_string()))
}

/// Common name and organizations of a distinguished name.
pub(super) fn names(name: &X509Name<'_>) -> (String, Vec<String>) {
    let common_name = name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    let organizations = name.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    (common_name.to_owned(), organizations.collect())
}

/// DNS names and addresses among general names.
pub(super) fn hosts(names: &[GeneralName<'_>]) -> (Vec<String>, Vec<IpAddr>) {
    let mut dns = Vec::new();
    let mut addresses = Vec::new();
    for name in names {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (dns, addresses)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| PkiError::Certificate(error.to_string()))?;
    Ok(certificate)
}

fn alternative_names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    match certificate.subject_alternative_name() {
        Ok(Some(names)) => hosts(&names.value.general_names),
        _ => Default::default(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
