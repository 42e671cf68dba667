//! Which certificate a client is shown: by the name it asks for.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
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
    #[error("no stand-in certificate: {0}")]
    StandIn(#[from] rcgen::Error),
}

/// The certificates that are served, by host name or `*.parent`. They are replaced whole; handshakes see either all old or
/// all new ones.
#[derive(Debug)]
pub struct Certificates {
    by_host: RwLock<BTreeMap<String, Arc<CertifiedKey>>>,
    stand_in: Arc<CertifiedKey>,
}

impl Certificates {
    /// None yet, beside one of our own making for names that nobody has a certificate for.
    pub fn new() -> Result<Self, CertificateError> {
        let made = rcgen::generate_simple_self_signed(vec!["ingress.minik.dev".to_owned()])?;
        let stand_in = certified(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?;
        Ok(Self { by_host: RwLock::default(), stand_in })
    }

    /// Serves exactly these from now on.
    pub fn replace(&self, by_host: BTreeMap<String, Arc<CertifiedKey>>) {
        *self.by_host.write().unwrap_or_else(PoisonError::into_inner) = by_host;
    }

    fn of(&self, host: &str) -> Arc<CertifiedKey> {
        let all = self.by_host.read().unwrap_or_else(PoisonError::into_inner);
        let wildcard = || all.get(&format!("*.{}", host.split_once('.')?.1));
        all.get(host).or_else(wildcard).unwrap_or(&self.stand_in).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(&hello.server_name().unwrap_or_default().to_ascii_lowercase()))
    }
}

/// A certificate chain and its key, as a Secret of type `kubernetes.io/tls` has them. Fails when either is unreadable, or
/// when they do not belong together.
pub fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from_pem_slice(key)?)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_certificates() {
        let all = Certificates::new().expect("a stand-in");
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
            certified(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())
                .expect("usable")
        };
        let (exact, wild) = (made("a.example"), made("*.example"));
        all.replace([("a.example".to_owned(), exact.clone()), ("*.example".to_owned(), wild.clone())].into());
        assert!(Arc::ptr_eq(&all.of("a.example"), &exact));
        assert!(Arc::ptr_eq(&all.of("b.example"), &wild));
        assert!(Arc::ptr_eq(&all.of("c.b.example"), &all.stand_in));
        assert!(certified(b"", b"").is_err());
    }
}
