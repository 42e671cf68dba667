//! The Gateway API's filters, as the proxy has them.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::proxy::{Backend, Cors, Filter, HeaderChanges, PathChange, Redirect, Rewrite};
use client::gateway::{
    CorsFilter, HeaderFilter, MirrorFilter, NamedValue, PathModifier, RedirectFilter, RewriteFilter,
    RouteFilter,
};

/// How long browsers keep what they were told, when nothing is said; in seconds.
const CORS_AGE: u32 = 5;

/// The filter; `backend` finds who gets copies.
pub(super) fn filter(filter: &RouteFilter, backend: impl Fn(&MirrorFilter) -> Backend) -> Filter {
    let unknown = || {
        let why = format!("the filter {} is not supported\n", filter.r#type);
        Filter::Refuse(StatusCode::INTERNAL_SERVER_ERROR, why)
    };
    let found = match filter.r#type.as_str() {
        "RequestHeaderModifier" => {
            filter.request_header_modifier.as_ref().map(|header| Filter::RequestHeaders(headers(header)))
        }
        "ResponseHeaderModifier" => {
            filter.response_header_modifier.as_ref().map(|header| Filter::ResponseHeaders(headers(header)))
        }
        "RequestRedirect" => filter.request_redirect.as_ref().map(|to| Filter::Redirect(redirect(to))),
        "URLRewrite" => filter.url_rewrite.as_ref().map(|to| Filter::Rewrite(rewrite(to))),
        "RequestMirror" => {
            filter.request_mirror.as_ref().map(|mirror| Filter::Mirror(backend(mirror), thousandths(mirror)))
        }
        "CORS" => filter.cors.as_ref().map(|said| Filter::Cors(Arc::new(cors(said)))),
        _ => None,
    };
    found.unwrap_or_else(unknown)
}

fn headers(said: &HeaderFilter) -> HeaderChanges {
    // The schema lets only names pass that can be names.
    let pair = |named: &NamedValue| {
        let name = HeaderName::from_bytes(named.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(&named.value).ok()?))
    };
    HeaderChanges {
        set: said.set.iter().filter_map(pair).collect(),
        add: said.add.iter().filter_map(pair).collect(),
        remove: said.remove.iter().filter_map(|name| name.parse().ok()).collect(),
    }
}

fn path(said: &PathModifier) -> Option<PathChange> {
    match said.r#type.as_str() {
        "ReplaceFullPath" => said.replace_full_path.clone().map(PathChange::Full),
        "ReplacePrefixMatch" => said.replace_prefix_match.clone().map(PathChange::Prefix),
        _ => None,
    }
}

fn redirect(said: &RedirectFilter) -> Redirect {
    let status = said.status_code.and_then(|code| StatusCode::from_u16(code).ok());
    Redirect {
        status: status.unwrap_or(StatusCode::FOUND),
        scheme: said.scheme.clone(),
        host: said.hostname.clone(),
        port: said.port,
        path: said.path.as_ref().and_then(path),
        ..Redirect::default()
    }
}

fn rewrite(said: &RewriteFilter) -> Rewrite {
    let host = said.hostname.as_ref().and_then(|host| HeaderValue::from_str(host).ok());
    Rewrite { host, path: said.path.as_ref().and_then(path) }
}

fn thousandths(said: &MirrorFilter) -> u32 {
    let fraction = said.fraction.as_ref().map(|part| {
        let whole = u64::from(part.denominator.unwrap_or(100).max(1));
        u32::try_from(u64::from(part.numerator) * 1000 / whole).unwrap_or(1000)
    });
    fraction.or(said.percent.map(|percent| percent.saturating_mul(10))).unwrap_or(1000)
}

fn cors(said: &CorsFilter) -> Cors {
    Cors {
        origins: said.allow_origins.clone(),
        credentials: said.allow_credentials.unwrap_or_default(),
        methods: said.allow_methods.clone(),
        headers: said.allow_headers.clone(),
        expose: said.expose_headers.clone(),
        max_age: said.max_age.unwrap_or(CORS_AGE),
    }
}
