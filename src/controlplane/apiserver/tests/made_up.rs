//! A kind that no other file knows: from its one row follow routes, discovery, OpenAPI, tables and the names in RBAC.

use super::*;
use api::schema::Schema;
use api::structural::JsonPath;
use api::table::{PathColumn, PathColumns, Shown};

const BEACONS: &str = "/apis/lights.example.com/v1/namespaces/default/beacons";

/// The one place.
fn beacon() -> Arc<Resource> {
    let row = Resource::namespaced(("lights.example.com", "v1"), "Beacon", "beacons");
    let mut row = row.short(&["bcn"]).all().status().counted();
    let colour = PathColumn {
        name: "Colour".to_owned(),
        kind: "string".to_owned(),
        format: String::new(),
        description: "What it shines in.".to_owned(),
        priority: 0,
        path: JsonPath::parse(".spec.colour").expect("a path"),
    };
    row.printer = Shown::ByPath(Arc::new(PathColumns { columns: vec![colour] }));
    row.own_schema = Some(Arc::new(Schema::open(row.gvk())));
    let spec = json!({"type": "object", "properties": {"colour": {"type": "string"}}});
    row.published = Some(json!({"type": "object", "properties": {"spec": spec}}).to_string().into());
    Arc::new(row)
}

async fn server() -> Server {
    let mut rows = builtin();
    rows.push(beacon());
    Server::of_rows(storage::memory(), rows).await
}

#[tokio::test]
async fn one_row_brings_routes_and_tables() {
    let server = server().await;
    let red = json!({"apiVersion": "lights.example.com/v1", "kind": "Beacon", "metadata": {"name": "a"},
        "spec": {"colour": "red"}});
    let made = server.create(BEACONS, red).await;
    assert_eq!((made["kind"].as_str(), made["metadata"]["generation"].as_i64()), (Some("Beacon"), Some(1)));
    let mut watch = server.watch(&format!("{BEACONS}?watch=true")).await;
    assert_eq!(watch.said().await, "ADDED a");
    let status = json!({"status": {"lit": true}, "spec": {"colour": "blue"}});
    let (code, lit) = server.send("PATCH", &format!("{BEACONS}/a/status"), &status).await;
    assert_eq!((code.as_u16(), lit["status"]["lit"].as_bool()), (200, Some(true)), "{lit}");
    assert_eq!(watch.said().await, "MODIFIED a");

    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = server.raw("GET", BEACONS, &accept, Body::empty()).await;
    let bytes = table.into_body().collect().await.expect("a body").to_bytes();
    let table: Value = serde_json::from_slice(&bytes).expect("a table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Colour", "{table}");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red"]));

    let (code, _) = server.send("DELETE", &format!("{BEACONS}/a"), &Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(watch.said().await, "DELETED a");
}

#[tokio::test]
async fn one_row_brings_discovery_and_openapi() {
    let server = server().await;
    let (code, groups) = server.get("/apis").await;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    assert!(code == 200 && groups.iter().any(|group| group["name"] == "lights.example.com"));
    let (_, list) = server.get("/apis/lights.example.com/v1").await;
    let names: Vec<&str> =
        list["resources"].as_array().into_iter().flatten().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["beacons", "beacons/status"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["bcn"]));
    let (code, openapi) = server.get("/openapi/v3/apis/lights.example.com/v1").await;
    let path = "/apis/lights.example.com/v1/namespaces/{namespace}/beacons/{name}/status";
    assert!(code == 200 && openapi["paths"][path].is_object(), "{code}");
    assert!(openapi.to_string().contains("\"colour\""));
}

#[tokio::test]
async fn one_row_brings_the_names_that_roles_say() {
    let server = server().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rule = json!({"apiGroups": ["lights.example.com"], "resources": ["beacons"], "verbs": ["list"]});
    server.create(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": [rule]})).await;
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]});
    server.create(&format!("{rbac}/rolebindings"), binding).await;
    for (method, expect) in [("GET", 200), ("DELETE", 403)] {
        let mut request =
            Request::builder().method(method).uri(BEACONS).body(Body::empty()).expect("a request");
        request.extensions_mut().insert(UserInfo::new("jane", &["system:authenticated"]));
        let answer = server.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(answer.status().as_u16(), expect, "{method}");
    }
}
