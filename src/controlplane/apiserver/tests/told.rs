//! What is told of requests beside their answer: headers, metrics, the audit log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::audit::Audit;
use super::webhooks::{Hook, hook};
use super::*;
use rt::SystemClock;

fn header<'r>(response: &'r http::Response<Body>, name: &str) -> &'r str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn every_answer_has_a_name_and_is_private() {
    let server = Server::new().await;
    server.map("a").await;
    for path in ["/version", "/api/v1/nodes", "/readyz", "/metrics", "/no/such/path", "/api/v1/pods?watch=1"]
    {
        let response = server.raw("GET", path, &[], Body::empty()).await;
        assert_eq!(header(&response, "audit-id").len(), 36, "{path}");
        assert_eq!(header(&response, "cache-control"), "no-cache, private", "{path}");
        let again = server.raw("GET", path, &[], Body::empty()).await;
        assert_ne!(header(&again, "audit-id"), header(&response, "audit-id"), "{path}");
        let named = server.raw("GET", path, &[("audit-id", "mine")], Body::empty()).await;
        assert_eq!(header(&named, "audit-id"), "mine", "{path}");
    }
    // What is the same for everybody may be kept.
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let discovery = server.raw("GET", "/apis", &[("accept", aggregated)], Body::empty()).await;
    assert_eq!(header(&discovery, "cache-control"), "public");
    server.clock.broken.store(true, Ordering::Relaxed);
    let body = Body::from(json!({"metadata": {"name": "b"}}).to_string());
    let panicked = server.raw("POST", MAPS, &[("audit-id", "mine")], body).await;
    assert_eq!((panicked.status().as_u16(), header(&panicked, "audit-id")), (500, "mine"));
}

/// The samples of a metric that have all of these labels, added up.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| {
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        })
    };
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    metrics.lines().filter(of).filter_map(value).sum()
}

#[tokio::test]
async fn metrics_have_upstreams_names_and_labels() {
    let server = Server::new().await;
    let mut events = server.watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
    server.map("a").await;
    assert_eq!(events.said().await, "ADDED a");
    server.get(MAPS).await;
    server.get("/readyz").await;
    let (code, _) = server.send("POST", MAPS, &json!({"metadata": {"name": "c"}, "data": {"k": 1}})).await;
    assert_eq!(code, 400);
    let response = server.raw("GET", "/metrics", &[], Body::empty()).await;
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("a text");
    let maps = [r#"group="""#, r#"version="v1""#, r#"resource="configmaps""#];
    let at_least = |name: &str, labels: &[&str], least: f64| {
        let found = sum(&text, name, &[labels, &maps].concat());
        assert!(found >= least, "{name} {labels:?}: {found}");
    };
    let created = [r#"verb="POST""#, r#"scope="resource""#, r#"component="apiserver""#];
    at_least("apiserver_request_total", &[&created[..], &[r#"code="201""#, r#"dry_run="""#]].concat(), 1.0);
    at_least("apiserver_request_duration_seconds_count", &created, 2.0);
    at_least("apiserver_request_sli_duration_seconds_count", &created, 2.0);
    let listed = [r#"verb="LIST""#, r#"scope="namespace""#, r#"subresource="""#];
    at_least("apiserver_response_sizes_sum", &listed, 100.0);
    at_least("apiserver_longrunning_requests", &[r#"verb="WATCH""#, r#"scope="namespace""#], 1.0);
    at_least("apiserver_watch_events_total", &[], 1.0);
    at_least("apiserver_watch_events_sizes_sum", &[], 100.0);
    let probed = [r#"verb="GET""#, r#"subresource="/readyz""#, r#"resource="""#, r#"scope="""#];
    assert_eq!(sum(&text, "apiserver_request_total", &probed), 1.0);
    let stored = [r#"operation="create""#, r#"group="""#, r#"resource="configmaps""#];
    assert_eq!(sum(&text, "etcd_request_duration_seconds_count", &stored), 1.0);
    assert_eq!(sum(&text, "etcd_requests_total", &stored), 1.0);
    assert_eq!(sum(&text, "etcd_request_errors_total", &stored), 0.0);
    let admitted = [r#"operation="CREATE""#, r#"rejected="false""#, r#"type="admit""#];
    assert!(sum(&text, "apiserver_admission_step_admission_duration_seconds_count", &admitted) >= 2.0);
    let plugin = [&admitted[..], &[r#"name="LimitRanger""#]].concat();
    assert!(sum(&text, "apiserver_admission_controller_admission_duration_seconds_count", &plugin) >= 2.0);
    let flow = [r#"flow_schema="exempt""#, r#"priority_level="exempt""#];
    assert!(sum(&text, "apiserver_flowcontrol_dispatched_requests_total", &flow) >= 4.0);
    assert_eq!(sum(&text, "apiserver_flowcontrol_current_executing_requests", &flow), 1.0, "this one");
    let name = "apiserver_flowcontrol_request_execution_seconds_count";
    assert!(sum(&text, name, &[&flow[..], &[r#"type="watch""#]].concat()) >= 1.0);
    let objects = [r#"group="""#, r#"resource="configmaps""#];
    assert_eq!(sum(&text, "apiserver_resource_objects", &objects), 1.0);
    assert_eq!(sum(&text, "apiserver_storage_objects", &[r#"resource="configmaps""#]), 1.0);
    assert!(sum(&text, "apiserver_storage_size_bytes", &[r#"storage_cluster_id="etcd-0""#]) > 100.0);
    // No family is told twice.
    let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all);
}

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Request, resources: [{group: '', resources: [configmaps]}]}
- {level: Metadata}
";

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_what_hooks_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, POLICY).expect("a policy");
    let tasks = Tasks::new();
    let audit = Audit::open(&policy, &log, Arc::new(SystemClock), &tasks).expect("a log");
    let server = Server::with(storage::memory(), |options| options.audit = audit).await;
    let marks = hook(&tasks, |_| {
        let patch = r#"[{"op": "add", "path": "/data", "value": {"marked": "yes"}}]"#;
        json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch), "auditAnnotations": {"k": "v"}})
    })
    .await;
    let nobody = Hook { port: 1, bundle: String::new() };
    let configuration = |name: &str, hook: &Hook| {
        json!({"metadata": {"name": name}, "webhooks": [{"name": format!("{name}.example.com"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "clientConfig": {"url": format!("https://127.0.0.1:{}/ask", hook.port), "caBundle": hook.bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
    };
    let uri = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    server.create(uri, configuration("a", &nobody)).await;
    server.create(uri, configuration("b", &marks)).await;
    server.api.index().caught_up().await;
    let body = Body::from(json!({"metadata": {"name": "m"}}).to_string());
    let headers = [("content-type", "application/json"), ("audit-id", "made")];
    assert_eq!(server.raw("POST", MAPS, &headers, body).await.status(), 201);
    let headers = [("authorization", "Bearer nobody's"), ("audit-id", "unknown")];
    let mut request = Request::get(MAPS);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let refused = server.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(refused.expect("infallible").status(), 401);
    let mut request = Request::get(MAPS).header("impersonate-user", "kim").header("audit-id", "forbidden");
    request = request.extension(UserInfo::new("jane", &[]));
    let refused = server.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(refused.expect("infallible").status(), 403);
    let metrics = server.api.metrics().render();
    drop(server);
    tasks.drain(std::time::Duration::from_secs(5)).await.expect("written");
    let text = std::fs::read_to_string(&log).expect("a log");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let of = |id: &str| {
        let mut found = events.iter().filter(|event| event["auditID"] == id);
        let event = found.next().unwrap_or_else(|| panic!("{id}: {text}"));
        assert!(found.next().is_none(), "{id} is told of once");
        event
    };
    let notes = &of("made")["annotations"];
    let said = |key: &str| -> Value {
        notes[key].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let changed = said("mutation.webhook.admission.k8s.io/round_0_index_1");
    assert_eq!(
        changed,
        json!({"configuration": "b", "webhook": "b.example.com", "mutated": true}),
        "{notes}"
    );
    assert_eq!(
        said("patch.webhook.admission.k8s.io/round_0_index_1")["patch"][0]["path"],
        "/data",
        "the level wants bodies: {notes}"
    );
    assert_eq!(notes["failed-open.mutation.webhook.admission.k8s.io/round_0_index_0"], "a.example.com");
    assert_eq!(notes["b.example.com/k"], "v");
    assert_eq!(of("made")["objectRef"]["name"], "m");
    assert_eq!((&of("unknown")["stage"], &of("unknown")["user"]), (&json!("ResponseStarted"), &json!({})));
    assert_eq!(of("forbidden")["user"]["username"], "jane", "who it really is");
    assert_eq!(of("forbidden")["responseStatus"]["code"], 403);
    assert_eq!(of("forbidden").get("impersonatedUser"), None);
    let hooks =
        [r#"name="b.example.com""#, r#"operation="CREATE""#, r#"type="admit""#, r#"rejected="false""#];
    let requests = "apiserver_admission_webhook_request_total";
    assert_eq!(sum(&metrics, requests, &[&hooks[..], &[r#"code="200""#]].concat()), 1.0);
    let gone = [r#"name="a.example.com""#, r#"type="admit""#];
    assert_eq!(sum(&metrics, requests, &[&gone[..], &[r#"code="503""#]].concat()), 1.0);
    assert_eq!(sum(&metrics, "apiserver_admission_webhook_fail_open_count", &gone), 1.0);
    assert_eq!(sum(&metrics, "apiserver_audit_event_total", &[]), text.lines().count() as f64);
}
