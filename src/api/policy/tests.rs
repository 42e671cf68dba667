//! Policies by example; most are of the documentation of ValidatingAdmissionPolicy.

use serde_json::{Value, json};

use super::*;
use crate::cel::{Authorize, Question};

/// Lets everybody do everything with Pods, and nothing else.
#[derive(Debug)]
struct Pods;

impl Authorize for Pods {
    fn authorize(&self, question: &Question) -> (bool, String) {
        (question.resource == "pods", "pods only".to_owned())
    }
}

fn policy(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn request() -> Value {
    json!({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "operation": "UPDATE", "name": "web",
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "namespace": "n",
        "userInfo": {"username": "u", "groups": ["g"]}})
}

#[track_caller]
fn decide(spec: Value, object: Value, params: Option<Value>) -> Decision {
    let policy = policy(spec);
    assert_eq!(policy_problems(&policy, None, false), [], "{policy}");
    let compiled = Policy::of(&policy, false);
    let request = request();
    let namespace = json!({"metadata": {"name": "n", "labels": {"env": "test"}, "creationTimestamp": "2024-01-01T00:00:00Z"}});
    let inputs = Inputs {
        object: Some(&object),
        old: Some(&object),
        request: &request,
        namespace: Some(&namespace),
        params: params.as_ref(),
        authorizer: &Pods,
    };
    let evaluation = Evaluation::new(inputs);
    match compiled.conditions.hold(&evaluation) {
        Matched::Yes => {}
        other => {
            return Decision {
                verdicts: vec![Verdict::Failed(format!("{other:?}"))],
                annotations: Vec::new(),
            };
        }
    }
    evaluation.with(&compiled).decide(&compiled)
}

fn denied(message: &str) -> Verdict {
    Verdict::Denied { message: message.to_owned(), reason: String::new() }
}

#[test]
fn validations() {
    let deployment =
        |replicas: i64| json!({"spec": {"replicas": replicas}, "metadata": {"labels": {"env": "test"}}});
    let five = json!({"validations": [{"expression": "object.spec.replicas <= 5"}]});
    assert_eq!(decide(five.clone(), deployment(5), None).verdicts, [Verdict::Admitted]);
    assert_eq!(
        decide(five, deployment(6), None).verdicts,
        [denied("failed expression: object.spec.replicas <= 5")]
    );
    let parameters = json!({"paramKind": {"apiVersion": "v1", "kind": "X"}, "validations": [
        {"expression": "object.spec.replicas <= params.maxReplicas", "reason": "Invalid",
         "messageExpression": "'object.spec.replicas must be no greater than ' + string(params.maxReplicas)"}]});
    let said = decide(parameters.clone(), deployment(4), Some(json!({"maxReplicas": 3})));
    let message = "object.spec.replicas must be no greater than 3".to_owned();
    assert_eq!(said.verdicts, [Verdict::Denied { message, reason: "Invalid".to_owned() }]);
    let failed = decide(parameters, deployment(4), Some(json!({}))).verdicts;
    assert!(
        matches!(&failed[..], [Verdict::Failed(why)] if why.contains("no such key: maxReplicas")),
        "{failed:?}"
    );
    let variables = json!({"variables": [
        {"name": "foo", "expression": "'foo' in object.metadata.labels ? object.metadata.labels['foo'] : 'default'"},
        {"name": "long", "expression": "variables.foo.size() > 3"},
        {"name": "never", "expression": "object.z.z"}],
        "validations": [{"expression": "variables.foo == 'default' && variables.long"},
            {"expression": "!variables.never || true"}, {"expression": "variables.never == true"}]});
    let said = decide(variables, deployment(1), None).verdicts;
    assert_eq!(said[..2], [Verdict::Admitted, Verdict::Admitted]);
    assert!(
        matches!(&said[2], Verdict::Failed(why) if why.contains("composited variable \"never\" fails to evaluate"))
    );
}

#[test]
fn what_else_expressions_see() {
    let all = json!({"validations": [
        {"expression": "request.operation == 'UPDATE' && request.userInfo.groups == ['g'] && request.kind.kind == 'Deployment'"},
        {"expression": "namespaceObject.metadata.labels.env == 'test' && namespaceObject.metadata.creationTimestamp.getFullYear() == 2024"},
        {"expression": "authorizer.group('').resource('pods').namespace('n').check('create').allowed()"},
        {"expression": "!authorizer.requestResource.check('x').allowed() && !authorizer.path('/healthz').check('get').allowed()"},
        {"expression": "!authorizer.serviceAccount('n', 'sa').group('apps').resource('x').check('get').allowed()"},
        {"expression": "oldObject == object && !has(request.subResource)"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "'replicas: ' + string(object.spec.replicas)"},
            {"key": "none", "valueExpression": "null"}, {"key": "bad", "valueExpression": "string(object.z)"}]});
    let said = decide(all, json!({"spec": {"replicas": 1}}), None);
    assert!(said.verdicts.iter().all(|verdict| *verdict == Verdict::Admitted), "{said:?}");
    assert_eq!(said.annotations[0], ("k".to_owned(), Ok("replicas: 1".to_owned())));
    assert!(said.annotations.len() == 2 && said.annotations[1].1.is_err());
}

#[test]
fn conditions_decide_whether_a_policy_looks() {
    let with = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}], "validations": [{"expression": "false"}]});
    let said = |expression: &str| decide(with(expression), json!({}), None).verdicts;
    assert_eq!(said("request.namespace == 'n'"), [denied("failed expression: false")]);
    assert_eq!(said("object.metadata.name == 'x' || request.name == 'y'").len(), 1);
    assert!(matches!(&said("false")[..], [Verdict::Failed(why)] if why == "No(\"c\")"));
    assert!(matches!(&said("object.z == 1")[..], [Verdict::Failed(why)] if why.contains("no such key: z")));
}

#[test]
fn mistakes_are_found_when_a_policy_is_written() {
    let check = |spec: Value, mutating: bool, expect: &str| {
        let said = policy_problems(&policy(spec), None, mutating);
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].starts_with(expect), "{said:?}");
    };
    check(
        json!({"validations": [{"expression": "objct.x"}]}),
        false,
        "spec.validations[0].expression: Invalid value: \"objct.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'objct' (in container '')",
    );
    check(
        json!({"validations": [{"expression": "1"}]}),
        false,
        "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
    );
    check(
        json!({"validations": [{"expression": "params.x"}]}),
        false,
        "spec.validations[0].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
    );
    check(
        json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]}),
        false,
        "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: undefined field 'b'",
    );
    check(
        json!({"matchConditions": [{"name": "c", "expression": "request.odd"}]}),
        false,
        "spec.matchConditions[0].expression: Invalid value: \"request.odd\": compilation failed: ERROR: <input>:1:8: undefined field 'odd'",
    );
    check(
        json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}}]}),
        true,
        "spec.mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object",
    );
    let hooks = json!({"webhooks": [{"matchConditions": [{"name": "c", "expression": "variables.x"}]}]});
    assert_eq!(condition_problems(&hooks, None).len(), 1);
    assert_eq!(condition_problems(&hooks, Some(&hooks)).len(), 0);
}

#[test]
fn mutations() {
    let policy = policy(
        json!({"variables": [{"name": "n", "expression": "object.spec.replicas + 1"}], "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: variables.n}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/spec/replicas', value: 1}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}}]}),
    );
    assert_eq!(policy_problems(&policy, None, true), []);
    let compiled = Policy::of(&policy, true);
    let (object, request) = (json!({"spec": {"replicas": 1}}), request());
    let inputs = Inputs {
        object: Some(&object),
        old: None,
        request: &request,
        namespace: None,
        params: None,
        authorizer: &Pods,
    };
    let mut evaluation = Evaluation::new(inputs).with(&compiled);
    assert_eq!(evaluation.change(&compiled, 0), Ok(Change::Apply(json!({"spec": {"replicas": 2}}))));
    let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"}]);
    let patch = serde_json::from_value(patch).expect("a patch");
    assert_eq!(evaluation.change(&compiled, 1), Ok(Change::Patch(patch)));
}
