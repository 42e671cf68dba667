//! Lists and watches whose past is gone.

use axum::body::Body;

use super::{MAPS, Server, version};

#[tokio::test]
async fn a_list_that_outlives_its_snapshot_goes_on_in_the_present() {
    let server = Server::new().await;
    for name in ["a", "b", "c"] {
        server.map(name).await;
    }
    let (_, first) = server.get(&format!("{MAPS}?limit=1")).await;
    let token = first["metadata"]["continue"].as_str().expect("more");
    server.map("d").await;
    server.store.compact(server.store.revision()).await.expect("compacted");
    let (code, gone) = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((code.as_u16(), gone["reason"].as_str()), (410, Some("Expired")), "{gone}");
    assert!(gone["message"].as_str().is_some_and(|text| text.contains("inconsistent list")), "{gone}");
    let token = gone["metadata"]["continue"].as_str().expect("a token that goes on");
    let (code, rest) = server.get(&format!("{MAPS}?continue={token}")).await;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|map| map["metadata"]["name"].as_str())
        .collect();
    assert_eq!((code.as_u16(), names), (200, vec!["b", "c", "d"]));
}

#[tokio::test]
async fn a_past_that_is_gone_and_a_future_that_has_not_come_are_told_apart() {
    let server = Server::new().await;
    let old = version(&server.map("a").await).to_owned();
    let new = version(&server.map("b").await).to_owned();
    let exact = |at: &str| format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact");
    let (code, then) = server.get(&exact(&old)).await;
    assert_eq!((code.as_u16(), then["items"].as_array().map(Vec::len)), (200, Some(1)), "{then}");
    server.store.compact(new.parse().expect("a number")).await.expect("compacted");
    let (code, gone) = server.get(&exact(&old)).await;
    assert_eq!((code.as_u16(), gone["reason"].as_str()), (410, Some("Expired")), "{gone}");
    let future: u64 = new.parse::<u64>().expect("a number") + 1000;
    let (code, late) = server.get(&format!("{MAPS}?resourceVersion={future}")).await;
    assert_eq!((code.as_u16(), late["reason"].as_str()), (504, Some("Timeout")), "{late}");
    assert_eq!(late["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{late}");
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={old}")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(
        (event["type"].as_str(), event["object"]["code"].as_u64()),
        (Some("ERROR"), Some(410)),
        "{event}"
    );
    assert_eq!(watch.next().await, None, "the watch is over");
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_cut_off_and_harms_nobody() {
    let server = Server::new().await;
    let start = version(&server.map("a").await).to_owned();
    let mut slow = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    let mut quick = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    server.map("b").await;
    assert_eq!(quick.said().await, "ADDED b");
    server.map("c").await;
    server.store.compact(server.store.revision()).await.expect("compacted");
    let event = slow.next().await.expect("an event");
    assert_eq!(
        (event["type"].as_str(), event["object"]["code"].as_u64()),
        (Some("ERROR"), Some(410)),
        "{event}"
    );
    assert_eq!(slow.next().await, None);
}

#[tokio::test]
async fn long_lists_are_packed_for_who_takes_them_so() {
    let server = Server::new().await;
    let text = "0123456789abcdef".repeat(20_000);
    server.create(MAPS, serde_json::json!({"metadata": {"name": "big"}, "data": {"k": text}})).await;
    let packed = server.raw("GET", MAPS, &[("accept-encoding", "gzip")], Body::empty()).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let plain = server.raw("GET", MAPS, &[], Body::empty()).await;
    assert!(!plain.headers().contains_key("content-encoding"));
    let short = format!("{MAPS}?labelSelector=none");
    let short = server.raw("GET", &short, &[("accept-encoding", "gzip")], Body::empty()).await;
    assert!(!short.headers().contains_key("content-encoding"));
}

#[tokio::test]
async fn answers_say_under_which_flow_they_came_and_metrics_count_them() {
    let server = Server::new().await;
    server.map("a").await;
    let answer = server.raw("GET", MAPS, &[], Body::empty()).await;
    assert!(answer.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    assert!(answer.headers().contains_key("x-kubernetes-pf-prioritylevel-uid"));
    let watch = server.watch(&format!("{MAPS}?watch=1")).await;
    let text = server.raw("GET", "/metrics", &[], Body::empty()).await;
    let text = http_body_util::BodyExt::collect(text.into_body()).await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in [
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1\n",
        "apiserver_request_duration_seconds_count{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1\n",
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1\n",
        "apiserver_storage_objects{resource=\"configmaps\"} 1\n",
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} 1\n",
        "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"service-accounts\",priority_level=\"workload-low\"} 0\n",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    drop(watch);
    let (_, components) = server.get("/api/v1/componentstatuses").await;
    assert_eq!(components["items"][0]["conditions"][0]["status"], "True", "{components}");
    assert_eq!(server.get("/api/v1/componentstatuses/etcd-0").await.0, 200);
    assert_eq!(server.get("/api/v1/componentstatuses/none").await.0, 404);
    let keys = server.get("/openid/v1/jwks").await.1;
    assert_eq!(keys["keys"][0]["kty"], "EC");
    let (_, issuer) = server.get("/.well-known/openid-configuration").await;
    assert!(issuer["jwks_uri"].as_str().is_some_and(|uri| uri.ends_with("/openid/v1/jwks")), "{issuer}");
    server.api.leave();
    assert_eq!(server.get("/readyz").await.0, 500, "it says that it goes");
    assert_eq!((server.get("/livez").await.0.as_u16(), server.get(MAPS).await.0.as_u16()), (200, 200));
}
