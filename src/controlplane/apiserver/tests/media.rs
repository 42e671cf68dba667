//! Answers in protobuf and YAML, as clients ask for them.

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{MAPS, Server};
use api::protobuf;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Code, content type and body of a GET.
async fn get(server: &Server, uri: &str, accept: &str) -> (u16, String, Vec<u8>) {
    let response = server.raw("GET", uri, &[("accept", accept)], Body::empty()).await;
    let code = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().expect("text").to_owned();
    (code, content_type, response.into_body().collect().await.expect("body").to_bytes().to_vec())
}

#[tokio::test]
async fn protobuf_says_what_json_says() {
    let server = Server::new().await;
    let made = server.map("a").await;
    server.map("b").await;
    let (code, content_type, body) =
        get(&server, &format!("{MAPS}/a"), "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!((code, content_type.as_str()), (200, PROTOBUF));
    assert_eq!(protobuf::decode(&body).expect("an object"), made);

    let (_, list) = server.get(MAPS).await;
    let (code, _, body) = get(&server, MAPS, PROTOBUF).await;
    let mut read = protobuf::decode(&body).expect("a list");
    assert_eq!((code, read["metadata"].clone()), (200, list["metadata"].clone()));
    // Items carry no type of their own in protobuf.
    for item in read["items"].as_array_mut().expect("items") {
        item["kind"] = "ConfigMap".into();
        item["apiVersion"] = "v1".into();
    }
    assert_eq!(read, list);

    let (code, content_type, body) = get(&server, &format!("{MAPS}/none"), PROTOBUF).await;
    assert_eq!((code, content_type.as_str()), (404, PROTOBUF));
    assert_eq!(protobuf::decode(&body).expect("a status")["reason"], "NotFound");
}

#[tokio::test]
async fn watches_are_framed_by_length() {
    let server = Server::new().await;
    let made = server.map("a").await;
    let (code, content_type, body) = get(
        &server,
        &format!("{MAPS}?watch=1&timeoutSeconds=1"),
        "application/vnd.kubernetes.protobuf;stream=watch",
    )
    .await;
    assert_eq!((code, content_type.as_str()), (200, "application/vnd.kubernetes.protobuf;stream=watch"));
    let length = u32::from_be_bytes(body[..4].try_into().expect("four bytes")) as usize;
    assert_eq!(body.len(), 4 + length, "one frame");
    // type "ADDED" in field 1, then a RawExtension with the enveloped object.
    assert_eq!(&body[4..11], b"\x0a\x05ADDED");
    let at = body.windows(4).position(|window| window == protobuf::MAGIC).expect("an envelope");
    assert_eq!(protobuf::decode(&body[at..]).expect("an object"), made);
}

#[tokio::test]
async fn metadata_alone_travels_in_protobuf() {
    let server = Server::new().await;
    server.map("a").await;
    let accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (code, content_type, body) = get(&server, MAPS, accept).await;
    assert_eq!((code, content_type.as_str()), (200, PROTOBUF));
    let holds = |what: &[u8]| body.windows(what.len()).any(|window| window == what);
    assert!(holds(b"PartialObjectMetadataList") && holds(b"default"));
    assert!(!holds(b"\x0a\x01k\x12\x01v"), "no data");
}

#[tokio::test]
async fn yaml_is_answered_but_not_streamed() {
    let server = Server::new().await;
    let made = server.map("a").await;
    let (code, content_type, body) = get(&server, &format!("{MAPS}/a"), "application/yaml").await;
    assert_eq!((code, content_type.as_str()), (200, "application/yaml"));
    let read: Value = serde_yaml::from_slice(&body).expect("YAML");
    assert_eq!(read, made);
    assert_eq!(get(&server, &format!("{MAPS}?watch=1"), "application/yaml").await.0, 406);
}

#[tokio::test]
async fn a_review_has_no_table() {
    let server = Server::new().await;
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let accept =
        [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
    let response = server.raw("POST", uri, &accept, Body::from(review.to_string())).await;
    assert_eq!(response.status(), 406);
}

#[tokio::test]
async fn the_older_version_of_a_table_says_the_same() {
    let server = Server::new().await;
    server.map("a").await;
    let ask = async |version: &str, kind: &str| {
        let accept = format!("application/json;as={kind};v={version};g=meta.k8s.io");
        let (code, _, body) = get(&server, MAPS, &accept).await;
        assert_eq!(code, 200, "{version} {kind}");
        serde_json::from_slice::<Value>(&body).expect("a document")
    };
    for kind in ["Table", "PartialObjectMetadataList"] {
        let (new, old) = (ask("v1", kind).await, ask("v1beta1", kind).await);
        assert_eq!(
            (&new["apiVersion"], &old["apiVersion"]),
            (&json!("meta.k8s.io/v1"), &json!("meta.k8s.io/v1beta1"))
        );
        let text = new.to_string().replace("meta.k8s.io/v1", "meta.k8s.io/v1beta1");
        assert_eq!(text, old.to_string());
    }
}
