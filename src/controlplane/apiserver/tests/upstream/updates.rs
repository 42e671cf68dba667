//! Updates of every field of every kind.

use super::*;

/// Definitions and other API servers get their status from controllers, whenever those come to it.
fn without_status(plural: &str, object: &mut Value) {
    if matches!(plural, "customresourcedefinitions" | "apiservices")
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
}

#[tokio::test]
async fn updates_are_judged_as_upstream_judges_them() {
    let server = Server::new().await;
    server.default_account().await;
    let mut topic = Topic::read("updates");
    for group in std::mem::take(&mut topic.groups) {
        let (plural, path, name) = of_group(&group);
        let stored = &group["stored"];
        let mut made = server.create(&path, group["base"].clone()).await;
        let version = version(&made).to_owned();
        without_status(&plural, &mut made);
        let (expected, ours) = (topic.comparable(&plural, stored), topic.comparable(&plural, &made));
        let differs = (expected != ours).then(|| difference(&expected, &ours).to_string());
        topic.note(format!("{path} created"), stored, differs);
        for case in group["cases"].as_array().into_iter().flatten() {
            let mut sent = changed(stored, case);
            if let Some(meta) = sent.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.entry("resourceVersion").or_insert_with(|| version.clone().into());
            }
            let part = case["sub"].as_str().map_or(String::new(), |sub| format!("/{sub}"));
            let uri = format!("{path}/{name}{part}?dryRun=All");
            let (code, mut answer) = server.try_case("PUT", &uri, "application/json", &sent).await;
            without_status(&plural, &mut answer);
            let differs = compare(&topic, &plural, (code, &answer), (&case["answer"], stored, &sent));
            topic.note(title(&plural, case), &case["answer"], differs);
        }
        let gone = format!("{path}/{name}?gracePeriodSeconds=0&propagationPolicy=Background");
        server.send("DELETE", &gone, &Value::Null).await;
    }
    topic.end();
}
