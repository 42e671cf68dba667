//! Who sends a request: client certificates, ServiceAccount and bootstrap tokens, impersonation, anonymous.

mod user;

pub use user::UserInfo;
