use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::{Identity, PkiError};

fn unusable(error: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate(error.to_string())
}

/// The certificates of a PEM text.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(unusable)
}

/// TLS towards servers whose certificate the authority has signed, showing `identity` if there is one.
pub fn config(authority_pem: &str, identity: Option<&Identity>) -> Result<ClientConfig, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(authority_pem)? {
        roots.add(authority).map_err(unusable)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| PkiError::Key(error.to_string()))?;
    builder.with_client_auth_cert(certificates(&identity.certificate_pem)?, key).map_err(unusable)
}
