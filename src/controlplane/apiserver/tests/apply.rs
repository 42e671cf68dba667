//! Field managers of every verb, and server-side apply through the engine.

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{MAPS, Server};

async fn apply(server: &Server, uri: &str, config: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/apply-patch+yaml")];
    let response = server.raw("PATCH", uri, &headers, Body::from(config.to_string())).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    (code, serde_json::from_slice(&bytes).expect("JSON"))
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

/// `manager operation subresource fields` of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().expect("managers");
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    let said = entries.iter().map(|entry| {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert!(entry["time"].is_string(), "{entry}");
        let [manager, operation, sub] = ["manager", "operation", "subresource"].map(|name| text(entry, name));
        format!("{manager} {operation} {sub} {}", entry["fieldsV1"])
    });
    said.collect()
}

#[tokio::test]
async fn every_verb_says_who_owns_what() {
    let server = Server::new().await;
    let headers = [("content-type", "application/json"), ("user-agent", "maker/v1 (x)")];
    let response = server.raw("POST", MAPS, &headers, Body::from(map(json!({"x": "1"})).to_string())).await;
    assert_eq!(response.status(), 201);
    let uri = format!("{MAPS}/a");
    let (_, made) = server.get(&uri).await;
    assert_eq!(managers(&made), [r#"maker Update - {"f:data":{".":{},"f:x":{}}}"#]);
    let (_, patched) =
        server.send("PATCH", &format!("{uri}?fieldManager=p"), &json!({"data": {"y": "1"}})).await;
    assert_eq!(
        managers(&patched),
        [r#"maker Update - {"f:data":{".":{},"f:x":{}}}"#, r#"p Update - {"f:data":{"f:y":{}}}"#]
    );
    let (_, put) = server.send("PUT", &format!("{uri}?fieldManager=q"), &map(json!({"x": "2"}))).await;
    assert_eq!(
        managers(&put),
        [r#"maker Update - {"f:data":{}}"#, r#"q Update - {"f:data":{"f:x":{}}}"#],
        "who replaces without managers keeps them"
    );
    let (_, forgotten) = server.send("PATCH", &uri, &json!({"metadata": {"managedFields": [{}]}})).await;
    assert_eq!(forgotten["metadata"]["managedFields"], Value::Null);
    let (code, _) =
        server.send("PATCH", &format!("{uri}?fieldManager={}", "x".repeat(129)), &json!({})).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn status_and_scale_are_owned_apart() {
    let server = Server::new().await;
    let uri = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template":
        {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    server.create(&format!("{uri}?fieldManager=m"), deployment).await;
    let scaled = server
        .send("PATCH", &format!("{uri}/d/scale?fieldManager=s"), &json!({"spec": {"replicas": 3}}))
        .await;
    assert_eq!(scaled.0, 200, "{}", scaled.1);
    let (code, status) = server
        .send("PATCH", &format!("{uri}/d/status?fieldManager=m"), &json!({"status": {"replicas": 1}}))
        .await;
    assert_eq!(code, 200, "{status}");
    let managers = managers(&status);
    assert!(managers.contains(&r#"s Update scale {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{managers:?}");
    assert!(
        managers.contains(&r#"m Update status {"f:status":{"f:replicas":{}}}"#.to_owned()),
        "{managers:?}"
    );
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 9}, "status": {"readyReplicas": 1}});
    let (code, applied) = apply(&server, &format!("{uri}/d/status?fieldManager=a"), &applied).await;
    assert_eq!((code, &applied["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(applied["status"]["readyReplicas"], 1);
}

#[tokio::test]
async fn apply_creates_changes_and_conflicts() {
    let server = Server::new().await;
    let uri = format!("{MAPS}/a");
    let (code, made) =
        apply(&server, &format!("{uri}?fieldManager=one"), &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(managers(&made), [r#"one Apply - {"f:data":{"f:x":{},"f:y":{}}}"#]);
    let (code, again) =
        apply(&server, &format!("{uri}?fieldManager=one"), &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!((code, &again), (200, &made), "applying again changes nothing");
    let (code, status) = apply(&server, &format!("{uri}?fieldManager=two"), &map(json!({"x": "2"}))).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.x");
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.x"})
    );
    let (code, forced) =
        apply(&server, &format!("{uri}?fieldManager=two&force=true"), &map(json!({"x": "2"}))).await;
    assert_eq!((code, &forced["data"]), (200, &json!({"x": "2", "y": "1"})));
    let (_, less) = apply(&server, &format!("{uri}?fieldManager=one"), &map(json!({}))).await;
    assert_eq!(less["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let server = Server::new().await;
    let uri = format!("{MAPS}/a");
    let check = async |uri: &str, config: Value, code: u16, message: &str| {
        let (found, status) = apply(&server, uri, &config).await;
        let said = status["message"].as_str().unwrap_or_default();
        assert!(found == code && said.contains(message), "{found} {said}");
    };
    check(&uri, map(json!({})), 422, "fieldManager: Required value: is required for apply patch").await;
    let uri = format!("{uri}?fieldManager=one");
    let mut other = map(json!({}));
    other["apiVersion"] = "v2".into();
    check(&uri, other, 400, "Specified patch version: v2, expected: v1").await;
    let mut managed = map(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    check(&uri, managed, 400, "metadata.managedFields must be nil").await;
    let (code, _) = server.send("PATCH", &format!("{uri}&force=true"), &json!({})).await;
    assert_eq!(code, 422, "force is for apply alone");
    let cbor = [("content-type", "application/apply-patch+cbor")];
    assert_eq!(server.raw("PATCH", &uri, &cbor, Body::from("x")).await.status(), 415);
}

#[tokio::test]
async fn replicas_are_applied_through_the_scale() {
    let server = Server::new().await;
    let uri = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template":
        {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    server.create(&format!("{uri}?fieldManager=maker"), deployment).await;
    let scaler = async |query: &str, scale: Value| {
        apply(&server, &format!("{uri}/d/scale?fieldManager=scaler{query}"), &scale).await
    };
    let scale = |spec: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": spec});
    let (code, refusal) = scaler("", scale(json!({"replicas": 5}))).await;
    assert_eq!(code, 409, "{refusal}");
    assert_eq!(refusal["details"]["causes"][0]["field"], ".spec.replicas");
    let (code, scaled) = scaler("&force=true", scale(json!({"replicas": 5}))).await;
    assert_eq!(
        (code, &scaled["kind"], &scaled["spec"]),
        (200, &json!("Scale"), &json!({"replicas": 5})),
        "{scaled}"
    );
    let (_, stands) = server.get(&format!("{uri}/d")).await;
    let entries = stands["metadata"]["managedFields"].as_array().expect("managers");
    let owners: Vec<(&Value, &Value)> =
        entries.iter().map(|entry| (&entry["manager"], &entry["subresource"])).collect();
    assert_eq!(owners, [(&json!("scaler"), &json!("scale")), (&json!("maker"), &Value::Null)]);
    assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entries[0]["operation"], "Apply");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let response = server.raw("GET", &format!("{uri}/d/scale"), &accept, Body::empty()).await;
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let table: Value = serde_json::from_slice(&bytes).expect("a table");
    let heads: Vec<&Value> =
        table["columnDefinitions"].as_array().expect("heads").iter().map(|head| &head["name"]).collect();
    assert_eq!(heads, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().expect("cells")[..3], [json!("d"), json!(5), json!(0)]);
    let (code, scaled) = scaler("", scale(json!({}))).await;
    assert_eq!((code, &scaled["spec"]), (200, &json!({"replicas": 1})), "nobody says how many: the default");
    let (code, refusal) =
        scaler("", json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}})).await;
    assert_eq!(code, 400, "{refusal}");
}
