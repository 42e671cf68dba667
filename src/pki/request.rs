//! Keys and certificate requests.

use std::net::IpAddr;

use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType, KeyPair};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::{PkiError, subject};

/// A private key, ECDSA P-256.
pub struct Key(pub(super) KeyPair);

impl Key {
    /// A new key.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?))
    }

    /// Reads a PKCS#8 PEM key.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        KeyPair::from_pem(pem).map(Self).map_err(|error| PkiError::Key(error.to_string()))
    }

    /// The key as PKCS#8 PEM.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The key as PKCS#8 DER.
    pub fn der(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The public key as an uncompressed point (65 bytes).
    pub fn public_raw(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    /// The public key as SubjectPublicKeyInfo PEM.
    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    /// A signing request (PEM) for `CN=common_name, O=organization`, with DNS names and addresses in `sans`.
    pub fn request(
        &self,
        common_name: &str,
        organization: Option<&str>,
        sans: &[String],
    ) -> Result<String, PkiError> {
        let mut params = CertificateParams::new(sans.to_vec())?;
        params.distinguished_name = distinguished_name(common_name, organization.as_slice());
        Ok(params.serialize_request(&self.0)?.pem()?)
    }
}

/// What a signing request asks for. Its signature has been checked: the sender holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// The distinguished name as it was sent, DER.
    pub(super) subject: Vec<u8>,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    /// Alternative names of other kinds (mail addresses, URIs): signers for nodes refuse them.
    pub other_names: usize,
}

impl Csr {
    /// Reads and verifies a PEM signing request.
    pub fn parse(pem: &str) -> Result<Self, PkiError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| PkiError::Request(error.to_string()))?;
        CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| PkiError::Request(error.to_string()))?;
        let (_, request) =
            X509CertificationRequest::from_der(&der).map_err(|error| PkiError::Request(error.to_string()))?;
        let (common_name, organizations) = subject::names(&request.certification_request_info.subject);
        let mut csr = Self {
            subject: request.certification_request_info.subject.as_raw().to_vec(),
            common_name,
            organizations,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            other_names: 0,
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                (csr.dns_names, csr.ip_addresses) = subject::hosts(&names.general_names);
                csr.other_names = names.general_names.len() - csr.dns_names.len() - csr.ip_addresses.len();
            }
        }
        Ok(csr)
    }
}

pub(super) fn distinguished_name(common_name: &str, organizations: &[&str]) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    // rcgen keeps one entry per type: who needs more organizations replaces the subject, see `subject_der`.
    if let Some(organization) = organizations.first() {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}
