//! What a request asks for, read from method, path and query alone, by the rules of upstream's request-info resolver.

use std::borrow::Cow;

use http::Method;

/// Subresources of a namespace itself; any other third path segment is a resource inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// The attributes of a request that authorisation, admission and routing decide on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// A resource verb (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`), or
    /// for a non-resource path the method in lower case.
    pub verb: &'static str,
    /// `api` for the core group, `apis` for named groups; empty for non-resource paths.
    pub api_prefix: &'static str,
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// The plural, `pods`.
    pub resource: String,
    /// Empty if none.
    pub subresource: String,
    /// Empty if none. For a request on a namespace itself it is that namespace, as upstream has it.
    pub namespace: String,
    /// Empty if none. For list and watch with a field selector on `metadata.name`, that name.
    pub name: String,
    /// The decoded path.
    pub path: String,
    /// What follows the subresource (or, for the old `/proxy/` form, the name), without a leading slash: what is proxied to.
    pub tail: String,
    /// False for discovery, health, OpenAPI and the like.
    pub is_resource: bool,
}

impl RequestInfo {
    /// Reads a request line.
    pub fn new(method: &Method, path: &str, query: Option<&str>) -> Self {
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let mut info = Self { verb: method_word(method), path: path.clone().into_owned(), ..Self::default() };
        let mut parts = path.trim_matches('/').split('/').peekable();
        match parts.next() {
            Some("api") => info.api_prefix = "api",
            Some("apis") => info.api_prefix = "apis",
            _ => return info,
        }
        if info.api_prefix == "apis" {
            info.group = parts.next().unwrap_or_default().to_owned();
        }
        info.version = parts.next().unwrap_or_default().to_owned();
        if parts.peek().is_none_or(|part| part.is_empty()) {
            return Self { verb: info.verb, path: info.path, ..Self::default() };
        }
        info.is_resource = true;
        info.verb = method_verb(method);
        let special = match parts.peek() {
            Some(&"watch") => Some("watch"),
            Some(&"proxy") => Some("proxy"),
            _ => None,
        };
        if let Some(verb) = special {
            info.verb = verb;
            parts.next();
        }
        let parts: Vec<&str> = parts.collect();
        info.read_resource(&parts);
        info.refine_verb(query.unwrap_or_default());
        info
    }

    fn read_resource<'a>(&mut self, mut parts: &'a [&'a str]) {
        if let ["namespaces", namespace, rest @ ..] = parts {
            self.namespace = (*namespace).to_owned();
            if rest.first().is_some_and(|next| !NAMESPACE_SUBRESOURCES.contains(next)) {
                parts = rest;
            }
        }
        let Some((resource, rest)) = parts.split_first() else { return };
        self.resource = (*resource).to_owned();
        let Some((name, rest)) = rest.split_first() else { return };
        self.name = (*name).to_owned();
        if self.verb == "proxy" {
            self.tail = rest.join("/");
            return;
        }
        let Some((subresource, rest)) = rest.split_first() else { return };
        self.subresource = (*subresource).to_owned();
        self.tail = rest.join("/");
    }

    fn refine_verb(&mut self, query: &str) {
        if self.verb == "watch" {
            return;
        }
        if self.name.is_empty() {
            match self.verb {
                "get" if query_flag(query, "watch") => self.verb = "watch",
                "get" => self.verb = "list",
                "delete" => self.verb = "deletecollection",
                _ => return,
            }
            if matches!(self.verb, "list" | "watch")
                && query.contains("metadata.name")
                && let Some(name) = selected_name(query)
            {
                self.name = name;
            }
        }
    }

    /// Whether the path names one object, as opposed to one picked by a field selector.
    pub fn is_collection(&self) -> bool {
        matches!(self.verb, "list" | "watch" | "deletecollection" | "create")
    }

    /// `pods`, or `pods/log`: how RBAC rules name it.
    pub fn resource_path(&self) -> Cow<'_, str> {
        if self.subresource.is_empty() {
            Cow::Borrowed(&self.resource)
        } else {
            Cow::Owned(format!("{}/{}", self.resource, self.subresource))
        }
    }
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        Method::CONNECT => "connect",
        Method::TRACE => "trace",
        _ => "",
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The first value of a query parameter.
pub fn query_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// A boolean query parameter as upstream reads it: absent, `false` and `0` are false, all else (the empty value too) is true.
pub fn query_flag(query: &str, name: &str) -> bool {
    query_value(query, name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
}

/// The name that a field selector asks for exactly.
fn selected_name(query: &str) -> Option<String> {
    let (_, selector) = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "fieldSelector")?;
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `METHOD uri` -> `verb group/version resource/subresource namespace name tail`.
    fn check(request: &str, expect: &str) {
        let (method, uri) = request.split_once(' ').expect("method and uri");
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let info = RequestInfo::new(&method.parse().expect("method"), path, query);
        let said = if info.is_resource {
            let RequestInfo { verb, group, version, namespace, name, tail, .. } = &info;
            format!(
                "{verb} {group}/{version} {} ns={namespace} name={name} tail={tail}",
                info.resource_path()
            )
        } else {
            format!("{} {}", info.verb, info.path)
        };
        assert_eq!(said, expect, "{request}");
    }

    #[test]
    fn requests_are_read_as_upstream_reads_them() {
        check("GET /api/v1/namespaces", "list /v1 namespaces ns= name= tail=");
        check("GET /api/v1/namespaces/other", "get /v1 namespaces ns=other name=other tail=");
        check(
            "PUT /api/v1/namespaces/other/finalize",
            "update /v1 namespaces/finalize ns=other name=other tail=",
        );
        check("GET /api/v1/namespaces/other/pods", "list /v1 pods ns=other name= tail=");
        check("GET /api/v1/namespaces/other/pods/foo", "get /v1 pods ns=other name=foo tail=");
        check("HEAD /api/v1/namespaces/other/pods/foo", "get /v1 pods ns=other name=foo tail=");
        check("GET /api/v1/pods?watch=1", "watch /v1 pods ns= name= tail=");
        check("GET /api/v1/pods?watch=true&resourceVersion=5", "watch /v1 pods ns= name= tail=");
        check("GET /api/v1/pods?watch=", "watch /v1 pods ns= name= tail=");
        check("GET /api/v1/pods?watch=false", "list /v1 pods ns= name= tail=");
        check("GET /api/v1/pods?watch=0", "list /v1 pods ns= name= tail=");
        check("GET /api/v1/watch/pods", "watch /v1 pods ns= name= tail=");
        check("GET /api/v1/watch/namespaces/other/pods/foo", "watch /v1 pods ns=other name=foo tail=");
        check("DELETE /api/v1/namespaces/other/pods", "deletecollection /v1 pods ns=other name= tail=");
        check("DELETE /api/v1/namespaces/other/pods/foo", "delete /v1 pods ns=other name=foo tail=");
        check("POST /api/v1/namespaces/other/pods", "create /v1 pods ns=other name= tail=");
        check(
            "GET /api/v1/namespaces/other/pods/foo/proxy/a/b?x=1",
            "get /v1 pods/proxy ns=other name=foo tail=a/b",
        );
        check("GET /api/v1/proxy/namespaces/other/pods/foo/a", "proxy /v1 pods ns=other name=foo tail=a");
        check(
            "PATCH /apis/apps/v1/namespaces/a/deployments/b",
            "patch apps/v1 deployments ns=a name=b tail=",
        );
        check(
            "PUT /apis/apps/v1/namespaces/a/deployments/b/scale",
            "update apps/v1 deployments/scale ns=a name=b tail=",
        );
    }

    #[test]
    fn a_field_selector_on_the_name_names_the_object() {
        check("GET /api/v1/pods?fieldSelector=metadata.name%3Dfoo", "list /v1 pods ns= name=foo tail=");
        check(
            "GET /api/v1/pods?watch=1&fieldSelector=metadata.name==foo",
            "watch /v1 pods ns= name=foo tail=",
        );
        check("GET /api/v1/pods?fieldSelector=metadata.name!%3Dfoo", "list /v1 pods ns= name= tail=");
    }

    #[test]
    fn all_else_is_not_a_resource() {
        check("GET /", "get /");
        check("GET /api", "get /api");
        check("GET /api/v1", "get /api/v1");
        check("GET /apis/apps", "get /apis/apps");
        check("GET /apis/apps/v1/", "get /apis/apps/v1/");
        check("POST /healthz", "post /healthz");
    }
}
