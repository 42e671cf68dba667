//! Tests of a whole API server.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::user::UserInfo;
use config::{BuildInfo, JoinToken};
use jiff::Timestamp;
use rt::{ManualClock, SystemClock};

async fn started(store: Arc<dyn Store>, dir: &std::path::Path) -> (ApiServer, Tasks) {
    started_by(Arc::new(SystemClock), store, dir).await
}

async fn started_by(
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    dir: &std::path::Path,
) -> (ApiServer, Tasks) {
    let tasks = Tasks::new();
    let pki = ServerPki::prepare(dir, "t", &[]).unwrap();
    let server = start(store, clock, &pki, &NodeConfig::example(), BuildInfo::UNKNOWN, &tasks).await.unwrap();
    (server, tasks)
}

async fn send(server: &ApiServer, user: &UserInfo, method: &str, uri: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    let request = request.extension(user.clone()).body(body).unwrap();
    let response = server.router().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_cluster_starts_with_its_objects_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = storage::memory();
    let admin = UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]);
    let (server, tasks) = started(store.clone(), dir.path()).await;
    let (code, service) =
        send(&server, &admin, "GET", "/api/v1/namespaces/default/services/kubernetes", Value::Null).await;
    assert_eq!((code, service["spec"]["clusterIP"].as_str()), (200, Some("10.43.0.1")), "{service}");
    for path in [
        "/api/v1/namespaces/kube-system/services/kube-dns",
        "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef",
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    ] {
        let (code, object) = send(&server, &admin, "GET", path, Value::Null).await;
        assert_eq!(code, 200, "{path}: {object}");
    }
    tasks.drain(std::time::Duration::from_secs(5)).await.unwrap();
    let (server, _tasks) = started(store, dir.path()).await;
    let bob = UserInfo::new("bob", &[]);
    let (code, status) =
        send(&server, &bob, "GET", "/apis/apps/v1/namespaces/default/deployments", Value::Null).await;
    let expect = r#"deployments.apps is forbidden: User "bob" cannot list resource "deployments" in API group "apps" in the namespace "default""#;
    assert_eq!((code, status["message"].as_str()), (403, Some(expect)));
}

/// What a node that shows a join token is answered when it asks for its requests.
async fn joins(server: &ApiServer, token: &JoinToken) -> u16 {
    let request = Request::get("/apis/certificates.k8s.io/v1/certificatesigningrequests")
        .header("authorization", format!("Bearer {token}"));
    server.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
}

/// The first token runs out for good, restarts or not; one that an administrator makes is good for its own time.
#[tokio::test]
async fn join_tokens_run_out_and_a_new_one_counts_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = storage::memory();
    let clock = ManualClock::at(Timestamp::now());
    let first = JoinToken::parse(&NodeConfig::example().token).unwrap();
    let (server, tasks) = started_by(Arc::new(clock.clone()), store.clone(), dir.path()).await;
    assert_eq!(joins(&server, &first).await, 200);
    clock.advance(JoinToken::LIFETIME);
    assert_eq!(joins(&server, &first).await, 401, "it has run out");
    tasks.drain(std::time::Duration::from_secs(5)).await.unwrap();
    let (server, _tasks) = started_by(Arc::new(clock.clone()), store, dir.path()).await;
    assert_eq!(joins(&server, &first).await, 401, "and a restart does not renew it");

    let token = JoinToken::draw();
    let object = token.object(clock.now() + JoinToken::LIFETIME, "for another node");
    let admin = UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let (code, made) = send(&server, &admin, "POST", secrets, object).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(joins(&server, &token).await, 200, "a node may be made at once");
    clock.advance(JoinToken::LIFETIME);
    assert_eq!(joins(&server, &token).await, 401);
}

#[tokio::test]
async fn the_state_of_another_cluster_is_refused() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = storage::memory();
    let (_server, _tasks) = started(store.clone(), first.path()).await;
    let pki = ServerPki::prepare(second.path(), "t", &[]).unwrap();
    let again =
        start(store, Arc::new(SystemClock), &pki, &NodeConfig::example(), BuildInfo::UNKNOWN, &Tasks::new())
            .await;
    assert!(matches!(again, Err(StartError::Foreign)));
}

#[tokio::test]
async fn a_granted_right_counts_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _tasks) = started(storage::memory(), dir.path()).await;
    let admin = UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]);
    let bob = UserInfo::new("bob", &[]);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "bob"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregate-to-edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let (code, status) = send(&server, &bob, "POST", bindings, binding.clone()).await;
    assert_eq!(code, 403, "{status}");
    let (code, made) = send(&server, &admin, "POST", bindings, binding).await;
    assert_eq!(code, 201, "{made}");
    let maps = "/api/v1/namespaces/default/configmaps";
    let (code, made) = send(&server, &bob, "POST", maps, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 201, "{made}");
    let (code, _) =
        send(&server, &bob, "GET", "/api/v1/namespaces/kube-system/configmaps", Value::Null).await;
    assert_eq!(code, 403);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "delete", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, review) = send(&server, &bob, "POST", path, review).await;
    assert_eq!((code, review["status"]["allowed"].as_bool()), (201, Some(true)), "{review}");
    // A role with more than bob has is not bob's to make.
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]});
    let admin_binding = json!({"metadata": {"name": "a"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregate-to-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    let (code, made) = send(&server, &admin, "POST", bindings, admin_binding).await;
    assert_eq!(code, 201, "{made}");
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let (code, status) = send(&server, &bob, "POST", roles, role).await;
    let expect = "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}";
    assert_eq!((code, status["message"].as_str()), (403, Some(expect)));
}

#[tokio::test]
async fn tokens_open_the_door_while_their_account_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _tasks) = started(storage::memory(), dir.path()).await;
    let admin = UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (code, made) = send(&server, &admin, "POST", accounts, json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(code, 201, "{made}");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let (code, made) = send(&server, &admin, "POST", &format!("{accounts}/robot/token"), request).await;
    assert_eq!(code, 201, "{made}");
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let whoami = |token: String| {
        let server = server.clone();
        async move {
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
                .header("content-type", "application/json")
                .header("authorization", format!("Bearer {token}"))
                .body(Body::from(review.to_string()))
                .unwrap();
            let response = server.router().oneshot(request).await.unwrap();
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (code, serde_json::from_slice::<Value>(&bytes).unwrap())
        }
    };
    let (code, review) = whoami(token.clone()).await;
    assert_eq!(
        (code, review["status"]["userInfo"]["username"].as_str()),
        (201, Some("system:serviceaccount:default:robot")),
        "{review}"
    );
    let (code, review) = whoami("abcdef.0123456789abcdef".to_owned()).await;
    assert_eq!(
        (code, review["status"]["userInfo"]["username"].as_str()),
        (201, Some("system:bootstrap:abcdef")),
        "{review}"
    );
    assert_eq!(whoami("nonsense".to_owned()).await.0, 401);
    let (code, _) = send(&server, &admin, "DELETE", &format!("{accounts}/robot"), Value::Null).await;
    assert_eq!(code, 200);
    server.index().caught_up().await;
    assert_eq!(whoami(token).await.0, 401);
}

#[tokio::test]
async fn pods_are_completed_and_namespaces_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _tasks) = started(storage::memory(), dir.path()).await;
    let admin = UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]);
    let (_, _) = send(
        &server,
        &admin,
        "POST",
        "/api/v1/namespaces/default/serviceaccounts",
        json!({"metadata": {"name": "default"}}),
    )
    .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = send(&server, &admin, "POST", "/api/v1/namespaces/default/pods", pod.clone()).await;
    assert_eq!(code, 201, "{made}");
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert!(spec["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!(
        spec["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    let (code, status) = send(&server, &admin, "POST", "/api/v1/namespaces/nowhere/pods", pod).await;
    assert_eq!((code, status["message"].as_str()), (404, Some("namespaces \"nowhere\" not found")));
    let (code, status) = send(&server, &admin, "DELETE", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(
        (code, status["message"].as_str()),
        (403, Some("namespaces \"default\" is forbidden: this namespace may not be deleted"))
    );
}
