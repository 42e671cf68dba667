//! What annotations say of an Ingress: those of ingress-nginx that are most used, by their own names; and what they say
//! that is not done. The proxy acts on them, the controller tells people of the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

/// How ingress-nginx's annotations begin.
pub const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendProtocol {
    /// What the Service's port says; HTTP/1.1 otherwise.
    #[default]
    Auto,
    Http,
    Https,
    Grpc,
    Grpcs,
}

/// A cookie that leads back to an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StickyCookie {
    pub wanted: bool,
    pub name: Option<String>,
    pub path: Option<String>,
    pub domain: Option<String>,
    /// Seconds.
    pub max_age: Option<u64>,
    pub secure: bool,
    pub same_site: Option<String>,
}

/// Who is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasicAuth {
    pub wanted: bool,
    /// The Secret with names and passwords, in the Ingress's namespace.
    pub secret: Option<String>,
    /// Each key of the Secret is a name, rather than one key `auth` being the file.
    pub map: bool,
    pub realm: Option<String>,
}

/// What browsers may do across origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsAnnotations {
    pub wanted: bool,
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub credentials: bool,
    /// Seconds.
    pub max_age: u32,
}

impl Default for CorsAnnotations {
    /// As ingress-nginx has it when nothing is said.
    fn default() -> Self {
        let list = |text: &str| words(text);
        Self {
            wanted: false,
            origins: list("*"),
            methods: list("GET, PUT, POST, DELETE, PATCH, OPTIONS"),
            headers: list(
                "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
            ),
            expose: Vec::new(),
            credentials: true,
            max_age: 1_728_000,
        }
    }
}

/// All of it. What was not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Replaces the path; `$1` and so on are what the groups of the path matched.
    pub rewrite: Option<String>,
    /// Paths are expressions.
    pub regex: bool,
    /// Plain HTTP is sent to HTTPS.
    pub force_tls: bool,
    /// Every request is sent there, with this status.
    pub redirect: Option<String>,
    pub redirect_code: Option<u16>,
    /// Requests for `/` are sent there.
    pub app_root: Option<String>,
    /// The host that endpoints see.
    pub upstream_host: Option<String>,
    /// Told to endpoints as `X-Forwarded-Prefix`.
    pub forwarded_prefix: Option<String>,
    /// The largest body, in bytes.
    pub body_limit: Option<u64>,
    pub connect_timeout: Option<Duration>,
    /// How long an endpoint may take until its answer begins.
    pub read_timeout: Option<Duration>,
    pub protocol: BackendProtocol,
    pub cookie: StickyCookie,
    pub auth: BasicAuth,
    pub cors: CorsAnnotations,
    /// The only networks that clients may be of.
    pub allowed: Vec<IpNet>,
    /// Networks that they may not be of.
    pub denied: Vec<IpNet>,
    /// What has no effect, in words for an Event.
    pub ignored: Vec<String>,
    /// What should protect and cannot: nothing of the Ingress is served, rather than openly.
    pub refused: Vec<String>,
}

/// What became of an annotation.
enum Read {
    Done,
    /// Its value cannot be used: what could be.
    Bad(&'static str),
    Unknown,
}

impl From<Option<()>> for Read {
    fn from(done: Option<()>) -> Self {
        done.map_or(Self::Bad("the value cannot be read"), |()| Self::Done)
    }
}

impl Annotations {
    /// Reads them.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        let mut own = Self::default();
        let nginx =
            annotations.iter().filter_map(|(name, value)| Some((name.strip_prefix(NGINX)?, value.trim())));
        for (name, value) in nginx {
            let steps = [Self::routing, Self::proxying, Self::cookies, Self::access, Self::cors];
            let read = steps
                .iter()
                .map(|step| step(&mut own, name, value))
                .find(|read| !matches!(read, Read::Unknown));
            let said = match read {
                Some(Read::Done) => continue,
                Some(Read::Bad(why)) => format!("{NGINX}{name}: {value} ({why})"),
                Some(Read::Unknown) | None => format!("{NGINX}{name}"),
            };
            if protects(name) { own.refused.push(said) } else { own.ignored.push(said) }
        }
        if own.auth.wanted && own.auth.secret.is_none() {
            own.refused.push(format!("{NGINX}auth-type: basic (auth-secret is missing)"));
        }
        own
    }

    fn routing(&mut self, name: &str, value: &str) -> Read {
        match name {
            "rewrite-target" => self.rewrite = Some(value.to_owned()),
            "use-regex" => self.regex = value == "true",
            "ssl-redirect" | "force-ssl-redirect" => self.force_tls |= value == "true",
            // A redirect for good counts before one for now.
            "permanent-redirect" => {
                self.redirect = Some(value.to_owned());
                self.redirect_code.get_or_insert(301);
            }
            "temporal-redirect" if self.redirect.is_none() => {
                self.redirect = Some(value.to_owned());
                self.redirect_code.get_or_insert(302);
            }
            "temporal-redirect" => {}
            "permanent-redirect-code" | "temporal-redirect-code" => {
                let code = value.parse().ok().filter(|code| (300..400).contains(code));
                return code.map(|code| self.redirect_code = Some(code)).into();
            }
            "app-root" => self.app_root = Some(value.to_owned()),
            "upstream-vhost" => self.upstream_host = Some(value.to_owned()),
            "x-forwarded-prefix" => self.forwarded_prefix = Some(value.to_owned()),
            _ => return Read::Unknown,
        }
        Read::Done
    }

    fn proxying(&mut self, name: &str, value: &str) -> Read {
        match name {
            "proxy-body-size" => {
                return size(value)
                    .map(|bytes| self.body_limit = Some(bytes).filter(|bytes| *bytes > 0))
                    .into();
            }
            "proxy-connect-timeout" => {
                return seconds(value).map(|time| self.connect_timeout = Some(time)).into();
            }
            "proxy-read-timeout" => return seconds(value).map(|time| self.read_timeout = Some(time)).into(),
            "backend-protocol" => {
                self.protocol = match value.to_ascii_uppercase().as_str() {
                    "HTTP" | "AUTO_HTTP" => BackendProtocol::Http,
                    "HTTPS" => BackendProtocol::Https,
                    "GRPC" => BackendProtocol::Grpc,
                    "GRPCS" => BackendProtocol::Grpcs,
                    _ => return Read::Bad("HTTP, HTTPS, GRPC and GRPCS are supported"),
                };
            }
            // They are so anyway.
            "proxy-request-buffering" | "proxy-buffering" if value == "off" => {}
            "proxy-http-version" if value == "1.1" => {}
            "proxy-ssl-verify" if value == "off" => {}
            "proxy-ssl-server-name" if value == "on" => {}
            _ => return Read::Unknown,
        }
        Read::Done
    }

    fn cookies(&mut self, name: &str, value: &str) -> Read {
        let cookie = &mut self.cookie;
        match name {
            "affinity" if value == "cookie" => cookie.wanted = true,
            "affinity" => return Read::Bad("cookie is supported"),
            "affinity-mode" if matches!(value, "balanced" | "persistent") => {}
            "affinity-mode" => return Read::Bad("balanced and persistent are supported"),
            "session-cookie-name" => cookie.name = Some(value.to_owned()),
            "session-cookie-path" => cookie.path = Some(value.to_owned()),
            "session-cookie-domain" => cookie.domain = Some(value.to_owned()),
            "session-cookie-max-age" | "session-cookie-expires" => {
                return value.parse().ok().map(|seconds| cookie.max_age = Some(seconds)).into();
            }
            "session-cookie-secure" => cookie.secure = value == "true",
            "session-cookie-samesite" => {
                let known = ["Strict", "Lax", "None"].iter().find(|known| known.eq_ignore_ascii_case(value));
                return known.map(|known| cookie.same_site = Some((*known).to_owned())).into();
            }
            // A client whose endpoint does not answer gets another one anyway.
            "session-cookie-change-on-failure" => {}
            _ => return Read::Unknown,
        }
        Read::Done
    }

    fn access(&mut self, name: &str, value: &str) -> Read {
        match name {
            "auth-type" if value == "basic" => self.auth.wanted = true,
            "auth-type" => return Read::Bad("basic is supported"),
            "auth-secret" if value.contains('/') => {
                return Read::Bad("a Secret of the Ingress's namespace, by its name");
            }
            "auth-secret" => self.auth.secret = Some(value.to_owned()),
            "auth-secret-type" if matches!(value, "auth-file" | "auth-map") => {
                self.auth.map = value == "auth-map"
            }
            "auth-secret-type" => return Read::Bad("auth-file and auth-map are supported"),
            "auth-realm" => self.auth.realm = Some(value.to_owned()),
            "whitelist-source-range" | "allowlist-source-range" => {
                return networks(value).map(|nets| self.allowed = nets).into();
            }
            "denylist-source-range" => return networks(value).map(|nets| self.denied = nets).into(),
            _ => return Read::Unknown,
        }
        Read::Done
    }

    fn cors(&mut self, name: &str, value: &str) -> Read {
        let cors = &mut self.cors;
        match name {
            "enable-cors" => cors.wanted = value == "true",
            "cors-allow-origin" => cors.origins = words(value),
            "cors-allow-methods" => cors.methods = words(value),
            "cors-allow-headers" => cors.headers = words(value),
            "cors-expose-headers" => cors.expose = words(value),
            "cors-allow-credentials" => cors.credentials = value == "true",
            "cors-max-age" => return value.parse().ok().map(|seconds| cors.max_age = seconds).into(),
            _ => return Read::Unknown,
        }
        Read::Done
    }
}

/// Whether people rely on an annotation to keep others out.
fn protects(name: &str) -> bool {
    ["auth-", "enable-global-auth", "enable-modsecurity"].iter().any(|begin| name.starts_with(begin))
        || name.ends_with("list-source-range")
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn networks(text: &str) -> Option<Vec<IpNet>> {
    let net = |word: &String| {
        word.parse().ok().or_else(|| Some(IpNet::from(word.parse::<std::net::IpAddr>().ok()?)))
    };
    words(text).iter().map(net).collect()
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim_end_matches('s').parse().ok().map(Duration::from_secs)
}

/// `8m`, `512k`, `1g` or bytes, as nginx writes sizes.
fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
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

    fn of(pairs: &[(&str, &str)]) -> Annotations {
        let all = pairs.iter().map(|(name, value)| (format!("{NGINX}{name}"), (*value).to_owned()));
        Annotations::of(&all.collect())
    }

    #[test]
    fn annotations_are_read_as_nginx_reads_them() {
        assert_eq!(of(&[]), Annotations::default());
        assert_eq!(of(&[("proxy-body-size", "8m")]).body_limit, Some(8 << 20));
        assert_eq!(of(&[("proxy-body-size", "0")]), Annotations::default(), "0 is no limit");
        assert_eq!(of(&[("proxy-read-timeout", "5")]).read_timeout, Some(Duration::from_secs(5)));
        let redirect = of(&[("temporal-redirect", "https://y/"), ("permanent-redirect", "https://x/")]);
        assert_eq!((redirect.redirect.as_deref(), redirect.redirect_code), (Some("https://x/"), Some(301)));
        let code = of(&[("permanent-redirect", "https://x/"), ("permanent-redirect-code", "308")]);
        assert_eq!(code.redirect_code, Some(308));
        assert!(of(&[("force-ssl-redirect", "true")]).force_tls);
        assert_eq!(of(&[("backend-protocol", "grpcs")]).protocol, BackendProtocol::Grpcs);
        let nets = of(&[("whitelist-source-range", "10.0.0.0/8, 192.0.2.1")]).allowed;
        assert_eq!(nets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.1/32"]);
        let cors = of(&[("enable-cors", "true"), ("cors-allow-origin", "https://a, https://b")]).cors;
        assert!(cors.wanted && cors.origins == ["https://a", "https://b"]);
        let cookie = of(&[("affinity", "cookie"), ("session-cookie-name", "route")]).cookie;
        assert!(cookie.wanted && cookie.name.as_deref() == Some("route"));
    }

    #[test]
    fn what_is_not_done_is_named() {
        let check = |pairs: &[(&str, &str)], ignored: &[&str], refused: &[&str]| {
            let (own, full) = (of(pairs), |names: &[&str]| {
                names.iter().map(|name| format!("{NGINX}{name}")).collect::<Vec<_>>()
            });
            assert_eq!((own.ignored, own.refused), (full(ignored), full(refused)), "{pairs:?}");
        };
        check(&[("rewrite-target", "/")], &[], &[]);
        check(&[("limit-rps", "5")], &["limit-rps"], &[]);
        check(
            &[("backend-protocol", "FCGI")],
            &["backend-protocol: FCGI (HTTP, HTTPS, GRPC and GRPCS are supported)"],
            &[],
        );
        check(
            &[("proxy-read-timeout", "soon")],
            &["proxy-read-timeout: soon (the value cannot be read)"],
            &[],
        );
        check(&[("auth-url", "http://x")], &[], &["auth-url"]);
        check(&[("auth-type", "digest")], &[], &["auth-type: digest (basic is supported)"]);
        check(&[("auth-type", "basic")], &[], &["auth-type: basic (auth-secret is missing)"]);
        check(
            &[("allowlist-source-range", "here")],
            &[],
            &["allowlist-source-range: here (the value cannot be read)"],
        );
    }
}
