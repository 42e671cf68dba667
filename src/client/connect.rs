//! A client that is told by PEM texts whom to trust and who it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Client;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(String);

/// Where the API is, whom to trust, and the client's own certificate and key; PEM texts.
pub struct Identified<'a> {
    pub server: &'a str,
    pub ca: &'a str,
    pub certificate: &'a str,
    pub key: &'a str,
}

/// Returns a client for the API. Nothing is sent yet. Fails when a text is not what it should be.
pub fn connect(with: &Identified<'_>) -> Result<Client, ConnectError> {
    let fail = |error: &dyn std::fmt::Display| ConnectError(error.to_string());
    let url: http::Uri = with.server.parse().map_err(|error: http::uri::InvalidUri| fail(&error))?;
    let mut config = kube::Config::new(url);
    let ca = pem_to_der(with.ca).ok_or_else(|| fail(&"the authority's certificate is unreadable"))?;
    config.root_cert = Some(vec![ca]);
    config.auth_info.client_certificate_data = Some(STANDARD.encode(with.certificate));
    config.auth_info.client_key_data = Some(STANDARD.encode(with.key).into());
    // Proxy settings are not for a cluster's own port.
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| fail(&error))
}

fn pem_to_der(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}
