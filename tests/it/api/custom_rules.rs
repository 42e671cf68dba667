//! Rules of custom resources in CEL, tried with kubectl.

use crate::support::TestServer;

fn definition(rules: &str) -> String {
    format!(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: scalers.stable.example.com}}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {{plural: scalers, singular: scaler, kind: Scaler}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {{status: {{}}}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations: {rules}
            properties:
              min: {{type: integer}}
              max: {{type: integer}}
              names: {{type: array, items: {{type: string}}}}
              fixed: {{type: string, x-kubernetes-validations: [{{rule: self == oldSelf, message: fixed stays}}]}}
              late: {{type: string}}
"#
    )
}

fn object(spec: &str) -> String {
    format!("apiVersion: stable.example.com/v1\nkind: Scaler\nmetadata: {{name: one}}\nspec: {spec}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_hold_for_every_write() {
    let server = TestServer::with_controllers().await;
    let rules = r#"[{rule: "self.min <= self.max", messageExpression: "'max is ' + string(self.max)", fieldPath: .max},
      {rule: "!has(self.late) || self.late.startsWith('x')", message: late starts with x}]"#;
    let apply = |name: &str, text: &str| {
        let file = server.file(name, text);
        server.kubectl(&["apply", "-f", &file])
    };
    let first = apply("crd.yaml", &definition(rules));
    assert!(!first.stderr.contains("Warning"), "{first:?}");
    first.ok();
    server
        .kubectl(&["wait", "--for=condition=Established", "crd/scalers.stable.example.com", "--timeout=20s"])
        .ok();
    let said = apply("a.yaml", &object("{min: 5, max: 3}")).err();
    assert!(said.contains("The Scaler \"one\" is invalid: spec.max: Invalid value: max is 3"), "{said}");
    apply("a.yaml", &object("{min: 1, max: 3, fixed: a}")).ok();
    let said = apply("a.yaml", &object("{min: 1, max: 3, fixed: b}")).err();
    assert!(said.contains("spec.fixed: Invalid value: \"b\": fixed stays"), "{said}");
    let patch = ["patch", "scaler", "one", "--type=merge", "-p", r#"{"spec":{"min":9}}"#];
    assert!(server.kubectl(&patch).err().contains("max is 3"));
    let file = server.file("ssa.yaml", &object("{min: 7, max: 3}"));
    let said = server.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]).err();
    assert!(said.contains("max is 3"), "{said}");
    // A rule that comes later leaves what is there alone, until it is touched.
    let looser = "[{rule: self.min >= 0}]";
    apply("crd.yaml", &definition(looser)).ok();
    apply("a.yaml", &object("{min: 1, max: 3, fixed: a, late: yes-it-is}")).ok();
    apply("crd.yaml", &definition(rules)).ok();
    let file = server.file("b.yaml", &object("{min: 2, max: 3, fixed: a, late: z}"));
    let refused = (0..100).any(|_| {
        let said = server.kubectl(&["apply", "--dry-run=server", "-f", &file]);
        said.stderr.contains("late starts with x")
    });
    assert!(refused, "the row of the definition has the rule");
    server.kubectl(&["label", "scaler", "one", "a=b"]).ok();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rules_are_refused_with_their_place() {
    let server = TestServer::with_controllers().await;
    let refused = |rules: &str, expect: &str| {
        let file = server.file("crd.yaml", &definition(rules));
        let said = server.kubectl(&["create", "-f", &file]).err();
        assert!(said.contains(expect), "{rules}: {said}");
    };
    refused("[{rule: self.odd == 1}]", "undefined field 'odd'");
    refused("[{rule: 'self.min =='}]", "Syntax error: mismatched input '<EOF>'");
    refused("[{rule: self.min}]", "cel expression must evaluate to a bool");
    refused(
        "[{rule: 'self.names.all(x, self.names.all(y, x == y))'}]",
        "estimated rule cost exceeds budget by factor of more than 100x",
    );
    server.stop().await;
}
