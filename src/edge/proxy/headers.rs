//! Headers between two neighbours, and those that tell an endpoint who asked for what.

use http::Request;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::forward::Peer;

/// Headers that are between two neighbours and go no further (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What was asked for: a host, and the port if one was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// In small letters.
    pub name: String,
    pub port: Option<u16>,
}

/// The host that was asked for.
pub(super) fn host_of<B>(request: &Request<B>) -> Option<Host> {
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    let authority = request.uri().authority().map(http::uri::Authority::as_str).or_else(header)?;
    let authority: http::uri::Authority = authority.parse().ok()?;
    Some(Host { name: authority.host().to_ascii_lowercase(), port: authority.port_u16() })
}

/// Whether the client wants to speak something else than HTTP from here on.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(header::UPGRADE)
        && tokens.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Whether a request is one of gRPC's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Takes out what concerns this connection only, and what `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    // Of what may follow a body, only trailers are passed on.
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if !trailers {
        headers.remove(header::TE);
    }
}

/// Tells the endpoint who asked for what.
pub(super) fn forwarded(headers: &mut HeaderMap, peer: &Peer, host: &Host) {
    strip(headers);
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let client = peer.address.ip().to_canonical().to_string();
    let whole = host.port.map_or_else(|| host.name.clone(), |port| format!("{}:{port}", host.name));
    // What a client claims of those before it is not believed.
    set("x-forwarded-for", client.clone());
    set("x-real-ip", client);
    set("x-forwarded-proto", if peer.tls() { "https" } else { "http" }.into());
    set("x-forwarded-host", whole.clone());
    set("x-forwarded-port", host.port.unwrap_or(peer.port).to_string());
    if !headers.contains_key(header::HOST)
        && let Ok(whole) = HeaderValue::from_str(&whole)
    {
        headers.insert(header::HOST, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_between_neighbours_go_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-secret"),
            ("x-secret", "1"),
            ("te", "gzip"),
            ("keep-alive", "timeout=5"),
            ("x-forwarded-for", "1.2.3.4"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let peer = Peer { address: ([192, 0, 2, 1], 9).into(), port: 443, name: Some("a.example".into()) };
        forwarded(&mut headers, &peer, &Host { name: "a.example".into(), port: None });
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expect =
            "accept host x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip";
        assert_eq!(names.join(" "), expect);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn hosts_are_read_with_and_without_ports() {
        let host = |value: &'static str| {
            let host = host_of(&Request::builder().header("host", value).body(()).expect("built"))?;
            Some((host.name, host.port))
        };
        assert_eq!(host("A.example:8080"), Some(("a.example".into(), Some(8080))));
        assert_eq!(host("10.0.0.1"), Some(("10.0.0.1".into(), None)));
        assert_eq!(host("a b"), None);
    }
}
