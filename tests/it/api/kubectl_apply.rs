//! Server-side apply as kubectl does it: creation, conflicts, force, removal, and take-over from client-side apply.

use serde_json::Value;

use crate::support::TestServer;

fn manifest(replicas: &str, labels: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, labels: {{{labels}}}}}\nspec:\n{replicas}  selector: \
         {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}, creationTimestamp: null}}\n    spec:\n      \
         containers:\n      - {{name: web, image: \"nginx:1\", ports: [{{containerPort: 80}}], resources: {{}}}}\nstatus: {{}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_belong_to_who_applies_them() {
    let server = TestServer::start().await;
    let one = server.file("one.yaml", &manifest("  replicas: 1\n", "a: x, b: w"));
    let apply = ["apply", "--server-side", "-f", &one];
    assert_eq!(server.kubectl(&apply).ok(), "deployment.apps/web serverside-applied\n");
    let version = ["get", "deployment", "web", "-o", "jsonpath={.metadata.resourceVersion}"];
    let before = server.kubectl(&version).ok();
    assert_eq!(server.kubectl(&apply).ok(), "deployment.apps/web serverside-applied\n");
    assert_eq!(server.kubectl(&version).ok(), before, "applying again writes nothing");

    let two = server.file("two.yaml", &manifest("  replicas: 2\n", "a: x"));
    let conflict = server.kubectl(&["apply", "--server-side", "--field-manager=two", "-f", &two]).err();
    assert!(conflict.contains("conflict with \"kubectl\": .spec.replicas"), "{conflict}");
    server.kubectl(&["apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", &two]).ok();
    let replicas = ["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(server.kubectl(&replicas).ok(), "2");

    let less = server.file("less.yaml", &manifest("", "a: x"));
    server.kubectl(&["apply", "--server-side", "-f", &less]).ok();
    let shown = server.kubectl(&["get", "deployment", "web", "-o", "json", "--show-managed-fields"]).ok();
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["metadata"]["labels"], serde_json::json!({"a": "x"}), "b was kubectl's alone");
    assert_eq!(shown["spec"]["replicas"], 2, "two's");
    let managers = shown["metadata"]["managedFields"].as_array().expect("managers");
    let mut said: Vec<String> =
        managers.iter().map(|entry| format!("{} {}", entry["manager"], entry["operation"])).collect();
    said.sort();
    assert_eq!(said, ["\"kubectl\" \"Apply\"", "\"two\" \"Apply\""]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_side_apply_is_taken_over() {
    let server = TestServer::start().await;
    let one = server.file("one.yaml", &manifest("  replicas: 1\n", "a: x"));
    server.kubectl(&["apply", "-f", &one]).ok();
    let two = server.file("two.yaml", &manifest("  replicas: 2\n", "c: z"));
    assert_eq!(
        server.kubectl(&["apply", "--server-side", "-f", &two]).ok(),
        "deployment.apps/web serverside-applied\n"
    );
    let labels = ["get", "deployment", "web", "-o", "jsonpath={.metadata.labels}"];
    assert_eq!(server.kubectl(&labels).ok(), r#"{"c":"z"}"#);
    server.kubectl(&["apply", "-f", &one]).ok();
    server.stop().await;
}
