//! What an Ingress's annotations do to its requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::proxy::{
    Affinity, Cors, Filter, HeaderChanges, PathChange, Protocol, Redirect, Rewrite, Settings,
};
use crate::secrets::Look;
use client::typed::{Annotations, BackendProtocol, CorsAnnotations, SecretKey};

/// The cookie's name when nothing is said, as ingress-nginx has it.
const COOKIE: &str = "INGRESSCOOKIE";

/// The same for all paths of one Ingress.
pub(super) struct Treatment {
    pub annotations: Annotations,
    pub filters: Vec<Filter>,
    pub settings: Settings,
}

impl Treatment {
    pub(super) fn of(namespace: &str, annotations: &BTreeMap<String, String>, look: &mut Look) -> Self {
        let annotations = Annotations::of(annotations);
        let filters = filters(namespace, &annotations, look);
        Self { filters, settings: settings(&annotations), annotations }
    }
}

/// In the order in which they act: who may, then where to, then what is seen.
fn filters(namespace: &str, annotations: &Annotations, look: &mut Look) -> Vec<Filter> {
    let mut filters = Vec::new();
    let unavailable = |why: String| Filter::Refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    filters.extend(annotations.refused.first().map(|what| unavailable(format!("{what} is not supported\n"))));
    let (of, but) = (annotations.allowed.clone(), annotations.denied.clone());
    if !of.is_empty() || !but.is_empty() {
        filters.push(Filter::Clients { of, but });
    }
    if annotations.force_tls {
        let status = StatusCode::PERMANENT_REDIRECT;
        let scheme = Some("https".to_owned());
        filters.push(Filter::Redirect(Redirect { status, scheme, only_plain: true, ..Redirect::default() }));
    }
    filters.extend(annotations.cors.wanted.then(|| Filter::Cors(Arc::new(cors(&annotations.cors)))));
    if let Some(secret) = annotations.auth.secret.as_ref().filter(|_| annotations.auth.wanted) {
        let realm = annotations.auth.realm.clone().unwrap_or_else(|| "Authentication Required".to_owned());
        let key = SecretKey::new(namespace, secret);
        filters.push(match look.users(&key, annotations.auth.map) {
            Some(users) => Filter::Users { users, realm },
            None => unavailable(format!("Secret {key} with people's names is missing\n")),
        });
    }
    if let Some(to) = &annotations.redirect {
        let status = annotations.redirect_code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.unwrap_or(StatusCode::FOUND);
        filters.push(Filter::Redirect(Redirect { status, to: Some(to.clone()), ..Redirect::default() }));
    }
    let host = annotations.upstream_host.as_ref().and_then(|host| HeaderValue::from_str(host).ok());
    let path = annotations.rewrite.clone().map(PathChange::Groups);
    if host.is_some() || path.is_some() {
        filters.push(Filter::Rewrite(Rewrite { host, path }));
    }
    let prefix = annotations.forwarded_prefix.as_ref().and_then(|prefix| HeaderValue::from_str(prefix).ok());
    if let Some(prefix) = prefix {
        let set = vec![(HeaderName::from_static("x-forwarded-prefix"), prefix)];
        filters.push(Filter::RequestHeaders(HeaderChanges { set, ..HeaderChanges::default() }));
    }
    filters
}

fn cors(said: &CorsAnnotations) -> Cors {
    Cors {
        origins: said.origins.clone(),
        credentials: said.credentials,
        methods: said.methods.clone(),
        headers: said.headers.clone(),
        expose: said.expose.clone(),
        max_age: said.max_age,
    }
}

fn settings(annotations: &Annotations) -> Settings {
    let default = Settings::default();
    let cookie = &annotations.cookie;
    Settings {
        body_limit: annotations.body_limit,
        connect_timeout: annotations.connect_timeout.unwrap_or(default.connect_timeout),
        attempt_timeout: annotations.read_timeout.or(default.attempt_timeout),
        protocol: match annotations.protocol {
            BackendProtocol::Auto => None,
            BackendProtocol::Http => Some(Protocol::Http),
            BackendProtocol::Https => Some(Protocol::Https),
            BackendProtocol::Grpc => Some(Protocol::Http2),
            BackendProtocol::Grpcs => Some(Protocol::Http2Tls),
        },
        affinity: cookie.wanted.then(|| Affinity {
            cookie: cookie.name.clone().unwrap_or_else(|| COOKIE.to_owned()),
            path: cookie.path.clone().unwrap_or_else(|| "/".to_owned()),
            domain: cookie.domain.clone(),
            max_age: cookie.max_age,
            secure: cookie.secure,
            same_site: cookie.same_site.clone(),
        }),
        ..default
    }
}
