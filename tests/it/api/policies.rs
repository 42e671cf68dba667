//! Admission policies, tried with kubectl.

use crate::support::TestServer;

fn validating(extra: &str) -> String {
    format!(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: replicas}}
spec:
  matchConstraints:
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}}]
{extra}
"#
    )
}

fn binding(kind: &str, extra: &str) -> String {
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: {kind}Binding\nmetadata: {{name: replicas}}\nspec:\n  policyName: replicas\n{extra}\n"
    )
}

/// Applies a text, under a name of its own.
fn apply(server: &TestServer, text: &str) {
    let file = server.file("x.yaml", text);
    server.kubectl(&["apply", "-f", &file]).ok();
}

const POLICY: &str = "ValidatingAdmissionPolicy";
const DENIED: &str = "ValidatingAdmissionPolicy 'replicas' with binding 'replicas' denied request";

fn deploy(server: &TestServer, name: &str, replicas: u32) -> crate::support::Said {
    let replicas = format!("--replicas={replicas}");
    server.kubectl(&["create", "deployment", name, "--image=i", &replicas])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_policy_denies_at_once() {
    let server = TestServer::start().await;
    apply(&server, &validating("  validations: [{expression: object.spec.replicas <= 5}]"));
    deploy(&server, "before", 6).ok();
    apply(&server, &binding(POLICY, "  validationActions: [Deny]"));
    let said = deploy(&server, "after", 6).err();
    let expect = format!(
        "deployments.apps \"after\" is forbidden: {DENIED}: failed expression: object.spec.replicas <= 5"
    );
    assert!(said.contains(&expect), "{said}");
    deploy(&server, "small", 5).ok();
    let scaled = server.kubectl(&["patch", "deployment", "small", "-p", r#"{"spec":{"replicas":9}}"#]).err();
    assert!(scaled.contains(DENIED), "{scaled}");
    // A warning instead; then only where the namespace is labelled; then nowhere.
    apply(&server, &binding(POLICY, "  validationActions: [Warn]"));
    let said = deploy(&server, "warned", 7);
    assert!(said.stderr.contains("Validation failed for ValidatingAdmissionPolicy 'replicas'"), "{said:?}");
    said.ok();
    let selected =
        "  validationActions: [Deny]\n  matchResources: {namespaceSelector: {matchLabels: {env: prod}}}";
    apply(&server, &binding(POLICY, selected));
    deploy(&server, "elsewhere", 8).ok();
    server.kubectl(&["label", "namespace", "default", "env=prod"]).ok();
    assert!(deploy(&server, "here", 8).err().contains(DENIED));
    server.kubectl(&["delete", "validatingadmissionpolicybinding", "replicas"]).ok();
    deploy(&server, "unbound", 8).ok();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_variables_and_messages() {
    let server = TestServer::start().await;
    let policy = validating(
        r#"  paramKind: {apiVersion: v1, kind: ConfigMap}
  variables: [{name: most, expression: int(params.data.most)}]
  matchConditions: [{name: not-me, expression: "!object.metadata.name.startsWith('free')"}]
  validations:
  - {expression: object.spec.replicas <= variables.most, messageExpression: "'at most ' + string(variables.most)", reason: Forbidden}"#,
    );
    apply(&server, &policy);
    apply(
        &server,
        &binding(
            POLICY,
            "  validationActions: [Deny]\n  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}",
        ),
    );
    let said = deploy(&server, "a", 1).err();
    assert!(
        said.contains("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{said}"
    );
    server.kubectl(&["create", "configmap", "limits", "--from-literal=most=3"]).ok();
    deploy(&server, "a", 3).ok();
    assert!(deploy(&server, "b", 4).err().contains(&format!("{DENIED}: at most 3")));
    deploy(&server, "free", 40).ok();
    server.kubectl(&["patch", "configmap", "limits", "-p", r#"{"data":{"most":"4"}}"#]).ok();
    deploy(&server, "b", 4).ok();
    // Every parameter that is selected is asked.
    apply(
        &server,
        &binding(
            POLICY,
            "  validationActions: [Deny]\n  paramRef: {selector: {matchLabels: {is: limit}}, parameterNotFoundAction: Allow}",
        ),
    );
    deploy(&server, "c", 50).ok();
    server.kubectl(&["label", "configmap", "limits", "is=limit"]).ok();
    assert!(deploy(&server, "d", 50).err().contains("at most 4"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_deletions_and_rights_and_are_checked_when_written() {
    let server = TestServer::start().await;
    let policy = |validation: &str| {
        validating(&format!("  validations: [{{expression: \"{validation}\"}}]")).replace(
            "operations: [CREATE, UPDATE], resources: [deployments]",
            "operations: [DELETE], resources: [deployments]",
        )
    };
    apply(&server, &policy("oldObject.metadata.name != 'kept' && request.operation == 'DELETE'"));
    apply(&server, &binding(POLICY, "  validationActions: [Deny]"));
    deploy(&server, "kept", 1).ok();
    deploy(&server, "gone", 1).ok();
    assert!(server.kubectl(&["delete", "deployment", "kept"]).err().contains(DENIED));
    server.kubectl(&["delete", "deployment", "gone"]).ok();
    apply(
        &server,
        &policy(
            "authorizer.group('apps').resource('deployments').namespace(request.namespace).check('create').allowed()",
        ),
    );
    server.kubectl(&["delete", "deployment", "kept"]).ok();
    let refused = |validation: &str, expect: &str| {
        let file = server.file("bad.yaml", &policy(validation));
        let said = server.kubectl(&["apply", "-f", &file]).err();
        assert!(said.contains(expect), "{validation}: {said}");
    };
    refused("objct.x == 1", "undeclared reference to 'objct' (in container '')");
    refused("1 + 1", "must evaluate to bool but got int");
    refused("request.odd == 1", "undefined field 'odd'");
    server.stop().await;
}

const MUTATING: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: replicas}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >
        Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: "mesh", image: "mesh:1"}]}}
  - patchType: JSONPatch
    jsonPatch:
      expression: >
        [JSONPatch{op: "test", path: "/metadata/name", value: "one"},
         JSONPatch{op: "add", path: "/metadata/annotations", value: {"by": "policy-" + string(object.spec.initContainers.size())}}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn policies_change_objects() {
    let server = TestServer::with_controllers().await;
    apply(&server, MUTATING);
    apply(&server, &binding("MutatingAdmissionPolicy", ""));
    let run = |name: &str| server.kubectl(&["run", name, "--image=i", "--restart=Never"]).ok();
    let path = "jsonpath={.spec.initContainers[*].image} {.spec.initContainers[*].imagePullPolicy} {.metadata.annotations.by}";
    run("one");
    assert_eq!(server.kubectl(&["get", "pod", "one", "-o", path]).ok(), "mesh:1 IfNotPresent policy-1");
    run("two");
    assert_eq!(server.kubectl(&["get", "pod", "two", "-o", path]).ok(), "mesh:1 IfNotPresent ");
    // Lists that are taken as a whole are not to be replaced by accident.
    let whole = MUTATING.replace(
        "initContainers: [Object.spec.initContainers{name: \"mesh\", image: \"mesh:1\"}]",
        "tolerations: [Object.spec.tolerations{key: \"a\"}]",
    );
    apply(&server, &whole);
    let said = server.kubectl(&["run", "three", "--image=i"]).err();
    assert!(said.contains("may not mutate atomic arrays, maps or structs: .spec.tolerations"), "{said}");
    server.stop().await;
}
