//! How others verify this cluster's ServiceAccount tokens: the issuer's configuration, and its keys.

use axum::body::Body;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use crate::auth::{ISSUER, Tokens};
use crate::wire;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// Where the two documents are.
pub const PATHS: [&str; 2] = [CONFIGURATION, KEYS];

/// Answers one of the documents; `None` for another path.
pub fn answer(path: &str, tokens: &Tokens) -> Option<Response<Body>> {
    let (content_type, document) = match path {
        CONFIGURATION => {
            let document = json!({
                "issuer": ISSUER,
                "jwks_uri": format!("{ISSUER}{KEYS}"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            ("application/json", document)
        }
        KEYS => ("application/jwk-set+json", tokens.key_set()),
        _ => return None,
    };
    let mut response = wire::raw(StatusCode::OK, content_type, document.to_string());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::Key;

    #[test]
    fn the_issuer_says_where_its_keys_are() {
        let tokens = Tokens::new(&Key::generate().unwrap());
        let kind = |path: &str| {
            answer(path, &tokens).map(|answer| answer.headers()["content-type"].to_str().unwrap().to_owned())
        };
        assert_eq!(kind(CONFIGURATION).as_deref(), Some("application/json"));
        assert_eq!(kind(KEYS).as_deref(), Some("application/jwk-set+json"));
        assert_eq!(kind("/openid/v1"), None);
    }
}
