//! Who may do what, asked by real kubectl of a server behind TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assert_cmd::Command;
use minik::config::NodeConfig;
use minik::controlplane::apiserver::{self, serve};
use minik::controlplane::storage;
use minik::pki::{Identity, ServerPki};
use minik::rt::{SystemClock, Tasks};
use serde_json::json;
use tokio::net::TcpListener;

struct Server {
    dir: tempfile::TempDir,
    pki: ServerPki,
    port: u16,
    tasks: Tasks,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config: NodeConfig = serde_json::from_value(json!({
            "cluster": "t", "node": "t-server-0", "role": "server", "nodeIp": "127.0.0.1", "serverIp": "127.0.0.1",
            "serverPort": port, "token": "abcdef.0123456789abcdef", "caHash": "sha256:0", "podCidr": "10.42.0.0/16",
            "serviceCidr": "10.43.0.0/16", "dnsIp": "10.43.0.10", "clusterDomain": "cluster.local",
            "lbFirst": "172.20.0.200", "lbLast": "172.20.0.250", "apiSans": [],
        }))
        .expect("a configuration");
        let dir = tempfile::tempdir().expect("a folder");
        let tasks = Tasks::new();
        let pki = ServerPki::prepare(dir.path(), "t", &["127.0.0.1".to_owned()]).expect("certificates");
        let server = apiserver::start(storage::memory(), Arc::new(SystemClock), &pki, &config, &tasks)
            .await
            .expect("a server");
        let tls = serve::tls(&pki.serving, pki.authority.certificate_pem()).expect("TLS");
        serve::serve(listener, server.router(), tls, &tasks);
        Self { dir, pki, port, tasks }
    }

    /// Writes a kubeconfig for an identity, or for a token.
    fn kubeconfig(&self, name: &str, identity: Option<&Identity>, token: &str) -> std::path::PathBuf {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let user = match identity {
            Some(identity) => json!({
                "client-certificate-data": encode(&identity.certificate_pem),
                "client-key-data": encode(&identity.key_pem),
            }),
            None => json!({"token": token}),
        };
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": {"server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": encode(self.pki.authority.certificate_pem())}}],
            "users": [{"name": "t", "user": user}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}]});
        let path = self.dir.path().join(name);
        std::fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }
}

/// Runs kubectl off the runtime's threads; answers standard output and error together, and the exit code.
async fn kubectl(config: &Path, line: &str) -> (i32, String) {
    let (config, line) = (config.to_owned(), line.to_owned());
    let run = move || {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let output = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(config)
            .args(words)
            .timeout(Duration::from_secs(30))
            .output()
            .expect("kubectl runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).trim().to_owned())
    };
    tokio::task::spawn_blocking(run).await.expect("kubectl ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_asks_who_may_do_what() {
    let server = Server::start().await;
    let admin = server.kubeconfig("admin", Some(&server.pki.admin), "");
    let jane = server.pki.authority.sign_client("jane", &["dev"]).expect("an identity");
    let jane = server.kubeconfig("jane", Some(&jane), "");

    let check = |config: &Path, line: &'static str, code: i32, expect: &'static str| {
        let config = config.to_owned();
        async move {
            let (got, text) = kubectl(&config, line).await;
            assert!(got == code && text.contains(expect), "kubectl {line}: {got} {text}");
        }
    };
    let group = "apiGroup: rbac.authorization.k8s.io";
    let binding = |name: &str, role: &str, subject: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}, namespace: default}}\n\
             roleRef: {{{group}, kind: ClusterRole, name: {role}}}\nsubjects: [{{{subject}}}]\n---\n"
        )
    };
    let devs = binding("devs", "edit", &format!("{group}, kind: Group, name: dev"));
    let robots = binding("robots", "view", "kind: ServiceAccount, name: robot, namespace: default");
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: default}\n";
    let file = server.dir.path().join("objects.yaml");
    std::fs::write(&file, format!("{devs}{robots}{account}")).expect("a manifest");
    let create = format!("create -f {}", file.display());

    let refusal = r#"deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" in the namespace "default""#;
    check(&jane, "get deployments", 1, refusal).await;
    let (code, text) = kubectl(&admin, &create).await;
    assert_eq!(code, 0, "{text}");
    check(&jane, "get deployments", 0, "No resources found").await;
    check(&jane, "get deployments -n kube-system", 1, "in the namespace \"kube-system\"").await;
    check(&jane, "get pods --as=bob", 1, "cannot impersonate resource \"users\"").await;
    check(&admin, "get pods --as=bob", 1, "User \"bob\" cannot list resource \"pods\"").await;
    check(&admin, "get pods --as=bob --as-group=dev", 0, "No resources found").await;

    let request = server.dir.path().join("token.json");
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    std::fs::write(&request, body.to_string()).expect("a request");
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let (code, answer) = kubectl(&admin, &format!("create --raw {path} -f {}", request.display())).await;
    assert_eq!(code, 0, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("a TokenRequest");
    let robot = server.kubeconfig("robot", None, answer["status"]["token"].as_str().expect("a token"));
    check(&robot, "get pods", 0, "No resources found").await;
    check(
        &robot,
        "get secrets",
        1,
        "User \"system:serviceaccount:default:robot\" cannot list resource \"secrets\"",
    )
    .await;
    let stranger = server.kubeconfig("stranger", None, "abc");
    check(&stranger, "get pods", 1, "Unauthorized").await;
    check(&admin, "get clusterrole admin -o jsonpath={.rules[*].resources}", 0, "deployments").await;
    check(&admin, "delete namespace default", 1, "this namespace may not be deleted").await;
    server.tasks.drain(Duration::from_secs(10)).await.expect("the server ends");
}
