//! Which certificate a client is shown: by the name it asks for.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::hosts::Hosts;
use pki::{CertificateError, certified};

/// The certificates of a port, by host name.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    pub by_host: Hosts<Vec<Arc<CertifiedKey>>>,
    /// For names that nobody has a certificate for; without one such connections are refused.
    pub stand_in: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// The certificate for a name: of those that stand under it, the first that is made out to it.
    pub(super) fn of(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let all = self.by_host.get(host).map(Vec::as_slice).unwrap_or_default();
        let fitting = all.iter().find(|certified| is_for(certified, host));
        fitting.or(all.first()).or(self.stand_in.as_ref()).cloned()
    }
}

fn is_for(certified: &CertifiedKey, host: &str) -> bool {
    let end = certified.end_entity_cert().ok().map(rustls::server::ParsedCertificate::try_from);
    let name = rustls_pki_types::ServerName::try_from(host);
    let (Some(Ok(end)), Ok(name)) = (end, name) else { return false };
    rustls::client::verify_server_name(&end, &name).is_ok()
}

/// There is no certificate of our own making.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    #[error("no stand-in certificate: {0}")]
    Made(#[from] rcgen::Error),
    #[error("no stand-in certificate: {0}")]
    Usable(#[from] CertificateError),
}

/// A certificate of our own making, that no client trusts.
pub fn stand_in() -> Result<Arc<CertifiedKey>, StandInError> {
    let made = rcgen::generate_simple_self_signed(vec!["ingress.minik.dev".to_owned()])?;
    Ok(certified(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_certificates() {
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
            certified(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())
                .expect("usable")
        };
        let mut all = Certificates::default();
        let (exact, wild, other) = (made("a.example"), made("*.w.example"), made("b.w.example"));
        all.by_host.entry("a.example").push(exact.clone());
        all.by_host.entry("*.w.example").extend([wild.clone(), other.clone()]);
        let check = |all: &Certificates, host: &str, expect: Option<&Arc<CertifiedKey>>| {
            let got = all.of(host);
            let same = match (&got, expect) {
                (Some(got), Some(expect)) => Arc::ptr_eq(got, expect),
                (got, expect) => got.is_none() && expect.is_none(),
            };
            assert!(same, "{host}");
        };
        check(&all, "a.example", Some(&exact));
        check(&all, "b.w.example", Some(&wild));
        check(&all, "x.y.w.example", None);
        all.by_host.entry("*.w.example").reverse();
        check(&all, "b.w.example", Some(&other));
        check(&all, "c.w.example", Some(&wild));
        all.stand_in = Some(other.clone());
        check(&all, "x.y.w.example", Some(&other));
    }
}
