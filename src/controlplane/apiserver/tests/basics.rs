//! The engine's verbs on ordinary objects.

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{Events, MAPS, Server, version};

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Server::new().await;
    let made = server.map("a").await;
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let (code, read) = server.get(&format!("{MAPS}/a")).await;
    assert_eq!((code, &read), (StatusCode::OK, &made));

    let (code, again) = server.send("POST", MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code.as_u16(), &again["reason"]), (409, &json!("AlreadyExists")));

    let (code, put) = server
        .send("PUT", &format!("{MAPS}/a"), &json!({"metadata": {"name": "a"}, "data": {"k": "w"}}))
        .await;
    assert_eq!(code, 200);
    assert_eq!(put["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(put["metadata"]["creationTimestamp"], made["metadata"]["creationTimestamp"]);
    assert_ne!(version(&put), version(&made));

    let (code, patched) = server.send("PATCH", &format!("{MAPS}/a"), &json!({"data": {"x": "y"}})).await;
    assert_eq!((code.as_u16(), &patched["data"]), (200, &json!({"k": "w", "x": "y"})));

    let (code, same) = server.send("PATCH", &format!("{MAPS}/a"), &json!({"data": {"x": "y"}})).await;
    assert_eq!(
        (code.as_u16(), version(&same)),
        (200, version(&patched)),
        "what changes nothing writes nothing"
    );

    let (code, status) = server.send("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    assert_eq!(
        (code.as_u16(), &status["status"], &status["details"]["name"]),
        (200, &json!("Success"), &json!("a"))
    );
    let (code, gone) = server.get(&format!("{MAPS}/a")).await;
    assert_eq!((code.as_u16(), &gone["message"]), (404, &json!("configmaps \"a\" not found")));
}

#[tokio::test]
async fn a_put_replaces_exactly_what_was_read() {
    let server = Server::new().await;
    let made = server.map("a").await;
    let at = format!("{MAPS}/a");
    let put = |meta: Value| json!({"metadata": meta, "data": {}});
    let (code, _) =
        server.send("PUT", &at, &put(json!({"name": "a", "resourceVersion": version(&made)}))).await;
    assert_eq!(code, 200);
    let (code, stale) =
        server.send("PUT", &at, &put(json!({"name": "a", "resourceVersion": version(&made)}))).await;
    assert_eq!(code, 409);
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    let (code, other) = server.send("PUT", &at, &put(json!({"name": "b"}))).await;
    assert_eq!(
        (code.as_u16(), other["message"].as_str()),
        (400, Some("the name of the object (b) does not match the name on the URL (a)"))
    );
    let (code, _) = server.send("PUT", &at, &put(json!({"name": "a", "namespace": "other"}))).await;
    assert_eq!(code, 400);
    let (code, _) = server.send("PUT", &at, &put(json!({"name": "a", "uid": "other"}))).await;
    assert_eq!(code, 409);
    let (code, _) = server.send("PUT", &format!("{MAPS}/none"), &put(json!({"name": "none"}))).await;
    assert_eq!(code, 404, "a PUT creates no config map");
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
    let (code, _) =
        server.send("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", &lease).await;
    assert_eq!(code, 201, "a PUT creates a lease");
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::new().await;
    let made = server.create(MAPS, json!({"metadata": {"generateName": "web-"}})).await;
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn lists_come_in_pages_of_one_snapshot() {
    let server = Server::new().await;
    for n in 0..5 {
        server.map(&format!("m{n}")).await;
    }
    let (_, all) = server.get(MAPS).await;
    assert_eq!(all["kind"], "ConfigMapList");
    assert_eq!(all["items"].as_array().map(Vec::len), Some(5));
    let (_, page) = server.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    server.map("m9").await;
    let (_, removed) = server.send("DELETE", &format!("{MAPS}/m3"), &Value::Null).await;
    assert_eq!(removed["status"], "Success");
    let token = page["metadata"]["continue"].as_str().expect("a token");
    let (_, rest) = server.get(&format!("{MAPS}?limit=10&continue={token}")).await;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(version(&rest), version(&page));
    let (code, _) = server.get(&format!("{MAPS}?continue=garbage")).await;
    assert_eq!(code, 400);
    let (code, late) = server.get(&format!("{MAPS}?resourceVersion=999")).await;
    assert_eq!((code.as_u16(), &late["reason"]), (504, &json!("Timeout")));
}

#[tokio::test]
async fn a_list_says_the_snapshots_revision_and_an_empty_list_has_items() {
    let server = Server::new().await;
    server.create("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    let (_, list) = server.get(MAPS).await;
    assert_eq!(list["items"], json!([]));
    let seen: u64 = version(&list).parse().expect("a number");
    assert!(seen > 0);
}

#[tokio::test]
async fn selectors_select() {
    let server = Server::new().await;
    for name in ["a", "b"] {
        server.map(name).await;
    }
    let names = async |query: &str| {
        let (code, list) = server.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(code, 200, "{list}");
        let items = list["items"].as_array().expect("items").clone();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("labelSelector=n%3Da").await, ["a"]);
    assert_eq!(names("labelSelector=n+in+(a,b)").await, ["a", "b"]);
    assert_eq!(names("labelSelector=!n").await, Vec::<String>::new());
    assert_eq!(names("fieldSelector=metadata.name%3Db").await, ["b"]);
    assert_eq!(names("fieldSelector=metadata.name!%3Db").await, ["a"]);
    let (code, _) = server.get(&format!("{MAPS}?fieldSelector=spec.x%3Db")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn a_watch_starts_with_what_is_there_and_goes_on() {
    let server = Server::new().await;
    for n in 0..405 {
        server.map(&format!("m{n:03}")).await;
    }
    let mut events = server.watch(&format!("{MAPS}?watch=1")).await;
    for n in 0..405 {
        assert_eq!(events.said().await, format!("ADDED m{n:03}"));
    }
    let made = server.map("z").await;
    server.send("PATCH", &format!("{MAPS}/z"), &json!({"data": {"a": "b"}})).await;
    server.send("DELETE", &format!("{MAPS}/z"), &Value::Null).await;
    for expect in ["ADDED z", "MODIFIED z", "DELETED z"] {
        assert_eq!(events.said().await, expect);
    }
    let mut late = server.watch(&format!("{MAPS}?watch=true&resourceVersion={}", version(&made))).await;
    assert_eq!(late.said().await, "MODIFIED z");
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_objects_come_and_go() {
    let server = Server::new().await;
    let mut events = server.watch(&format!("{MAPS}?watch=1&labelSelector=on%3Dyes")).await;
    server.map("a").await;
    server.send("PATCH", &format!("{MAPS}/a"), &json!({"metadata": {"labels": {"on": "yes"}}})).await;
    assert_eq!(events.said().await, "ADDED a");
    let (_, off) =
        server.send("PATCH", &format!("{MAPS}/a"), &json!({"metadata": {"labels": {"on": null}}})).await;
    let gone = events.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"]["on"], "yes", "shown as it last matched");
    assert_eq!(version(&gone["object"]), version(&off));
}

#[tokio::test]
async fn bookmarks_say_where_the_initial_events_end() {
    let server = Server::new().await;
    server.map("a").await;
    let query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let mut events = server.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(events.said().await, "ADDED a");
    let end = events.next().await.expect("a bookmark");
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["kind"], "ConfigMap");
    let last = events.next().await.expect("a bookmark before the end");
    assert_eq!(last["type"], "BOOKMARK");
    assert!(events.next().await.is_none(), "the timeout ends the watch");
}

#[tokio::test]
async fn initial_events_end_unsaid_for_who_takes_no_bookmarks() {
    let server = Server::new().await;
    server.map("a").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let mut events = server.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(events.said().await, "ADDED a");
    assert!(events.next().await.is_none(), "no bookmark was asked for");
}

#[tokio::test]
async fn a_strict_patch_is_refused_for_what_it_says_in_vain() {
    let server = Server::new().await;
    server.map("a").await;
    let path = format!("{MAPS}/a?dryRun=All&fieldValidation");
    let patch = async |how: &str, kind: &str, body: &str| {
        let headers = [("content-type", kind)];
        let response =
            server.raw("PATCH", &format!("{path}={how}"), &headers, Body::from(body.to_owned())).await;
        let code = response.status().as_u16();
        let warnings: Vec<String> = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|warning| warning.to_str().expect("a text").to_owned())
            .collect();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        let status: Value = serde_json::from_slice(&bytes).expect("JSON");
        (code, status["details"]["causes"][0]["field"].clone(), status["message"].clone(), warnings)
    };
    let (json, merge) = ("application/json-patch+json", "application/merge-patch+json");
    let operation = r#"[{"op": "add", "path": "/data", "value": {}, "odd": 1}]"#;
    for (kind, body, why) in [
        (json, operation, r#"json patch unknown field "[0].odd""#),
        (merge, r#"{"data": {"a": "1", "a": "2"}}"#, r#"duplicate field "data.a""#),
        (merge, r#"{"odd": 1}"#, r#"unknown field "odd""#),
    ] {
        let (code, field, message, _) = patch("Strict", kind, body).await;
        assert_eq!((code, field), (422, json!("patch")), "{message}");
        assert!(
            message.as_str().is_some_and(|said| said.ends_with(&format!("strict decoding error: {why}"))),
            "{message}"
        );
        let (code, _, message, warnings) = patch("Warn", kind, body).await;
        assert_eq!((code, warnings.len()), (200, 1), "{message} {warnings:?}");
        assert_eq!(patch("Ignore", kind, body).await.3, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_people_ask_for_comes_in_lines() {
    let server = Server::new().await;
    server.map("a").await;
    let text = async |uri: &str| {
        let response = server.raw("GET", uri, &[], Body::empty()).await;
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("a text")
    };
    assert_eq!(text(MAPS).await.lines().count(), 1);
    assert!(text(&format!("{MAPS}?pretty=true")).await.starts_with("{\n  \"kind\": \"ConfigMapList\""));
    assert!(text(&format!("{MAPS}/a?pretty=1")).await.contains("\n    \"name\": \"a\""));
}

#[tokio::test]
async fn components_are_a_table_with_their_health() {
    let server = Server::new().await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = server.raw("GET", "/api/v1/componentstatuses", &accept, Body::empty()).await;
    let warned = response.headers().get("warning").is_some();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let table: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]), "{table}");
    assert!(warned, "it is deprecated");
    let gone = server.raw("GET", "/api/v1/namespaces/default/endpoints/no", &[], Body::empty()).await;
    let warning = gone.headers().get("warning").and_then(|header| header.to_str().ok());
    let expect = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!((gone.status().as_u16(), warning), (404, Some(expect)));
    let odd = server.raw("GET", &format!("{MAPS}?includeObject=Odd"), &accept, Body::empty()).await;
    assert_eq!(odd.status(), 400);
}

#[tokio::test]
async fn objects_are_shown_in_the_form_that_is_asked_for() {
    let server = Server::new().await;
    server.map("a").await;
    let form = async |uri: &str, accept: &str| {
        let response = server.raw("GET", uri, &[("accept", accept)], Body::empty()).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        (code, serde_json::from_slice::<Value>(&bytes).unwrap_or(Value::Null))
    };
    let (_, table) = form(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let (_, list) = form(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(
        (&list["items"][0]["kind"], &list["items"][0]["data"]),
        (&json!("PartialObjectMetadata"), &Value::Null)
    );
    let (_, one) =
        form(&format!("{MAPS}/a"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!((&one["metadata"]["name"], &one["data"]), (&json!("a"), &Value::Null));
    assert_eq!(form(MAPS, "application/vnd.kubernetes.protobuf, application/json").await.0, 200);
    assert_eq!(form(MAPS, "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io").await.0, 406);
    let query = format!("{MAPS}?watch=1");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = server.raw("GET", &query, &accept, Body::empty()).await;
    let mut events = Events { body: response.into_body().into_data_stream(), rest: Vec::new() };
    let event = events.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["rows"][0]["cells"][0]), (&json!("ADDED"), &json!("a")));
}

#[tokio::test]
async fn dry_runs_write_nothing() {
    let server = Server::new().await;
    let (code, made) =
        server.send("POST", &format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code.as_u16(), &made["metadata"]["name"]), (201, &json!("a")));
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
    let real = server.map("a").await;
    server.send("PATCH", &format!("{MAPS}/a?dryRun=All"), &json!({"data": {"x": "y"}})).await;
    server.send("DELETE", &format!("{MAPS}/a?dryRun=All"), &Value::Null).await;
    assert_eq!(server.get(&format!("{MAPS}/a")).await.1, real);
    assert_eq!(server.send("POST", &format!("{MAPS}?dryRun=x"), &json!({})).await.0, 422);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::new().await;
    server.create(MAPS, json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}})).await;
    let (code, marked) = server.send("DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    assert_eq!(code, 200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    let (code, _) =
        server.send("PATCH", &format!("{MAPS}/a"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::new().await;
    for name in ["a", "b"] {
        server.map(name).await;
    }
    let (code, list) = server.send("DELETE", &format!("{MAPS}?labelSelector=n%3Da"), &Value::Null).await;
    assert_eq!((code.as_u16(), list["items"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
    assert_eq!(server.get(&format!("{MAPS}/b")).await.0, 200);
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_refused_in_upstreams_words() {
    let server = Server::new().await;
    let (code, status) = server.get("/api/v1/namespaces/default/nothings").await;
    assert_eq!(
        (code.as_u16(), status["message"].as_str()),
        (404, Some("the server could not find the requested resource"))
    );
    assert_eq!(server.get("/apis/none.example/v1/x").await.0, 404);
    assert_eq!(server.send("POST", &format!("{MAPS}/a"), &json!({})).await.0, 405);
    let response =
        server.raw("PATCH", &format!("{MAPS}/a"), &[("content-type", "text/plain")], Body::from("{}")).await;
    assert_eq!(response.status(), 415);
    let huge = Body::from(vec![b' '; 4 << 20]);
    let response = server.raw("POST", MAPS, &[("content-type", "application/json")], huge).await;
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn discovery_is_tagged() {
    let server = Server::new().await;
    let accept =
        ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json");
    let response = server.raw("GET", "/apis", &[accept], Body::empty()).await;
    let tag = response.headers()["etag"].to_str().expect("text").to_owned();
    assert!(response.headers()["content-type"].to_str().expect("text").contains("as=APIGroupDiscoveryList"));
    let response = server.raw("GET", "/apis", &[accept, ("if-none-match", &tag)], Body::empty()).await;
    assert_eq!(response.status(), 304);
    for path in ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version"] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz?verbose", "/readyz/ping"] {
        assert_eq!(server.raw("GET", path, &[], Body::empty()).await.status(), 200, "{path}");
    }
}
