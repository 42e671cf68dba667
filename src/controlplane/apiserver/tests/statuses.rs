//! What a write may not do in passing: a status changes nothing but itself, and some kinds are never replaced unseen.

use serde_json::json;

use super::{Server, version};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

#[tokio::test]
async fn a_signing_request_is_approved_through_approval_alone() {
    let server = Server::new().await;
    let request = json!({"metadata": {"name": "a"}, "spec": {"request": "eA==", "signerName": "example.com/x",
        "usages": ["client auth"]}});
    server.create(REQUESTS, request).await;
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
    let status = |conditions: Vec<serde_json::Value>| json!({"status": {"conditions": conditions}});
    let types = |object: &serde_json::Value| -> Vec<String> {
        let list = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        list.iter().map(|condition| condition["type"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let refused = |made: &serde_json::Value| made["details"]["causes"][0]["message"].clone();
    let (path, approval) = (format!("{REQUESTS}/a/status"), format!("{REQUESTS}/a/approval"));
    let (code, made) = server.send("PATCH", &path, &status(vec![condition("Approved")])).await;
    let why = "Forbidden: updates may not add a condition of type \"Approved\"";
    assert_eq!((code.as_u16(), refused(&made)), (422, json!(why)), "{made}");
    let (code, made) = server.send("PATCH", &path, &status(vec![condition("Failed")])).await;
    assert_eq!((code.as_u16(), types(&made)), (200, vec!["Failed".to_owned()]), "{made}");
    let since = &made["status"]["conditions"][0];
    assert!(since["lastUpdateTime"].is_string() && since["lastTransitionTime"].is_string(), "{made}");

    let both = status(vec![condition("Approved"), condition("Failed")]);
    let (code, made) = server.send("PATCH", &approval, &both).await;
    assert_eq!((code.as_u16(), types(&made).len()), (200, 2), "{made}");
    // The signer's write takes nothing of it away.
    let (code, made) = server.send("PATCH", &path, &status(vec![condition("Failed")])).await;
    let why = "Forbidden: updates may not remove a condition of type \"Approved\"";
    assert_eq!((code.as_u16(), refused(&made)), (422, json!(why)), "{made}");
}

/// Of kinds whose writers of status may be somebody else than their owners.
#[tokio::test]
async fn a_status_changes_no_labels_finalizers_and_owners() {
    let server = Server::new().await;
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let version = |stored: bool, name: &str| json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition = json!({"metadata": {"name": "widgets.example.com", "labels": {"a": "1"}}, "spec": {"group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"}, "scope": "Namespaced",
        "versions": [version(true, "v1"), version(false, "v2")]}});
    let made = server.create(collection, definition).await;
    let body = json!({"metadata": {"labels": {"a": "2", "b": "3"}, "annotations": {"c": "4"}, "finalizers": ["x.io/y"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]},
        "status": {"storedVersions": ["v1", "v2"]}});
    let path = format!("{collection}/widgets.example.com");
    let (code, after) = server.send("PATCH", &format!("{path}/status"), &body).await;
    assert_eq!(code, 200, "{after}");
    assert_eq!(after["status"]["storedVersions"], json!(["v1", "v2"]), "the status itself is taken");
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        assert_eq!(after["metadata"][field], made["metadata"][field], "{field}");
    }
}

#[tokio::test]
async fn kinds_that_are_never_replaced_unseen_want_a_version() {
    let server = Server::new().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "one"}});
    let made = server.create(leases, lease).await;
    let mut body = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "two"}});
    let (code, refused) = server.send("PUT", &format!("{leases}/a"), &body).await;
    assert_eq!(code, 422, "{refused}");
    let why = refused["message"].as_str().unwrap_or_default();
    assert!(
        why.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{why}"
    );
    body["metadata"]["resourceVersion"] = version(&made).into();
    let (code, after) = server.send("PUT", &format!("{leases}/a"), &body).await;
    assert_eq!((code.as_u16(), &after["spec"]["holderIdentity"]), (200, &json!("two")), "{after}");
    // Where it is not asked for, a blind update goes through, as upstream has it.
    server.map("m").await;
    let (code, after) =
        server.send("PUT", &format!("{}/m", super::MAPS), &json!({"metadata": {"name": "m"}})).await;
    assert_eq!(code, 200, "{after}");
}
