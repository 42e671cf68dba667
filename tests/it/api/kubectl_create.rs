//! What kubectl's `create` commands send is protobuf; what comes of it must be what was asked.

use serde_json::{Value, json};

use crate::support::TestServer;

/// `expect` is part of `found`: maps may have more members, everything else is equal.
fn contains(found: &Value, expect: &Value) -> bool {
    match (found, expect) {
        (Value::Object(found), Value::Object(expect)) => {
            expect.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(found), Value::Array(expect)) => {
            found.len() == expect.len() && found.iter().zip(expect).all(|(f, e)| contains(f, e))
        }
        _ => found == expect,
    }
}

fn cases() -> Vec<(&'static str, Value)> {
    vec![
        ("namespace team", json!({"kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}})),
        (
            "deployment web --image=nginx:1.27 --port=8080 --replicas=2",
            json!({"apiVersion": "apps/v1", "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx:1.27",
                    "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 8080, "protocol": "TCP"}]}]}}}}),
        ),
        ("configmap map --from-literal=a=b", json!({"data": {"a": "b"}})),
        (
            "secret generic password --from-literal=p=hidden",
            json!({"data": {"p": "aGlkZGVu"}, "type": "Opaque"}),
        ),
        (
            "role reader --verb=get,list --resource=pods,deployments.apps",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]}),
        ),
        (
            "rolebinding readers --role=reader --user=jane",
            json!({"roleRef": {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"},
                "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]}),
        ),
        (
            "clusterrole metrics --verb=get --non-resource-url=/metrics",
            json!({"rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}),
        ),
        (
            "clusterrolebinding metrics --clusterrole=metrics --serviceaccount=default:bot",
            json!({"subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}]}),
        ),
        ("serviceaccount bot", json!({"metadata": {"name": "bot"}})),
        (
            "job once --image=busybox -- echo hello",
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
                {"name": "once", "command": ["echo", "hello"], "imagePullPolicy": "Always"}]}}}}),
        ),
        (
            "cronjob often --image=busybox --schedule=*/5\u{a0}*\u{a0}*\u{a0}*\u{a0}*",
            json!({"spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow",
                "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}}}),
        ),
        (
            "service nodeport web --tcp=80:8080",
            json!({"spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [
                {"name": "80-8080", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}}),
        ),
        (
            "service externalname other --external-name=example.com",
            json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}),
        ),
        (
            "ingress web --rule=example.com/*=web:80",
            json!({"spec": {"rules": [{"host": "example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        ),
        (
            "poddisruptionbudget web --selector=app=web --min-available=50%",
            json!({"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}}),
        ),
        (
            "quota small --hard=pods=10,requests.cpu=1500m,requests.memory=1024Mi",
            json!({"spec": {"hard": {"pods": "10", "requests.cpu": "1500m", "requests.memory": "1Gi"}}}),
        ),
        (
            "priorityclass high --value=1000 --global-default=false",
            json!({"value": 1000, "preemptionPolicy": "PreemptLowerPriority"}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_create_command() {
    let server = TestServer::start().await;
    for (command, expect) in cases() {
        let words: Vec<String> = command.split(' ').map(|w| w.replace('\u{a0}', " ")).collect();
        let mut args = vec!["create"];
        let split = words.iter().position(|w| w == "--").unwrap_or(words.len());
        args.extend(words[..split].iter().map(String::as_str));
        args.extend(["-o", "json"]);
        args.extend(words[split..].iter().map(String::as_str));
        let answer = server.kubectl(&args).ok();
        let object: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(contains(&object, &expect), "{command}: {answer}");
    }
    let token = server.kubectl(&["create", "token", "bot", "--duration=20m"]).ok();
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    assert_eq!(server.kubectl(&["auth", "can-i", "create", "pods"]).ok(), "yes\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_is_told_of_bad_manifests() {
    let server = TestServer::start().await;
    let manifest = |replicas: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  {replicas}: 2\n  \
             selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: other}}}}\n    \
             spec: {{containers: [{{name: web, image: nginx}}]}}\n"
        )
    };
    let unknown = server.file("unknown.yaml", &manifest("replicaz"));
    for verb in ["create", "apply"] {
        let strict = server.kubectl(&[verb, "-f", &unknown]).err();
        assert!(strict.contains("strict decoding error: unknown field \"spec.replicaz\""), "{strict}");
    }
    let file = server.file("web.yaml", &manifest("replicas"));
    let invalid = server.kubectl(&["create", "-f", &file]).err();
    assert!(
        invalid.contains("`selector` does not match template `labels`")
            && invalid.contains("The Deployment \"web\" is invalid"),
        "{invalid}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_merges_by_key() {
    let server = TestServer::start().await;
    let manifest = |image: &str, second: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers:\n      - {{name: web, image: \"{image}\"}}\n{second}"
        )
    };
    let first = server.file("a.yaml", &manifest("nginx:1", "      - {name: side, image: \"busybox:1\"}\n"));
    assert_eq!(server.kubectl(&["apply", "-f", &first]).ok(), "deployment.apps/web created\n");
    assert_eq!(server.kubectl(&["apply", "-f", &first]).ok(), "deployment.apps/web unchanged\n");
    server.kubectl(&["set", "image", "deployment/web", "side=busybox:2"]).ok();
    let images = ["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"];
    assert_eq!(server.kubectl(&images).ok(), "nginx:1 busybox:2");
    let second = server.file("b.yaml", &manifest("nginx:2", ""));
    assert_eq!(server.kubectl(&["apply", "-f", &second]).ok(), "deployment.apps/web configured\n");
    assert_eq!(server.kubectl(&images).ok(), "nginx:2");
    server.stop().await;
}
