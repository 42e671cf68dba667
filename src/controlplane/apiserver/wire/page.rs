//! Continue tokens of paged lists.

use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use serde::{Deserialize, Serialize};

/// Where a paged list goes on. Clients must treat the token as opaque; it is base64 of a small JSON object, as upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    #[serde(rename = "v", default)]
    version: String,
    /// The snapshot that all pages show; 0: the current state, for a list that outlived its snapshot.
    #[serde(rename = "rv", default)]
    pub revision: u64,
    /// The key of the last object handed out, without the list's prefix.
    #[serde(rename = "start", default)]
    pub after: String,
}

/// The token was not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("invalid continue token: continue key is not valid: {0}")]
pub struct ContinueError(String);

impl Continue {
    const VERSION: &'static str = "meta.k8s.io/v1";

    pub fn new(revision: u64, after: impl Into<String>) -> Self {
        Self { version: Self::VERSION.to_owned(), revision, after: after.into() }
    }

    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("plain strings and numbers always encode");
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    pub fn decode(token: &str) -> Result<Self, ContinueError> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| {
            let (DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) = error else {
                return ContinueError("unexpected end of the base64 data".to_owned());
            };
            ContinueError(format!("illegal base64 data at input byte {at}"))
        })?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| ContinueError(error.to_string()))?;
        match token.version.as_str() {
            Self::VERSION if !token.after.is_empty() => Ok(token),
            Self::VERSION => {
                Err(ContinueError("encoded start key empty (version meta.k8s.io/v1)".to_owned()))
            }
            other => Err(ContinueError(format!("server does not recognize this encoded version {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip_and_nothing_else_does() {
        let token = Continue::new(42, "default/a");
        assert_eq!(Continue::decode(&token.encode()).expect("our own"), token);
        assert!(Continue::decode("garbage!").is_err());
        assert!(Continue::decode("e30").is_err());
    }
}
