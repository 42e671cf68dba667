//! How a client stays with its endpoint: a cookie names the endpoint by a digest, so that nothing has to be remembered here.

use std::net::SocketAddr;

use http::header::{COOKIE, HeaderMap, HeaderValue};

/// The cookie's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    pub cookie: String,
    pub path: String,
    pub domain: Option<String>,
    /// Seconds; None: until the browser ends.
    pub max_age: Option<u64>,
    pub secure: bool,
    /// `Strict`, `Lax` or `None`.
    pub same_site: Option<String>,
}

fn digest(endpoint: SocketAddr) -> String {
    let sum = ring::digest::digest(&ring::digest::SHA256, endpoint.to_string().as_bytes());
    hex::encode(&sum.as_ref()[..16])
}

impl Affinity {
    /// Where among the endpoints the client's own one stands, if it is still there.
    pub(super) fn own(&self, headers: &HeaderMap, endpoints: &[SocketAddr]) -> Option<usize> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == self.cookie)?;
        endpoints.iter().position(|endpoint| digest(*endpoint) == value)
    }

    /// What makes the client come back to this endpoint.
    pub(super) fn set_cookie(&self, endpoint: SocketAddr) -> Option<HeaderValue> {
        let mut text = format!("{}={}; Path={}", self.cookie, digest(endpoint), self.path);
        if let Some(domain) = &self.domain {
            text += &format!("; Domain={domain}");
        }
        if let Some(seconds) = self.max_age {
            text += &format!("; Max-Age={seconds}");
        }
        if self.secure {
            text += "; Secure";
        }
        if let Some(same_site) = &self.same_site {
            text += &format!("; SameSite={same_site}");
        }
        HeaderValue::from_str(&(text + "; HttpOnly")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_leads_back() {
        let affinity = Affinity {
            cookie: "route".into(),
            path: "/".into(),
            domain: None,
            max_age: Some(60),
            secure: true,
            same_site: Some("Lax".into()),
        };
        let endpoints: Vec<SocketAddr> =
            (1..4).map(|last| SocketAddr::from(([10, 0, 0, last], 80))).collect();
        let cookie = affinity.set_cookie(endpoints[1]).expect("a cookie");
        let cookie = cookie.to_str().expect("text");
        assert!(cookie.ends_with("; Path=/; Max-Age=60; Secure; SameSite=Lax; HttpOnly"), "{cookie}");
        let pair = cookie.split(';').next().expect("a pair");
        let headers =
            |value: &str| HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(value).expect("a value"))]);
        assert_eq!(affinity.own(&headers(&format!("a=b; {pair}")), &endpoints), Some(1));
        assert_eq!(affinity.own(&headers(pair), &endpoints[2..]), None, "the endpoint is gone");
        assert_eq!(affinity.own(&headers("route=x"), &endpoints), None);
    }
}
