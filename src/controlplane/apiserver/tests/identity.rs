//! Tokens with audiences and bounds, and reviews that ask about them.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Server;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn token(server: &Server, spec: Value) -> String {
    let made = server.create(&format!("{ACCOUNTS}/robot/token"), json!({ "spec": spec })).await;
    made["status"]["token"].as_str().expect("a token").to_owned()
}

async fn review(server: &Server, token: &str, audiences: Value) -> Value {
    let asked = json!({"spec": {"token": token, "audiences": audiences}});
    server.create(REVIEWS, asked).await["status"].clone()
}

#[tokio::test]
async fn a_token_is_good_for_its_audiences_alone() {
    let server = Server::new().await;
    server.create(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await;
    let token = token(&server, json!({"audiences": ["vault", "other"]})).await;
    let status = review(&server, &token, json!(["vault", "nobody"])).await;
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"])),
        "{status}"
    );
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    let status = review(&server, &token, json!([])).await;
    assert_ne!(status["authenticated"], true, "not the API's own: {status}");
    let request = Request::get("/version").header("authorization", format!("Bearer {token}"));
    let answer = server.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.expect("infallible").status(), 401);
}

#[tokio::test]
async fn a_bound_token_goes_with_what_it_is_bound_to() {
    let server = Server::new().await;
    server.create(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await;
    let secret = server.create(SECRETS, json!({"metadata": {"name": "s"}})).await;
    let bound = |uid: &Value| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": uid}});
    let token = token(&server, bound(&secret["metadata"]["uid"])).await;
    assert_eq!(review(&server, &token, json!([])).await["authenticated"], true);
    let (code, status) = server
        .send("POST", &format!("{ACCOUNTS}/robot/token"), &json!({"spec": bound(&json!("other"))}))
        .await;
    assert_eq!(code.as_u16(), 409, "{status}");
    server.send("DELETE", &format!("{SECRETS}/s"), &Value::Null).await;
    assert_ne!(
        review(&server, &token, json!([])).await["authenticated"],
        true,
        "what it was bound to is gone"
    );
    server.create(SECRETS, json!({"metadata": {"name": "s"}})).await;
    assert_ne!(review(&server, &token, json!([])).await["authenticated"], true, "another of the same name");
}

#[tokio::test]
async fn a_pods_token_goes_with_the_pod() {
    let server = Server::new().await;
    server.create(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await;
    let spec = json!({"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]});
    let pods = "/api/v1/namespaces/default/pods";
    server.create(pods, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let token =
        token(&server, json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}})).await;
    let status = review(&server, &token, json!([])).await;
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]), "{status}");
    server.send("DELETE", &format!("{pods}/p?gracePeriodSeconds=0"), &Value::Null).await;
    assert_ne!(review(&server, &token, json!([])).await["authenticated"], true);
}

#[tokio::test]
async fn reviews_take_selectors_and_refuse_wrong_ones() {
    let server = Server::new().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let ask = |selector: Value| json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}}});
    let made = server.create(path, ask(json!({"rawSelector": "spec.nodeName=a"}))).await;
    assert_eq!(made["status"]["allowed"], true, "{made}");
    let (code, status) = server.send("POST", path, &ask(json!({}))).await;
    assert_eq!((code.as_u16(), &status["reason"]), (422, &json!("Invalid")), "{status}");
    let both =
        json!({"spec": {"resourceAttributes": {"verb": "list"}, "nonResourceAttributes": {"path": "/x"}}});
    let (code, status) = server.send("POST", path, &both).await;
    let field = &status["details"]["causes"][0]["field"];
    assert_eq!((code.as_u16(), field), (422, &json!("spec.nonResourceAttributes")), "{status}");
}
