//! What annotations say of an Ingress: those of ingress-nginx that are most used, by their own names.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::typed::NGINX;

/// As ingress-nginx has it when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How requests of an Ingress are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Replaces the path; `$1` and `$2` are what the path's groups matched.
    pub rewrite: Option<String>,
    /// Plain HTTP is sent to HTTPS.
    pub force_tls: bool,
    /// Every request is sent there, with this status.
    pub redirect: Option<(u16, String)>,
    /// Requests for `/` are sent there.
    pub app_root: Option<String>,
    /// The largest body, in bytes.
    pub body_limit: Option<u64>,
    /// How long an endpoint may take until its answer begins.
    pub read_timeout: Duration,
    /// Endpoints speak HTTP/2 without TLS.
    pub http2: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rewrite: None,
            force_tls: false,
            redirect: None,
            app_root: None,
            body_limit: None,
            read_timeout: TIMEOUT,
            http2: false,
        }
    }
}

impl Settings {
    /// Reads the annotations; values that cannot be read count as not given (an Event of the Ingress tells of them).
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| annotations.get(&format!("{NGINX}{name}")).map(String::as_str);
        let yes = |name: &str| get(name) == Some("true");
        let code = |name: &str, default: u16| get(name).and_then(|code| code.parse().ok()).unwrap_or(default);
        let permanent =
            get("permanent-redirect").map(|to| (code("permanent-redirect-code", 301), to.to_owned()));
        let temporal =
            get("temporal-redirect").map(|to| (code("temporal-redirect-code", 302), to.to_owned()));
        Self {
            rewrite: get("rewrite-target").map(str::to_owned),
            force_tls: yes("ssl-redirect") || yes("force-ssl-redirect"),
            redirect: permanent.or(temporal),
            app_root: get("app-root").map(str::to_owned),
            body_limit: get("proxy-body-size").and_then(size).filter(|bytes| *bytes > 0),
            read_timeout: get("proxy-read-timeout")
                .and_then(|seconds| seconds.trim_end_matches('s').parse().ok())
                .map_or(TIMEOUT, Duration::from_secs),
            http2: get("backend-protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("GRPC")),
        }
    }
}

/// `8m`, `512k`, `1g` or bytes, as nginx writes sizes.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, factor) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(number) if text.ends_with('k') => (number, 1 << 10),
        Some(number) if text.ends_with('m') => (number, 1 << 20),
        Some(number) => (number, 1 << 30),
        None => (text.as_str(), 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_as_nginx_reads_them() {
        let of = |pairs: &[(&str, &str)]| {
            let all = pairs.iter().map(|(name, value)| (format!("{NGINX}{name}"), (*value).to_owned()));
            Settings::of(&all.collect())
        };
        assert_eq!(of(&[]), Settings::default());
        assert_eq!(of(&[("proxy-body-size", "8m")]).body_limit, Some(8 << 20));
        assert_eq!(of(&[("proxy-body-size", "0")]).body_limit, None, "0 is no limit");
        assert_eq!(of(&[("proxy-read-timeout", "5")]).read_timeout, Duration::from_secs(5));
        assert_eq!(of(&[("permanent-redirect", "https://x/")]).redirect, Some((301, "https://x/".into())));
        assert!(of(&[("force-ssl-redirect", "true")]).force_tls);
        assert!(of(&[("backend-protocol", "grpc")]).http2);
    }
}
