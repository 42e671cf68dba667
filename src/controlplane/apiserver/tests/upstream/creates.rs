//! Creates with one mistake each.

use super::*;

#[tokio::test]
async fn creates_are_judged_as_upstream_judges_them() {
    let server = Server::new().await;
    server.default_account().await;
    let mut topic = Topic::read("creates");
    for group in std::mem::take(&mut topic.groups) {
        let (plural, path, _) = of_group(&group);
        for case in group["cases"].as_array().into_iter().flatten() {
            let sent = changed(&group["base"], case);
            let (code, answer) =
                server.try_case("POST", &format!("{path}?dryRun=All"), "application/json", &sent).await;
            let differs = compare(&topic, &plural, (code, &answer), (&case["answer"], &Value::Null, &sent));
            topic.note(title(&plural, case), &case["answer"], differs);
        }
    }
    topic.end();
}
