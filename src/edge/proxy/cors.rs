//! What browsers may do across origins (the Fetch standard's CORS protocol), decided here so that endpoints need not.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Whom, and what, answers allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `*`, whole origins, or origins whose host begins with `*`.
    pub origins: Vec<String>,
    pub credentials: bool,
    /// Each may be `*`.
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    /// How long an answer holds, in seconds.
    pub max_age: u32,
}

impl Cors {
    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|own| match own.split_once('*') {
            None => own.eq_ignore_ascii_case(origin),
            Some((before, after)) => {
                let (own, origin) =
                    ((before.to_ascii_lowercase(), after.to_ascii_lowercase()), origin.to_ascii_lowercase());
                origin.len() > own.0.len() + own.1.len()
                    && origin.starts_with(&own.0)
                    && origin.ends_with(&own.1)
            }
        })
    }

    /// What an answer to a request of this origin says.
    pub(super) fn answer(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(origin) = asked.get(header::ORIGIN) else { return headers };
        if !origin.to_str().is_ok_and(|origin| self.allows(origin)) {
            return headers;
        }
        let anyone = !self.credentials && self.origins.iter().any(|own| own == "*");
        let allowed = if anyone { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if !anyone {
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        put(&mut headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose.join(", "));
        headers
    }

    /// The same for a request that only asks what it may do.
    pub(super) fn preflight(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = self.answer(asked);
        if headers.is_empty() {
            return headers;
        }
        let wish = |name: HeaderName| asked.get(name).and_then(|wish| wish.to_str().ok()).unwrap_or_default();
        let list = |own: &[String], wish: &str| match own {
            // With credentials a `*` would be the name of a method.
            own if own.iter().any(|one| one == "*") && self.credentials => wish.to_owned(),
            own => own.join(", "),
        };
        let methods = list(&self.methods, wish(header::ACCESS_CONTROL_REQUEST_METHOD));
        put(&mut headers, header::ACCESS_CONTROL_ALLOW_METHODS, &methods);
        let names = list(&self.headers, wish(header::ACCESS_CONTROL_REQUEST_HEADERS));
        put(&mut headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &names);
        put(&mut headers, header::ACCESS_CONTROL_MAX_AGE, &self.max_age.to_string());
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        headers
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Some(value) = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_get_what_they_may() {
        let cors = |origins: &[&str], credentials: bool| Cors {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            credentials,
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["*".into()],
            expose: vec!["x-a".into(), "x-b".into()],
            max_age: 5,
        };
        let asked: HeaderMap = [
            (header::ORIGIN, HeaderValue::from_static("https://www.a.example")),
            (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
            (header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-c")),
        ]
        .into_iter()
        .collect();
        let text = |headers: HeaderMap| {
            let mut all: Vec<String> = headers
                .iter()
                .map(|(name, value)| {
                    let name = name.as_str().trim_start_matches("access-control-");
                    format!("{name}={}", value.to_str().expect("text"))
                })
                .collect();
            all.sort_unstable();
            all.join(" ")
        };
        assert_eq!(text(cors(&["*"], false).answer(&asked)), "allow-origin=* expose-headers=x-a, x-b");
        assert_eq!(
            text(cors(&["https://*.a.example"], true).preflight(&asked)),
            "allow-credentials=true allow-headers=x-c allow-methods=GET, PUT allow-origin=https://www.a.example max-age=5 vary=origin"
        );
        assert_eq!(
            text(cors(&["*"], false).preflight(&asked)),
            "allow-headers=* allow-methods=GET, PUT allow-origin=* max-age=5"
        );
        for other in ["https://a.example", "http://www.a.example", "https://*.b.example"] {
            assert_eq!(text(cors(&[other], false).preflight(&asked)), "", "{other}");
        }
    }
}
