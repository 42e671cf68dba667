//! Webhooks, asked over TLS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;

use super::super::serve;
use super::*;
use pki::Authority;

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A webhook of the test's own: where it is, and whom to believe.
pub(super) struct Hook {
    pub(super) port: u16,
    pub(super) bundle: String,
}

/// Answers every question as `answer` says, which is given the request and makes the response: in JSON to who asks for that first, else
/// in YAML, as upstream's example may.
pub(super) async fn hook(tasks: &Tasks, answer: fn(&Value) -> Value) -> Hook {
    let authority = Authority::generate("hooks").expect("an authority");
    let identity = authority.sign_server("hook", &["127.0.0.1".to_owned()]).expect("a certificate");
    let tls = serve::tls(&identity, authority.certificate_pem()).expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let router = axum::Router::new().fallback(move |headers: http::HeaderMap, body: String| async move {
        let review: Value = serde_json::from_str(&body).unwrap_or_default();
        let mut response = answer(&review["request"]);
        response["uid"] = review["request"]["uid"].clone();
        let review =
            json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
        let json =
            headers.get("accept").is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
        if json { review.to_string() } else { serde_yaml::to_string(&review).unwrap_or_default() }
    });
    serve::serve(listener, router, tls, tasks);
    Hook { port, bundle: STANDARD.encode(authority.certificate_pem()) }
}

fn configuration(name: &str, hook: &Hook, extra: &Value) -> Value {
    let mut webhook = json!({"name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}/ask", hook.port), "caBundle": hook.bundle},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    json_patch::merge(&mut webhook, extra);
    json!({"metadata": {"name": name}, "webhooks": [webhook]})
}

async fn install(server: &Server, kind: &str, configuration: Value) {
    server.create(&format!("{CONFIGURATIONS}/{kind}webhookconfigurations"), configuration).await;
    server.api.index().caught_up().await;
}

#[tokio::test]
async fn hooks_change_refuse_and_warn() {
    let (server, tasks) = (Server::new().await, Tasks::new());
    let marks = hook(&tasks, |request| {
        let patch = r#"[{"op": "add", "path": "/data", "value": {"marked": "yes"}}]"#;
        json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch),
            "warnings": [format!("{} of {}", request["operation"], request["name"])]})
    })
    .await;
    let refuses = hook(&tasks, |request| {
        let fine = request["object"]["data"]["marked"] == "yes" && request["name"] != "bad";
        json!({"allowed": fine || request["operation"] == "DELETE", "status": {"message": "not so", "code": 403}})
    })
    .await;
    install(&server, "mutating", configuration("marks", &marks, &json!({}))).await;
    install(&server, "validating", configuration("refuses", &refuses, &json!({}))).await;
    let made = server.create(MAPS, json!({"metadata": {"name": "good"}})).await;
    assert_eq!(made["data"], json!({"marked": "yes"}));
    let (code, refusal) = server.send("POST", MAPS, &json!({"metadata": {"name": "bad"}})).await;
    assert_eq!(code, 403);
    assert_eq!(refusal["message"], "admission webhook \"refuses.example.com\" denied the request: not so");
    let body = Body::from(json!({"metadata": {"name": "other"}}).to_string());
    let response = server.raw("POST", MAPS, &[("content-type", "application/json")], body).await;
    let warning = response.headers().get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("CREATE"), "{warning}");
    tasks.stop().cancel();
}

#[tokio::test]
async fn a_hook_that_cannot_be_asked_counts_as_its_policy_says() {
    let server = Server::new().await;
    let nobody = Hook { port: 1, bundle: String::new() };
    install(&server, "validating", configuration("gone", &nobody, &json!({"failurePolicy": "Ignore"}))).await;
    server.create(MAPS, json!({"metadata": {"name": "passed-over"}})).await;
    install(&server, "validating", configuration("strict", &nobody, &json!({}))).await;
    let (code, refusal) = server.send("POST", MAPS, &json!({"metadata": {"name": "refused"}})).await;
    assert_eq!(code, 500);
    let message = refusal["message"].as_str().unwrap_or_default();
    let start = "Internal error occurred: failed calling webhook \"strict.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/ask?timeout=10s\"";
    assert!(message.starts_with(start), "{message}");
    // What configures admission is never asked about, so that it can be mended.
    let uri = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/strict");
    assert_eq!(server.send("DELETE", &uri, &Value::Null).await.0, 200);
    server.api.index().caught_up().await;
    server.create(MAPS, json!({"metadata": {"name": "accepted"}})).await;
}

#[tokio::test]
async fn conditions_say_when_a_hook_is_asked() {
    let (server, tasks) = (Server::new().await, Tasks::new());
    let refuses = hook(&tasks, |_| json!({"allowed": false})).await;
    let conditions = json!({"matchConditions": [
        {"name": "not-mine", "expression": "!object.metadata.name.startsWith('mine')"},
        {"name": "rights", "expression": "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()"}]});
    install(&server, "validating", configuration("refuses", &refuses, &conditions)).await;
    server.create(MAPS, json!({"metadata": {"name": "mine-a"}})).await;
    assert_eq!(server.send("POST", MAPS, &json!({"metadata": {"name": "yours"}})).await.0, 400);
    let bad = json!({"matchConditions": [{"name": "bad", "expression": "object."}]});
    let uri = format!("{CONFIGURATIONS}/validatingwebhookconfigurations");
    let (code, refusal) = server.send("POST", &uri, &configuration("bad", &refuses, &bad)).await;
    assert_eq!(code, 422);
    let message = refusal["message"].as_str().unwrap_or_default();
    assert!(message.contains("webhooks[0].matchConditions[0].expression"), "{message}");
    tasks.stop().cancel();
}
