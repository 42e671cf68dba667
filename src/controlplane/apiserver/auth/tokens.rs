//! Signs and checks ServiceAccount tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::digest;

use super::claims::Claims;
use pki::Key;

/// Who issues this cluster's ServiceAccount tokens, and the audience of tokens for its API.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and verifies ServiceAccount tokens (ES256).
pub struct Tokens {
    header: Header,
    encoding: EncodingKey,
    decoding: DecodingKey,
    public: Vec<u8>,
    /// Signatures found good, by the token's hash: verifying one costs more than the rest of a small request.
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl Tokens {
    /// How many verified tokens are remembered; all are forgotten when there are more.
    const REMEMBERED: usize = 2048;

    pub fn new(key: &Key) -> Self {
        let public = key.public_raw().to_vec();
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(key_id(&public));
        Self {
            header,
            encoding: EncodingKey::from_ec_der(key.der()),
            decoding: DecodingKey::from_ec_der(&public),
            public,
            verified: Mutex::default(),
        }
    }

    /// The token that says `claims`.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&self.header, claims, &self.encoding)
    }

    /// What a token says, if this cluster issued it. Times and bound objects are for the caller to check.
    pub fn verify(&self, token: &str) -> Option<Arc<Claims>> {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let hash: [u8; 32] = digest.as_ref().try_into().ok()?;
        let known = self.lock().get(&hash).cloned();
        if known.is_some() {
            return known;
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        validation.set_issuer(&[ISSUER]);
        let claims =
            Arc::new(jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).ok()?.claims);
        let mut verified = self.lock();
        if verified.len() >= Self::REMEMBERED {
            verified.clear();
        }
        verified.insert(hash, Arc::clone(&claims));
        Some(claims)
    }

    /// The public key as a JSON Web Key Set, for `/openid/v1/jwks`.
    pub fn key_set(&self) -> serde_json::Value {
        let (x, y) = self.public[1..].split_at((self.public.len() - 1) / 2);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.header.kid, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Claims>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_id(public: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, public))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_tokens_are_believed() {
        let tokens = Tokens::new(&Key::generate().unwrap());
        let claims = Claims {
            iss: ISSUER.into(),
            sub: "system:serviceaccount:a:b".into(),
            exp: 7,
            ..Claims::default()
        };
        let token = tokens.sign(&claims).unwrap();
        assert_eq!(tokens.verify(&token).as_deref(), Some(&claims));
        assert_eq!(tokens.verify(&token).as_deref(), Some(&claims), "from memory");
        assert_eq!(Tokens::new(&Key::generate().unwrap()).verify(&token), None);
        let mut forged = token.clone();
        forged.replace_range(token.len() - 4.., "AAAA");
        assert_eq!(tokens.verify(&forged), None);
        assert_eq!(tokens.verify("a.b.c"), None);
        let foreign = tokens.sign(&Claims { iss: "https://other".into(), ..claims }).unwrap();
        assert_eq!(tokens.verify(&foreign), None);
        assert_eq!(tokens.key_set()["keys"][0]["crv"], "P-256");
    }
}
