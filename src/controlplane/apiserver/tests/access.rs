//! Who has no rights gets nothing: a walk over the whole table.

use axum::body::Body;
use http::Request;
use tower::ServiceExt as _;

use super::Server;
use crate::UserInfo;
use api::resources::builtin;

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
        // The forms that clients of old days had, and kinds that nobody serves.
        "/api/v1/watch/pods",
        "/api/v1/watch/namespaces/default/secrets",
        "/api/v1/watch/namespaces/default/secrets/x",
        "/api/v1/proxy/namespaces/default/pods/x/a",
        "/api/v1/proxy/nodes/x/a",
        "/api/v1/namespaces/default/nothings",
        "/apis/nobody.example.com/v1/things/x",
        "/apis/apps/v9/deployments",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/debug/pprof/",
        "/logs/",
        "/healthz",
        "/livez/etcd",
        "/readyz?verbose",
        "/swagger.json",
        "//api//v1//secrets",
        "/api/v1/namespaces/default/../../secrets",
        "/api/v1/namespaces/%2e%2e/secrets",
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

/// A definition's rows are rows like the others.
async fn define(server: &Server) {
    let definition = serde_json::json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"}, "scope": "Namespaced", "versions": [{"name": "v1", "served": true,
            "storage": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas"}}, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    server.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
}

#[tokio::test]
async fn an_identity_without_rights_gets_403_whatever_it_asks() {
    let server = Server::new().await;
    define(&server).await;
    let mut requests = requests();
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for path in ["", "/x", "/x/status", "/x/scale"] {
            requests.push((method, format!("{widgets}{path}")));
        }
        // Whole kinds over all namespaces, and every method where only some are served.
        requests.push((method, "/api/v1/secrets".to_owned()));
        requests.push((method, "/api/v1/namespaces/default/pods/x/exec?command=sh".to_owned()));
        requests.push((method, "/api/v1/nodes/x/proxy/run/default/x/x".to_owned()));
    }
    let heads: Vec<_> = requests.iter().filter(|(method, _)| *method == "GET").cloned().collect();
    requests.extend(heads.into_iter().flat_map(|(_, path)| [("HEAD", path.clone()), ("OPTIONS", path)]));
    assert!(requests.len() > 1000, "{}", requests.len());
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
            // Nobody is somebody else by asking for it.
            let asked =
                Request::builder().method(*method).uri(uri).header("Impersonate-User", "kubernetes-admin");
            let asked = asked.header("Impersonate-Group", UserInfo::MASTERS);
            let mut request = asked.body(Body::empty()).expect("a request");
            request.extensions_mut().insert(user.clone());
            let answer = server.router.clone().oneshot(request).await.expect("infallible");
            assert_eq!(answer.status(), 403, "{} as another {method} {uri}", user.name);
        }
    }
}
