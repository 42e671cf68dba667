//! Makes links and redirects of what was passed on lead through this server again (upstream's proxy transport).

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, Uri};

use super::Location;
use super::html::Links;

/// How one answer is to be changed.
#[derive(Clone, Debug)]
pub(super) struct Rewriting {
    /// The path before what was passed on, without a slash at its end.
    outside: String,
    /// What the other server thinks it is called.
    inner_host: String,
    /// What the client thinks this server is called.
    outer_host: String,
    path: String,
}

impl Rewriting {
    /// For a request with these headers to this place; in HTTP/2 the client names this server in the URI.
    pub(super) fn new(location: &Location, outside: &str, headers: &HeaderMap, uri: &Uri) -> Self {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or(uri.authority().map(http::uri::Authority::as_str));
        Self {
            outside: outside.to_owned(),
            inner_host: format!("{}:{}", location.host, location.port),
            outer_host: host.unwrap_or_default().to_owned(),
            path: location.path.split('?').next().unwrap_or_default().to_owned(),
        }
    }

    /// Tells the other server under which name and path its client sees it. The page must come as it is: what is packed cannot
    /// be changed.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let html = headers
            .get(header::ACCEPT)
            .is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")));
        if html {
            headers.remove(header::ACCEPT_ENCODING);
        }
        let told = [
            ("x-forwarded-uri", format!("{}{}", self.outside, self.path)),
            ("x-forwarded-host", self.outer_host.clone()),
            ("x-forwarded-proto", "https".to_owned()),
        ];
        for (name, value) in told {
            if let Ok(value) = HeaderValue::from_str(&value)
                && !value.is_empty()
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    /// The answer as the client is to see it.
    pub(super) fn response(self, mut response: Response<Body>) -> Response<Body> {
        let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        if let Some(to) = location.and_then(|to| self.link(to))
            && let Ok(to) = HeaderValue::from_str(&to)
        {
            response.headers_mut().insert(header::LOCATION, to);
        }
        let text = |name: HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let kind = text(header::CONTENT_TYPE);
        let html = kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/html");
        if !html || !matches!(text(header::CONTENT_ENCODING).as_str(), "" | "identity") {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        let mut links = Links::new(move |link: &str| self.link(link));
        let pieces = body.into_data_stream().map(Some).chain(futures::stream::iter([None]));
        let changed = pieces.map(move |piece| match piece {
            Some(Ok(piece)) => Ok(Bytes::from(links.push(&piece))),
            Some(Err(error)) => Err(error),
            None => Ok(Bytes::from(links.finish())),
        });
        Response::from_parts(parts, Body::from_stream(changed))
    }

    /// A link as the client must follow it; `None` if it may stay as it is: it is relative, leads to somebody else, or through
    /// here already.
    fn link(&self, link: &str) -> Option<String> {
        let uri: Uri = link.parse().ok()?;
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let elsewhere = !host.is_empty() && host != self.inner_host && host != self.outer_host;
        if elsewhere || !uri.path().starts_with('/') || link.starts_with('#') {
            return None;
        }
        // Without an authority only what begins with a slash is absolute; the parser knows no relative links.
        if host.is_empty() && !link.starts_with('/') {
            return None;
        }
        let rest = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let fragment = link.split_once('#').map(|(_, fragment)| format!("#{fragment}")).unwrap_or_default();
        let through = uri.path().starts_with(&self.outside);
        let path = if through { rest.to_owned() } else { format!("{}{rest}", self.outside) };
        let base = match uri.scheme_str() {
            Some(scheme) if host == self.outer_host && !host.is_empty() => format!("{scheme}://{host}"),
            _ => String::new(),
        };
        Some(format!("{base}{path}{fragment}")).filter(|changed| changed != link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Dial;
    use http_body_util::BodyExt as _;

    fn rewriting() -> Rewriting {
        let location = Location {
            host: [10, 1, 0, 7].into(),
            port: 8080,
            dial: Dial::Plain,
            path: "/a/b?x=1".to_owned(),
            outside: None,
        };
        let uri = Uri::from_static("https://api:6443/");
        Rewriting::new(&location, "/api/v1/namespaces/n/pods/p/proxy", &HeaderMap::new(), &uri)
    }

    #[test]
    fn links_of_the_server_lead_through_here() {
        let check = |link: &str, expect: Option<&str>| {
            assert_eq!(rewriting().link(link).as_deref(), expect, "{link}");
        };
        let out = "/api/v1/namespaces/n/pods/p/proxy";
        check("/x/", Some(&format!("{out}/x/")));
        check("/x?y=1#z", Some(&format!("{out}/x?y=1#z")));
        check("http://10.1.0.7:8080/x", Some(&format!("{out}/x")));
        check("https://api:6443/x", Some(&format!("https://api:6443{out}/x")));
        check(&format!("{out}/x"), None);
        check("http://example.com/x", None);
        check("x/y", None);
        check("#top", None);
        check("mailto:jane@example.com", None);
    }

    #[tokio::test]
    async fn pages_and_redirects_are_changed_and_other_things_are_not() {
        let answer = |kind: &'static str, body: &'static str| {
            Response::builder()
                .header("content-type", kind)
                .header("location", "/there")
                .body(Body::from(body))
                .unwrap()
        };
        let out = "/api/v1/namespaces/n/pods/p/proxy";
        let page = rewriting().response(answer("text/html; charset=utf-8", "<a href=\"/x\">"));
        assert_eq!(page.headers()["location"], format!("{out}/there").as_str());
        let text = page.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, format!("<a href=\"{out}/x\">"));
        let plain = rewriting().response(answer("text/plain", "<a href=\"/x\">"));
        assert_eq!(plain.into_body().collect().await.unwrap().to_bytes(), "<a href=\"/x\">");
    }
}
