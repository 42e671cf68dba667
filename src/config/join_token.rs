//! Join tokens: what a node shows to the cluster while it has no certificate yet. They are kubeadm's bootstrap tokens: each is
//! a Secret that says until when it is good, and is deleted after that.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use serde_json::{Value, json};

/// A bootstrap token, `<6 characters>.<16 characters>`, all lower-case letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
}

impl JoinToken {
    /// The namespace of the Secrets.
    pub const NAMESPACE: &'static str = "kube-system";
    /// How long nodes may join with one: longer than anybody waits for a node.
    pub const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

    /// A new one, drawn by lot.
    pub fn draw() -> Self {
        const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut random = rand::rng();
        let mut draw = |length: usize| -> String {
            (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
        };
        Self { id: draw(6), secret: draw(16) }
    }

    /// Reads a text; `None` if it does not have the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let good = id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret);
        good.then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The Secret by which the API server knows it, good until `expires` (whole seconds).
    pub fn object(&self, expires: Timestamp, what: &str) -> Value {
        let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
        let encode = |text: &str| STANDARD.encode(text);
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{}", self.id), "namespace": Self::NAMESPACE},
        "data": {
            "auth-extra-groups": encode("system:bootstrappers:kubeadm:default-node-token"),
            "description": encode(what),
            "expiration": encode(&expires.to_string()),
            "token-id": encode(&self.id),
            "token-secret": encode(&self.secret),
            "usage-bootstrap-authentication": encode("true"),
            "usage-bootstrap-signing": encode("true"),
        }})
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

/// The secret part stays out of logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.…", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_bootstrap_form() {
        let token = JoinToken::draw();
        assert_eq!(JoinToken::parse(&token.to_string()), Some(token.clone()));
        assert_ne!(JoinToken::draw(), token);
        assert!(!format!("{token:?}").contains(token.secret()));
        for bad in ["abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcde.0123456789abcdef"] {
            assert_eq!(JoinToken::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn its_secret_says_until_when_it_is_good() {
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let object = token.object("2030-01-01T00:00:00.5Z".parse().unwrap(), "why");
        assert_eq!(object["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(object["data"]["expiration"], STANDARD.encode("2030-01-01T00:00:00Z"));
        assert_eq!(object["data"]["token-secret"], STANDARD.encode("0123456789abcdef"));
    }
}
