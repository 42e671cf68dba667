//! The etcd that a cluster keeps its state in, when somebody else runs it.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where an etcd is, and how the server shows itself to it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// Who signed the members' certificates, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_pem: Option<String>,
    /// The server's own certificate and key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<String>,
}

/// Without the key.
impl std::fmt::Debug for Datastore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datastore").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Datastore {
    /// A datastore whose certificates and key lie in files. Fails, saying which, when one cannot be read.
    pub fn read(
        endpoints: Vec<String>,
        authority: Option<&Path>,
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        Ok(Self {
            endpoints,
            authority_pem: authority.map(read).transpose()?,
            certificate_pem: certificate.map(read).transpose()?,
            key_pem: key.map(read).transpose()?,
        })
    }

    /// Checks what can be checked without asking the etcd. Fails with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("a certificate or key for a datastore, but no endpoint of one".to_owned());
        }
        for endpoint in &self.endpoints {
            let uri = endpoint.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
            let scheme = uri.as_ref().and_then(|uri| uri.scheme_str()).unwrap_or_default();
            match scheme {
                "https" if self.authority_pem.is_none() => {
                    return Err(format!(
                        "datastore {endpoint}: the certificate of its authority is needed as well \
                         (--datastore-authority FILE, or the datastore's key `authority`)"
                    ));
                }
                "http" | "https" => {}
                _ => {
                    return Err(format!(
                        "datastore {endpoint}: http://HOST:PORT or https://HOST:PORT is expected"
                    ));
                }
            }
        }
        if self.certificate_pem.is_some() != self.key_pem.is_some() {
            return Err("a datastore's certificate and key come together".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_reached_is_refused() {
        let check = |endpoint: &str, authority: Option<&str>, expect: Option<&str>| {
            let datastore = Datastore {
                endpoints: vec![endpoint.to_owned()],
                authority_pem: authority.map(str::to_owned),
                ..Datastore::default()
            };
            match (datastore.validate(), expect) {
                (Ok(()), None) => {}
                (Err(why), Some(expect)) => assert!(why.contains(expect), "{why}"),
                (got, _) => panic!("{endpoint}: {got:?}"),
            }
        };
        check("http://10.0.0.1:2379", None, None);
        check("https://etcd.example:2379", Some("PEM"), None);
        check("https://etcd.example:2379", None, Some("authority"));
        check("etcd.example:2379", None, Some("http://HOST:PORT"));
        check("postgres://db", None, Some("http://HOST:PORT"));
        let half = Datastore {
            endpoints: vec!["http://a".to_owned()],
            key_pem: Some("PEM".to_owned()),
            ..Datastore::default()
        };
        assert!(half.validate().is_err_and(|why| why.contains("together")));
        assert!(Datastore::default().validate().is_err());
        assert!(!format!("{half:?}").contains("PEM"), "keys are not printed");
    }
}
