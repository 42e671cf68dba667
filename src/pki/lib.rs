//! The cluster's keys and certificates: ECDSA P-256 throughout, made and checked in this process.
//!
//! One authority signs everybody: the administrator (client certificate, `O=system:masters`), the API server
//! (serving certificate and the client certificate it shows to kubelets) and, through CertificateSigningRequests,
//! the nodes. ServiceAccount tokens are signed with a key of their own (`sa.key`). Who may speak to the servers' etcd is an authority's of
//! its own to say: whoever can does whatever they want.

mod authority;
pub mod files;
mod pair;
mod request;
mod server;
mod splice;
mod subject;

pub use authority::{Authority, Identity, KeyUsages};
pub use pair::{CertificateError, certified};
pub use request::{Csr, Key};
pub use server::{AuthorityFiles, EtcdPki, ServerPki};
pub use subject::{CertificateInfo, spki_hash, spki_hash_of_pem};

/// Why a key or certificate could not be made, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {source}")]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("not a usable certificate: {0}")]
    Certificate(String),
    #[error("not a usable key: {0}")]
    Key(String),
    #[error("not a usable certificate signing request: {0}")]
    Request(String),
    #[error("unknown key usage {0:?}")]
    Usage(String),
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
}
