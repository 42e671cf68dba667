//! Patches of three kinds: paths, nulls, directives and the order of lists.

use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Serves a definition; no controller is here to find that nobody else has its names.
async fn serve(server: &Server, definition: Value) {
    let mut made = server.create(DEFINITIONS, definition).await;
    made["status"]["acceptedNames"] = made["spec"]["names"].clone();
    made["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let (code, said) = server
        .send(
            "PUT",
            &format!("{DEFINITIONS}/{}/status", made["metadata"]["name"].as_str().unwrap_or_default()),
            &made,
        )
        .await;
    assert_eq!(code, 200, "{said}");
    server.api.index().caught_up().await;
}

#[tokio::test]
async fn patches_come_to_what_upstream_makes_of_them() {
    let server = Server::new().await;
    server.default_account().await;
    let mut topic = Topic::read("patches");
    for group in std::mem::take(&mut topic.groups) {
        if group.get("definition").is_some() {
            serve(&server, group["definition"].clone()).await;
        }
        let (plural, path, name) = of_group(&group);
        let stored = &group["stored"];
        server.create(&path, group["base"].clone()).await;
        for case in group["cases"].as_array().into_iter().flatten() {
            let (kind, patch) = (case["kind"].as_str().expect("a kind"), &case["patch"]);
            let part = case["sub"].as_str().map_or(String::new(), |sub| format!("/{sub}"));
            let uri = format!("{path}/{name}{part}?dryRun=All");
            let (code, answer) =
                server.try_case("PATCH", &uri, &format!("application/{kind}+json"), patch).await;
            let differs = compare(&topic, &plural, (code, &answer), (&case["answer"], stored, &Value::Null));
            topic.note(format!("{plural} {kind} {patch}"), &case["answer"], differs);
        }
        server.send("DELETE", &format!("{path}/{name}?gracePeriodSeconds=0"), &Value::Null).await;
    }
    topic.end();
}
