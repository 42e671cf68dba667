//! Who has no rights gets nothing: a walk over the whole table.

use axum::body::Body;
use http::Request;
use tower::ServiceExt as _;

use super::Server;
use crate::api::resources::builtin;
use crate::controlplane::apiserver::UserInfo;

/// How a verb is asked for: method, whether of one object, and the query.
fn spoken(verb: &str) -> (&'static str, bool, &'static str) {
    match verb {
        "get" => ("GET", true, ""),
        "list" => ("GET", false, ""),
        "watch" => ("GET", false, "?watch=true"),
        "create" => ("POST", false, ""),
        "update" => ("PUT", true, ""),
        "patch" => ("PATCH", true, ""),
        "delete" => ("DELETE", true, ""),
        "deletecollection" => ("DELETE", false, ""),
        other => panic!("a verb that nobody can speak: {other}"),
    }
}

fn requests() -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for row in builtin().iter() {
        let root = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
        let place = if row.namespaced { "/namespaces/default" } else { "" };
        let collection = format!("{root}/{}{place}/{}", row.version, row.plural);
        for verb in row.verbs {
            let (method, one, query) = spoken(verb);
            let name = if one { "/x" } else { "" };
            all.push((method, format!("{collection}{name}{query}")));
            if row.namespaced && !one && *verb != "create" && *verb != "deletecollection" {
                all.push((method, format!("{root}/{}/{}{query}", row.version, row.plural)));
            }
        }
        for subresource in &row.subresources {
            for verb in subresource.verbs {
                let (method, ..) = spoken(verb);
                let path = format!("{collection}/x/{}", subresource.name());
                // What a proxy is asked for, and names with a scheme and a port, are no way around.
                all.push((method, format!("{path}/a/b?c=d")));
                all.push((method, format!("{collection}/https:x:443/{}", subresource.name())));
                all.push((method, path));
            }
        }
    }
    for path in [
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/metrics",
        "/version",
        "/",
    ] {
        all.push(("GET", path.to_owned()));
    }
    all
}

#[tokio::test]
async fn an_identity_without_rights_gets_403_whatever_it_asks() {
    let server = Server::new().await;
    let requests = requests();
    assert!(requests.len() > 500, "{}", requests.len());
    let nobodies = [
        UserInfo::anonymous(),
        UserInfo::new("nobody", &["some", "groups"]),
        UserInfo::service_account("default", "default", "u"),
    ];
    for user in nobodies {
        for (method, uri) in &requests {
            let mut request =
                Request::builder().method(*method).uri(uri).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(user.clone());
            let answer = server.router.clone().oneshot(request).await.expect("infallible");
            assert_eq!(answer.status(), 403, "{} {method} {uri}", user.name);
        }
    }
}
