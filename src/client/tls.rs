//! TLS settings of API clients.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use pki::{Identity, PkiError};

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

/// TLS towards servers whose certificate the authority has signed, or that show the authority's own, with `identity` if there is one.
pub fn config(authority_pem: &str, identity: Option<&Identity>) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let own = certificates(authority_pem)?;
    let builder = if own.is_empty() {
        builder.with_root_certificates(RootCertStore::empty())
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Believed::new(own)?))
    };
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

/// Accepts servers whose certificate one of the believed ones has signed, and those that show a believed one itself: people make one
/// certificate for a webhook and name it as its authority, too. Rule: Go's `x509.Certificate.Verify`.
#[derive(Debug)]
struct Believed {
    signed: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Believed {
    fn new(own: Vec<CertificateDer<'static>>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        for authority in &own {
            roots.add(authority.clone()).map_err(unusable)?;
        }
        let provider = Arc::new(ring::default_provider());
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { signed: signed.map_err(unusable)?, own })
    }

    /// Whether a believed certificate is good for this server now.
    fn check(
        shown: &CertificateDer<'_>,
        server: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(shown)?, server)?;
        let (_, certificate) = parse_x509_certificate(shown).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
        let now = now.ok_or(CertificateError::BadEncoding)?;
        match certificate.validity() {
            validity if now < validity.not_before => Err(CertificateError::NotValidYet.into()),
            validity if now > validity.not_after => Err(CertificateError::Expired.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.own.iter().any(|own| own == shown) {
            true => Self::check(shown, server, now),
            false => self.signed.verify_server_cert(shown, between, server, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    #[test]
    fn a_server_may_show_the_authority_itself() {
        let made = || {
            let mut params = CertificateParams::new(vec!["hook.a.svc".to_owned()]).expect("a name");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
        };
        let (believed, other) = (made(), made());
        let verifier = Believed::new(vec![believed.clone()]).expect("a verifier");
        let now = UnixTime::now();
        let verify = |shown: &CertificateDer<'_>, server: &'static str, now| {
            let server = ServerName::try_from(server).expect("a name");
            verifier.verify_server_cert(shown, &[], &server, &[], now).map(drop)
        };
        assert_eq!(verify(&believed, "hook.a.svc", now), Ok(()));
        assert!(verify(&believed, "other.a.svc", now).is_err(), "it is another server's");
        assert!(verify(&other, "hook.a.svc", now).is_err(), "nobody believes it");
        let early = UnixTime::since_unix_epoch(Duration::from_secs(1));
        assert_eq!(
            verify(&believed, "hook.a.svc", early),
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet))
        );
    }
}
