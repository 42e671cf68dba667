//! The engine under panics, lost history and a failing store.

use std::sync::atomic::Ordering;

use axum::body::Body;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use super::{MAPS, Server, UserInfo, version};

#[tokio::test]
async fn a_panic_is_answered_and_outlived() {
    let server = Server::new().await;
    server.clock.broken.store(true, Ordering::Relaxed);
    let (code, status) = server.send("POST", MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code.as_u16(), &status["reason"]), (500, &json!("InternalError")), "{status}");
    server.clock.broken.store(false, Ordering::Relaxed);
    server.map("a").await;
}

#[tokio::test]
async fn a_request_in_a_namespace_that_is_not_there_is_refused() {
    let server = Server::new().await;
    let (code, status) =
        server.send("POST", "/api/v1/namespaces/none/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code.as_u16(), status["message"].as_str()), (404, Some("namespaces \"none\" not found")));
    let (code, _) =
        server.send("POST", MAPS, &json!({"metadata": {"name": "a", "namespace": "other"}})).await;
    assert_eq!(code, 400);
    let (code, list) = server.get("/api/v1/namespaces/none/configmaps").await;
    assert_eq!((code.as_u16(), &list["items"]), (200, &json!([])));
}

#[tokio::test]
async fn history_that_is_gone_is_410() {
    let server = Server::new().await;
    let first = server.map("a").await;
    for n in 0..5 {
        server.map(&format!("m{n}")).await;
    }
    let (_, page) = server.get(&format!("{MAPS}?limit=1")).await;
    let token = page["metadata"]["continue"].as_str().expect("a token");
    server.map("z").await;
    let store = server.store.clone();
    store.compact(store.revision()).await.expect("compacted");
    let mut events = server.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&first))).await;
    let error = events.next().await.expect("an event");
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(events.next().await.is_none());
    let (code, expired) = server.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code.as_u16(), &expired["reason"]), (410, &json!("Expired")));
    let token = expired["metadata"]["continue"].as_str().expect("a token to go on with");
    let (code, rest) = server.get(&format!("{MAPS}?continue={token}")).await;
    assert_eq!((code.as_u16(), rest["items"].as_array().map(Vec::len)), (200, Some(6)));
    // In pages, too: the first is of the newest state, and those behind it are of the same one.
    let names = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().expect("items");
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    server.map("m9").await;
    let (_, page) = server.get(&format!("{MAPS}?limit=5&continue={token}")).await;
    assert_eq!(names(&page), ["m0", "m1", "m2", "m3", "m4"]);
    let next = page["metadata"]["continue"].as_str().expect("a token");
    server.map("zz").await;
    let (_, last) = server.get(&format!("{MAPS}?limit=5&continue={next}")).await;
    assert_eq!(names(&last), ["m9", "z"]);
    assert_eq!(last["metadata"]["resourceVersion"], page["metadata"]["resourceVersion"]);
    let exact = format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", version(&first));
    assert_eq!(server.get(&exact).await.0, 410);
}

#[tokio::test]
async fn clients_in_the_process_are_somebody() {
    let server = Server::new().await;
    let admin = server.api.client(UserInfo::new("admin", &[UserInfo::MASTERS]));
    let maps: Api<ConfigMap> = Api::namespaced(admin, "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a map");
    let made = maps.create(&PostParams::default(), &map).await.expect("created");
    assert_eq!(maps.list(&ListParams::default()).await.expect("a list").items.len(), 1);
    let events = maps.watch(&WatchParams::default(), "0").await.expect("a watch");
    let event = std::pin::pin!(events).try_next().await.expect("no error").expect("an event");
    let WatchEvent::Added(seen) = event else { panic!("not added: {event:?}") };
    assert_eq!(seen.metadata.uid, made.metadata.uid);

    let nobody = server.api.client(UserInfo::new("nobody", &[]));
    let maps: Api<ConfigMap> = Api::namespaced(nobody, "default");
    let Err(kube::Error::Api(status)) = maps.get("a").await else { panic!("not refused") };
    assert_eq!(
        status.message,
        "configmaps \"a\" is forbidden: User \"nobody\" cannot get resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
}

#[tokio::test]
async fn bodies_come_as_yaml_too() {
    let server = Server::new().await;
    let body = Body::from("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n");
    let response = server.raw("POST", MAPS, &[("content-type", "application/yaml")], body).await;
    assert_eq!(response.status(), 201);
    for (body, code) in [
        (json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "b"}}), 400),
        (json!({"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "b"}}), 400),
        (json!([]), 400),
        (json!({"metadata": {}}), 422),
        (json!({"metadata": {"name": "Not A Name"}}), 422),
        (json!({"metadata": {"name": "b", "resourceVersion": "5"}}), 400),
    ] {
        assert_eq!(server.send("POST", MAPS, &body).await.0, code, "{body}");
    }
}

/// A few hundred bytes that come to a thousand million of items.
#[tokio::test]
async fn aliases_in_yaml_do_not_explode() {
    let server = Server::new().await;
    let mut body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx0: &x0 [a]\n".to_owned();
    for level in 1..10 {
        let refs = vec![format!("*x{}", level - 1); 9].join(", ");
        body += &format!("x{level}: &x{level} [{refs}]\n");
    }
    let begun = std::time::Instant::now();
    let response = server.raw("POST", MAPS, &[("content-type", "application/yaml")], Body::from(body)).await;
    assert!(response.status().is_client_error(), "{}", response.status());
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}
