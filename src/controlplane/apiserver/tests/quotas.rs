//! ResourceQuotas, counted exactly whoever writes at the same time.

use super::*;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

async fn quota(server: &Server, hard: Value) {
    server.create(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    server.api.index().caught_up().await;
}

#[tokio::test]
async fn no_more_is_created_than_the_quota_allows() {
    let server = Server::new().await;
    quota(&server, json!({"count/configmaps": "3"})).await;
    let one = |name: usize| {
        let body = json!({"metadata": {"name": format!("m{name}")}});
        let server = &server;
        async move { server.send("POST", MAPS, &body).await }
    };
    let answers = futures::future::join_all((0..10).map(one)).await;
    let made = answers.iter().filter(|(code, _)| *code == 201).count();
    assert_eq!(made, 3);
    let (code, refusal) = answers.into_iter().find(|(code, _)| *code != 201).expect("a refusal");
    assert_eq!(code, 403);
    let message = refusal["message"].as_str().unwrap_or_default();
    assert!(
        message.ends_with(
            "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3"
        ),
        "{message}"
    );
    // What is taken away is there again.
    let (_, list) = server.get(MAPS).await;
    let name = list["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    server.send("DELETE", &format!("{MAPS}/{name}"), &Value::Null).await;
    assert_eq!(one(11).await.0, 201);
}

#[tokio::test]
async fn what_a_quota_limits_must_be_said_and_may_not_grow_beyond_it() {
    let server = Server::new().await;
    quota(&server, json!({"requests.storage": "2Gi"})).await;
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    let (code, _) = server.send("POST", CLAIMS, &claim("big", "3Gi")).await;
    assert_eq!(code, 403);
    let made = server.create(CLAIMS, claim("fits", "2Gi")).await;
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    // A dry run holds nothing.
    let (code, _) = server.send("POST", &format!("{CLAIMS}?dryRun=All"), &claim("more", "1Gi")).await;
    assert_eq!(code, 403);
}

#[tokio::test]
async fn namespaces_hold_pods_to_a_standard() {
    let server = Server::new().await;
    server
        .create(
            "/api/v1/namespaces",
            json!({"metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "baseline",
                "pod-security.kubernetes.io/warn": "restricted"}}}),
        )
        .await;
    let uri = "/api/v1/namespaces/strict";
    server.create(&format!("{uri}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    server.api.index().caught_up().await;
    let pod = |name: &str, host: bool| json!({"metadata": {"name": name}, "spec": {"hostPID": host, "containers": [{"name": "c", "image": "i"}]}});
    let (code, refusal) = server.send("POST", &format!("{uri}/pods"), &pod("bad", true)).await;
    assert_eq!(code, 403);
    assert_eq!(
        refusal["message"],
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    let body = Body::from(pod("good", false).to_string());
    let json = [("content-type", "application/json")];
    let response = server.raw("POST", &format!("{uri}/pods"), &json, body).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers().get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("would violate PodSecurity \\\"restricted:latest\\\""), "{warning}");
}
