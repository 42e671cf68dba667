//! TLS settings of API clients.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::pki::{Identity, PkiError};

fn unusable(error: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate(error.to_string())
}

/// The certificates of a PEM text.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(unusable)
}

/// Where Debian and others keep the authorities that the machine believes.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Returns the authorities that the machine believes, as PEM; empty where it has none.
pub fn system_authorities() -> String {
    std::fs::read_to_string(SYSTEM_AUTHORITIES).unwrap_or_default()
}

/// TLS towards servers whose certificate the authority has signed, showing `identity` if there is one.
pub fn config(authority_pem: &str, identity: Option<&Identity>) -> Result<ClientConfig, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(authority_pem)? {
        roots.add(authority).map_err(unusable)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    with_identity(builder, identity)
}

fn with_identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: &Identity,
) -> Result<ClientConfig, PkiError> {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| PkiError::Key(error.to_string()))?;
    builder.with_client_auth_cert(certificates(&identity.certificate_pem)?, key).map_err(unusable)
}

/// TLS towards anybody: no certificate is believed or refused, and none is shown. For who asks whether a server answers and
/// not who it is (probes), for who checks what the server shows afterwards (a pinned key), and for requests that are
/// passed on to servers of other people's.
pub fn unverified() -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth())
}

/// The same, showing an identity: for servers that people chose to believe without a check
/// (`insecureSkipTLSVerify`).
pub fn unverified_as(identity: &Identity) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    with_identity(builder, identity)
}

/// Accepts any server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
