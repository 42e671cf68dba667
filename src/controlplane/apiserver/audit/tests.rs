//! Policies, and what they let be told.

use http::{Method, Request};

use super::policy::{Level, Policy, Stage};
use super::*;
use rt::SystemClock;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: '', resources: [configmaps, pods/*]}]
- level: Request
  verbs: [create]
  namespaces: [kube-system]
- level: None
  nonResourceURLs: ['/healthz*']
- level: Metadata
  omitStages: [ResponseStarted]
";

#[test]
fn the_first_rule_that_matches_counts() {
    let policy = Policy::parse(POLICY).unwrap();
    let check = |user: &str, method: Method, path: &str, expect: Level| {
        let info = RequestInfo::new(&method, path, None);
        let wanted = policy.wants(&info, &UserInfo::new(user, &[]));
        assert_eq!(wanted.map(|wanted| wanted.level).unwrap_or_default(), expect, "{user} {method} {path}");
    };
    check("system:kube-proxy", Method::GET, "/api/v1/namespaces/a/configmaps/b", Level::None);
    check("jane", Method::GET, "/api/v1/namespaces/a/configmaps/b", Level::RequestResponse);
    check("jane", Method::GET, "/api/v1/namespaces/a/pods/b/status", Level::RequestResponse);
    check("jane", Method::GET, "/api/v1/namespaces/a/pods/b", Level::RequestResponse);
    check("jane", Method::GET, "/api/v1/namespaces/a/services/b", Level::Metadata);
    check("jane", Method::POST, "/api/v1/namespaces/kube-system/secrets", Level::Request);
    check("jane", Method::GET, "/healthz/ping", Level::None);
    check("jane", Method::GET, "/version", Level::Metadata);
}

#[test]
fn a_wrong_policy_is_refused_and_says_why() {
    let check = |text: &str, expect: &str| {
        let error = Policy::parse(text).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check("kind: Policy\nrules: [{level: Metadata}]", "is no audit.k8s.io/v1 Policy");
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    check(head, "no rules");
    check(&format!("{head}rules: [{{level: Loud}}]"), "cannot be read");
    check(&format!("{head}rules: [{{level: Metadata, verb: [get]}}]"), "cannot be read");
    let both = "rules: [{level: Metadata, nonResourceURLs: [/x], namespaces: [a]}]";
    check(&format!("{head}{both}"), "both regular resources and non-resource URLs");
}

#[tokio::test]
async fn requests_are_told_of_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("log/audit.log"));
    let tasks = Tasks::new();
    let open = || Audit::open(&policy, &log, Arc::new(SystemClock), &tasks).unwrap();
    assert!(open().is_none(), "no policy, no log");
    std::fs::write(&policy, POLICY).unwrap();
    let audit = open().unwrap();
    let request =
        Request::post("/api/v1/namespaces/a/configmaps?x=1").header("audit-id", "id-1").body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let info = RequestInfo::new(&parts.method, parts.uri.path(), parts.uri.query());
    let jane = UserInfo::new("jane", &["dev"]);
    let mut audited =
        audit.begin(&parts, &info, &jane, Some(&UserInfo::new("kim", &[])), false).await.unwrap();
    audited.decided(true, "because");
    let notes = Notes::default();
    notes.add("a.example.com/b", "first");
    notes.add("a.example.com/b", "second");
    audited.noted(&notes);
    audited.requested(Some(serde_json::json!({"metadata": {"name": "m", "managedFields": [1]}})));
    let answer = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Invalid","code":422}"#;
    let answer = Response::builder().status(422).body(Body::from(answer)).unwrap();
    let answer = audit.end(audited, answer).await;
    assert_eq!(answer.headers()["audit-id"], "id-1");
    assert!(answer.into_body().collect().await.unwrap().to_bytes().starts_with(b"{\"kind\":\"Status\""));
    drop(audit);
    tasks.drain(std::time::Duration::from_secs(5)).await.unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [event] = &lines[..] else { panic!("{text}") };
    assert_eq!(
        (event["stage"].as_str(), event["level"].as_str()),
        (Some("ResponseComplete"), Some("RequestResponse"))
    );
    assert_eq!(event["user"]["username"], "jane");
    assert_eq!(event["impersonatedUser"]["username"], "kim");
    assert_eq!(event["requestObject"], serde_json::json!({"metadata": {"name": "m"}}));
    assert_eq!(event["responseStatus"]["code"], 422);
    assert_eq!(event["responseStatus"]["reason"], "Invalid");
    assert_eq!(event["objectRef"]["resource"], "configmaps");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(event["annotations"]["a.example.com/b"], "first");
    assert_eq!(event["requestURI"], "/api/v1/namespaces/a/configmaps?x=1");
    let omitted = Stage::RequestReceived;
    assert!(!text.contains(&format!("{omitted:?}")));
}
