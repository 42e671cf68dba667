//! Certificates with their keys, as Secrets of type `kubernetes.io/tls` have them.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("no certificate or key that can be read: {0}")]
    Unreadable(#[from] rustls_pki_types::pem::Error),
    #[error("key and certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("there is no certificate")]
    Empty,
}

/// A chain and its key, both PEM. Fails when either is unreadable, or when they do not belong together.
pub fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from_pem_slice(key)?)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_certificate_must_belong_together() {
        let made =
            || rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("a certificate");
        let (one, other) = (made(), made());
        let pem =
            |made: &rcgen::CertifiedKey<rcgen::KeyPair>| (made.cert.pem(), made.signing_key.serialize_pem());
        let ((chain, key), (_, foreign)) = (pem(&one), pem(&other));
        assert!(certified(chain.as_bytes(), key.as_bytes()).is_ok());
        assert!(certified(chain.as_bytes(), foreign.as_bytes()).is_err());
        assert!(certified(b"", key.as_bytes()).is_err());
        assert!(certified(chain.as_bytes(), b"key").is_err());
    }
}
