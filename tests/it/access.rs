//! Who may do what, asked by real kubectl of a server behind TLS.

use std::path::Path;

use serde_json::json;

use super::support::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_asks_who_may_do_what() {
    let server = TestServer::start().await;
    let admin = server.kubeconfig();
    let jane = server.server.pki.authority.sign_client("jane", &["dev"]).expect("an identity");
    let jane = server.kubeconfig_of("jane", Some(&jane), "");

    let check = |config: &Path, line: &str, code: i32, expect: &str| {
        let said = server.kubectl_as(config, line);
        let text = [said.stdout, said.stderr].concat();
        assert!(said.code == code && text.contains(expect), "kubectl {line}: {} {text}", said.code);
    };
    let group = "apiGroup: rbac.authorization.k8s.io";
    let binding = |name: &str, role: &str, subject: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}, namespace: default}}\n\
             roleRef: {{{group}, kind: ClusterRole, name: {role}}}\nsubjects: [{{{subject}}}]\n---\n"
        )
    };
    // No controller runs here that would fill `edit` and `view`.
    let devs = binding("devs", "system:aggregate-to-view", &format!("{group}, kind: Group, name: dev"));
    let robots = binding(
        "robots",
        "system:aggregate-to-view",
        "kind: ServiceAccount, name: robot, namespace: default",
    );
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: default}\n";
    let file = server.file("objects.yaml", &format!("{devs}{robots}{account}"));

    let refusal = r#"deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" in the namespace "default""#;
    check(&jane, "get deployments", 1, refusal);
    server.kubectl(&["create", "-f", &file]).ok();
    check(&jane, "get deployments", 0, "No resources found");
    check(&jane, "get deployments -n kube-system", 1, "in the namespace \"kube-system\"");
    check(&jane, "get pods --as=bob", 1, "cannot impersonate resource \"users\"");
    check(&admin, "get pods --as=bob", 1, "User \"bob\" cannot list resource \"pods\"");
    check(&admin, "get pods --as=bob --as-group=dev", 0, "No resources found");

    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let request = server.file("token.json", &body.to_string());
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let answer = server.kubectl(&["create", "--raw", path, "-f", &request]).ok();
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("a TokenRequest");
    let robot = server.kubeconfig_of("robot", None, answer["status"]["token"].as_str().expect("a token"));
    check(&robot, "get pods", 0, "No resources found");
    check(
        &robot,
        "get secrets",
        1,
        "User \"system:serviceaccount:default:robot\" cannot list resource \"secrets\"",
    );
    let stranger = server.kubeconfig_of("stranger", None, "abc");
    check(&stranger, "get pods", 1, "Unauthorized");
    check(
        &admin,
        "get clusterrole system:aggregate-to-edit -o jsonpath={.rules[*].resources}",
        0,
        "deployments",
    );
    check(&admin, "delete namespace default", 1, "this namespace may not be deleted");
    server.stop().await;
}
