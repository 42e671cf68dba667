//! The engine's verbs on Pods.

use serde_json::{Value, json};

use super::Server;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn pod(server: &Server, name: &str) {
    server.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": name}})).await;
    let body = json!({
        "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"serviceAccountName": name, "containers": [{"name": "c", "image": "i"}]},
    });
    server.create(PODS, body).await;
}

async fn bind(server: &Server, name: &str) -> (u16, Value) {
    let body = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    let (code, answer) = server.send("POST", &format!("{PODS}/{name}/binding"), &body).await;
    (code.as_u16(), answer)
}

#[tokio::test]
async fn a_pod_lives_and_is_deleted_gracefully() {
    let server = Server::new().await;
    pod(&server, "a").await;
    assert_eq!(bind(&server, "a").await.0, 201);
    let (code, again) = bind(&server, "a").await;
    assert_eq!(code, 409, "{again}");
    let (_, list) = server.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));

    let status = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "n2"}});
    let (code, running) = server.send("PATCH", &format!("{PODS}/a/status"), &status).await;
    assert_eq!(
        (code.as_u16(), &running["status"]["phase"], &running["spec"]["nodeName"]),
        (200, &json!("Running"), &json!("n1"))
    );

    let (code, stopping) = server.send("DELETE", &format!("{PODS}/a"), &Value::Null).await;
    assert_eq!((code.as_u16(), &stopping["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    assert_eq!(server.get(&format!("{PODS}/a")).await.0, 200);
    let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": stopping["metadata"]["uid"]}});
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    assert_eq!(server.send("DELETE", &format!("{PODS}/a"), &wrong).await.0, 409);
    assert_eq!(server.send("DELETE", &format!("{PODS}/a"), &now).await.0, 200);
    assert_eq!(server.get(&format!("{PODS}/a")).await.0, 404);

    pod(&server, "b").await;
    assert_eq!(server.send("DELETE", &format!("{PODS}/b"), &Value::Null).await.0, 200);
    assert_eq!(server.get(&format!("{PODS}/b")).await.0, 404, "a Pod without a node goes at once");
}

#[tokio::test]
async fn who_watches_sees_that_a_pod_has_no_time_left_before_it_is_gone() {
    let server = Server::new().await;
    let mut events = server.watch(&format!("{PODS}?watch=1&resourceVersion=0")).await;
    pod(&server, "a").await;
    bind(&server, "a").await;
    assert_eq!((events.said().await, events.said().await), ("ADDED a".to_owned(), "MODIFIED a".to_owned()));
    let preview = format!("{PODS}/a?gracePeriodSeconds=0&dryRun=All");
    assert_eq!(server.send("DELETE", &preview, &Value::Null).await.0, 200);
    let (code, gone) = server.send("DELETE", &format!("{PODS}/a?gracePeriodSeconds=0"), &Value::Null).await;
    assert_eq!(code, 200);
    let mut shown = Vec::new();
    for expect in ["MODIFIED", "DELETED"] {
        let event = events.next().await.expect("an event");
        let meta = &event["object"]["metadata"];
        assert_eq!(
            (&event["type"], &meta["deletionGracePeriodSeconds"]),
            (&json!(expect), &json!(0)),
            "{event}"
        );
        assert!(meta["deletionTimestamp"].is_string(), "{event}");
        shown.push(meta["resourceVersion"].clone());
    }
    assert_ne!(shown[0], shown[1]);
    assert_eq!(gone["metadata"]["resourceVersion"], shown[1]);
    // A finalizer holds it: it is only changed.
    pod(&server, "b").await;
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    server.send("PATCH", &format!("{PODS}/b"), &held).await;
    let (code, marked) = server.send("DELETE", &format!("{PODS}/b?gracePeriodSeconds=0"), &Value::Null).await;
    assert_eq!((code.as_u16(), &marked["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(0)));
    assert_eq!(server.get(&format!("{PODS}/b")).await.0, 200);
}

#[tokio::test]
async fn a_budget_protects_pods_from_eviction() {
    let server = Server::new().await;
    pod(&server, "a").await;
    bind(&server, "a").await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server.send("PATCH", &format!("{PODS}/a/status"), &ready).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    server.create(budgets, budget).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let (code, refused) = server.send("POST", &format!("{PODS}/a/eviction"), &eviction).await;
    assert_eq!((code.as_u16(), &refused["reason"]), (429, &json!("TooManyRequests")), "{refused}");
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 1,
        "desiredHealthy": 0, "expectedPods": 1}});
    server.send("PATCH", &format!("{budgets}/b/status"), &status).await;
    let (code, done) = server.send("POST", &format!("{PODS}/a/eviction"), &eviction).await;
    assert_eq!((code.as_u16(), &done["status"]), (201, &json!("Success")), "{done}");
    let (_, pod) = server.get(&format!("{PODS}/a")).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let (_, budget) = server.get(&format!("{budgets}/b")).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn a_deployment_is_scaled() {
    let server = Server::new().await;
    let body = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = server.create(DEPLOYMENTS, body).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let at = format!("{DEPLOYMENTS}/web/scale");
    let (_, scale) = server.get(&at).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(1), &json!("app=web"))
    );
    let (code, scaled) = server.send("PATCH", &at, &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((code.as_u16(), &scaled["spec"]["replicas"]), (200, &json!(3)));
    let mut wanted = scaled.clone();
    wanted["spec"]["replicas"] = json!(2);
    assert_eq!(server.send("PUT", &at, &wanted).await.0, 200);
    assert_eq!(server.send("PUT", &at, &wanted).await.0, 409, "the Scale's resourceVersion counts");
    assert_eq!(server.send("PATCH", &at, &json!({"spec": {"replicas": -1}})).await.0, 422);
    let (_, now) = server.get(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(2), &json!(3)));
    let (_, status) =
        server.send("PATCH", &format!("{DEPLOYMENTS}/web/status"), &json!({"status": {"replicas": 2}})).await;
    assert_eq!((&status["status"]["replicas"], &status["metadata"]["generation"]), (&json!(2), &json!(3)));
    let (_, put) =
        server.send("PATCH", &format!("{DEPLOYMENTS}/web"), &json!({"status": {"replicas": 9}})).await;
    assert_eq!(put["status"]["replicas"], 2, "the status is not the main path's to change");
}

#[tokio::test]
async fn a_namespace_ends_when_its_finalizer_goes() {
    let server = Server::new().await;
    let made = server.create("/api/v1/namespaces", json!({"metadata": {"name": "work"}})).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let (code, ending) = server.send("DELETE", "/api/v1/namespaces/work", &Value::Null).await;
    assert_eq!((code.as_u16(), &ending["status"]["phase"]), (200, &json!("Terminating")), "{ending}");
    server.api.index().caught_up().await;
    let (code, refused) =
        server.send("POST", "/api/v1/namespaces/work/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, 403, "{refused}");
    let mut ended = ending.clone();
    ended["spec"] = json!({});
    let (code, _) = server.send("PUT", "/api/v1/namespaces/work/finalize", &ended).await;
    assert_eq!(code, 200);
    assert_eq!(server.get("/api/v1/namespaces/work").await.0, 404);
}

#[tokio::test]
async fn events_have_two_views() {
    let server = Server::new().await;
    let core = "/api/v1/namespaces/default/events";
    let body = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"},
        "reason": "Started", "message": "hello", "type": "Normal"});
    server.create(core, body).await;
    let (code, other) = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    assert_eq!(code, 200, "{other}");
    assert_eq!(
        (&other["apiVersion"], &other["note"], &other["regarding"]["name"]),
        (&json!("events.k8s.io/v1"), &json!("hello"), &json!("a"))
    );
    let (_, list) = server.get("/apis/events.k8s.io/v1/namespaces/default/events").await;
    assert_eq!((&list["kind"], &list["items"][0]["note"]), (&json!("EventList"), &json!("hello")));
    let (_, list) = server.get(&format!("{core}?fieldSelector=involvedObject.name%3Da")).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let mut events = server.watch("/apis/events.k8s.io/v1/namespaces/default/events?watch=1").await;
    assert_eq!(events.next().await.expect("an event")["object"]["note"], "hello");
}

/// The class follows from what admission has made of a Pod, and its kubelet may say so.
#[tokio::test]
async fn what_a_limit_range_fills_in_decides_the_class() {
    let server = Server::new().await;
    let limits = json!([{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}]);
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
    server.create("/api/v1/namespaces/default/limitranges", range).await;
    server.api.index().caught_up().await;
    pod(&server, "a").await;
    let (_, made) = server.get(&format!("{PODS}/a")).await;
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "Burstable"}), "{made}");
    for (class, expect) in [("Burstable", 200), ("BestEffort", 422)] {
        let status = json!({"status": {"phase": "Running", "qosClass": class}});
        let (code, answer) = server.send("PATCH", &format!("{PODS}/a/status"), &status).await;
        assert_eq!(code.as_u16(), expect, "{answer}");
    }
}
