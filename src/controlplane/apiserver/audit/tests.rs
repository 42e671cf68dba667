//! Policies, and what they let be told.

use http::{Method, Request};

use super::policy::{Level, Policy};
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
        assert_eq!(wanted.level, expect, "{user} {method} {path}");
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
fn rules_match_as_upstreams_do() {
    let check = |rule: &str, request: &str, expect: bool| {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: Metadata, {rule}}}]");
        let policy = Policy::parse(&text).unwrap();
        let (method, path) = request.split_once(' ').unwrap();
        let info = RequestInfo::new(&method.parse().unwrap(), path, None);
        let level = policy.wants(&info, &UserInfo::new("jane", &["dev"])).level;
        assert_eq!(level == Level::Metadata, expect, "{rule}: {request}");
    };
    let (pod, deployment) = ("/api/v1/namespaces/a/pods/p", "/apis/apps/v1/namespaces/a/deployments/d");
    let any_group = "resources: [{group: '*', resources: [pods, deployments]}]";
    for path in [pod, deployment] {
        check(any_group, &format!("GET {path}"), true);
    }
    check(any_group, &format!("GET {pod}/log"), false);
    check("resources: [{group: '*'}]", &format!("GET {pod}/log"), true);
    check("resources: [{group: '', resources: ['pods/*']}]", &format!("GET {pod}/log"), true);
    check("resources: [{group: '', resources: ['*/log']}]", &format!("GET {pod}/log"), true);
    check("resources: [{group: '', resources: ['*']}]", &format!("GET {pod}/log"), true);
    check("resources: [{group: '', resources: [pods], resourceNames: [p]}]", &format!("GET {pod}"), true);
    check("resources: [{group: '', resources: [pods], resourceNames: [q]}]", &format!("GET {pod}"), false);
    check("namespaces: ['']", "GET /api/v1/nodes/n", true);
    check("namespaces: ['']", &format!("GET {pod}"), false);
    check("namespaces: [a]", "GET /healthz", false);
    check("userGroups: [ops, dev]", "GET /healthz", true);
    check("userGroups: [ops]", "GET /healthz", false);
    check("verbs: [delete]", &format!("DELETE {pod}"), true);
    check("verbs: [delete]", "DELETE /api/v1/namespaces/a/pods", false);
    check("nonResourceURLs: ['/healthz*']", "GET /healthz/ping", true);
    check("nonResourceURLs: ['*']", "GET /version", true);
    check("nonResourceURLs: ['*']", &format!("GET {pod}"), false);
}

#[test]
fn a_wrong_policy_is_refused_in_upstreams_words() {
    let check = |text: &str, expect: &str| {
        let error = Policy::parse(text).unwrap_err();
        assert!(error.contains(expect), "{error}");
    };
    let wrong = "no kind \"Policy\" is registered for version \"audit.k8s.io/v1beta1\"";
    check("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: Metadata}]", wrong);
    check("kind: Policy\nrules: [{level: Metadata}]", "no kind \"Policy\" is registered for version \"\"");
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    check(head, "loaded illegal policy with 0 rules");
    let rule = |rule: &str, expect: &str| check(&format!("{head}rules: [{{{rule}}}]"), expect);
    rule("verbs: [get]", "rules[0].level: Required value");
    rule(
        "level: Loud",
        "rules[0].level: Unsupported value: \"Loud\": supported values: \"None\", \"Metadata\", \"Request\", \
         \"RequestResponse\"",
    );
    rule("level: Metadata, verb: [get]", "unknown field `verb`");
    rule(
        "level: Metadata, omitStages: [Response]",
        "rules[0].omitStages[0]: Invalid value: \"Response\": allowed stages are \
         RequestReceived,ResponseStarted,ResponseComplete,Panic",
    );
    rule(
        "level: Metadata, nonResourceURLs: [/x], namespaces: [a]",
        "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and \
         non-resource URLs",
    );
    rule(
        "level: Metadata, nonResourceURLs: [x]",
        "rules[0].nonResourceURLs[0]: Invalid value: \"x\": non-resource URL rules must begin with a '/' character",
    );
    rule(
        "level: Metadata, nonResourceURLs: ['/*/x']",
        "non-resource URL wildcards '*' must be the final character of the rule",
    );
    rule(
        "level: Metadata, resources: [{resourceNames: [a]}]",
        "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one resource",
    );
    rule(
        "level: Metadata, resources: [{group: rbac.authorization.k8s.io/v1}]",
        "rules[0].resources.group: Invalid value: \"rbac.authorization.k8s.io/v1\": a lowercase RFC 1123 subdomain",
    );
    check(
        &format!("{head}omitStages: [Late]\nrules: [{{level: x}}]"),
        "[omitStages[0]: Invalid value: \"Late\": allowed stages",
    );
}

/// A request with what it is known by.
fn request(builder: http::request::Builder) -> (Parts, RequestInfo) {
    let (mut parts, ()) = builder.body(()).unwrap().into_parts();
    RequestId::of(&mut parts);
    let info = RequestInfo::new(&parts.method, parts.uri.path(), parts.uri.query());
    (parts, info)
}

/// What a log says after its writers are gone.
async fn lines(tasks: &Tasks, log: &Path) -> Vec<Value> {
    tasks.drain(std::time::Duration::from_secs(5)).await.unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn what_fails_early_or_badly_is_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let tasks = Tasks::new();
    let audit = Audit::open(&policy, &log, Arc::new(SystemClock), &tasks).unwrap().unwrap();
    let agent = "x".repeat(1025);
    let (parts, info) =
        request(Request::get("/api/v1/namespaces/a/configmaps/m").header("user-agent", agent));
    audit.unauthenticated(&parts, &info, &ApiError::unauthorized("")).await;
    let (parts, info) = request(Request::post("/api/v1/namespaces/b/secrets"));
    let mut audited = audit.begin(&parts, &info, &UserInfo::new("jane", &[]), false).await.unwrap();
    let body = Bytes::from(r#"{"metadata": {"name": "s", "uid": "u"}, "data": {"k": "dg=="}}"#);
    audited.requested(&info, &HeaderMap::new(), &body);
    audit.panicked(audited, "oh").await;
    let mut text = Text::default();
    audit.tell(&mut text);
    drop(audit);
    let lines = lines(&tasks, &log).await;
    let [nobody, panic] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((nobody["stage"].as_str(), &nobody["user"]), (Some("ResponseStarted"), &json!({})));
    assert_eq!(nobody["responseStatus"]["code"], 401);
    let agent = nobody["userAgent"].as_str().unwrap();
    assert_eq!((agent.len(), agent.ends_with("x...TRUNCATED")), (1024 + "...TRUNCATED".len(), true));
    assert_eq!(
        (panic["stage"].as_str(), &panic["requestObject"]),
        (Some("Panic"), &Value::Null),
        "metadata only"
    );
    assert_eq!(panic["objectRef"]["name"], "s", "the body says the name");
    assert_eq!(panic["responseStatus"]["message"], "APIServer panic'd: oh");
    let text = text.finish();
    for expect in [
        "apiserver_audit_event_total 2",
        "apiserver_audit_level_total{level=\"Metadata\"} 1",
        "apiserver_audit_level_total{level=\"RequestResponse\"} 1",
        "apiserver_audit_error_total{plugin=\"log\"} 0",
    ] {
        assert!(text.contains(expect), "{text}");
    }
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
    let (parts, info) =
        request(Request::post("/api/v1/namespaces/a/configmaps?x=1").header("audit-id", "id-1"));
    let jane = UserInfo::new("jane", &["dev"]);
    let mut audited = audit.begin(&parts, &info, &jane, false).await.unwrap();
    audited.acts_as(&UserInfo::new("kim", &[]));
    audited.decided(true, "because");
    let notes = Notes::default();
    notes.add("a.example.com/b", "first");
    notes.add("a.example.com/b", "second");
    audited.noted(&notes);
    let body = Bytes::from(r#"{"metadata": {"name": "m", "managedFields": [1]}}"#);
    audited.requested(&info, &HeaderMap::new(), &body);
    let answer = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Invalid","code":422}"#;
    let answer = Response::builder().status(422).body(Body::from(answer)).unwrap();
    let answer = audit.end(audited, answer).await;
    assert!(answer.into_body().collect().await.unwrap().to_bytes().starts_with(b"{\"kind\":\"Status\""));
    drop(audit);
    let lines = lines(&tasks, &log).await;
    let [event] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(event["auditID"], "id-1");
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
}
