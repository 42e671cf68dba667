//! Who sends a request: client certificates, ServiceAccount and bootstrap tokens, impersonation, anonymous.

mod authenticator;
mod bootstrap_token;
mod claims;
mod impersonate;
mod peer;
mod tokens;

pub use authenticator::Authenticator;
pub use claims::{Bound, Claims, Reference};
pub use peer::PeerCertificate;
pub use tokens::{ISSUER, Tokens};
