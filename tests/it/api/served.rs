//! Who serves what, who waits for whom, and tokens in Secrets, tried with kubectl.

use std::time::{Duration, Instant};

use crate::support::TestServer;

/// Waits until kubectl says what it should.
fn eventually(server: &TestServer, line: &str, holds: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = server.kubectl_as(&server.kubeconfig(), line);
        if said.code == 0 && holds(&said.stdout) {
            return said.stdout;
        }
        assert!(Instant::now() < deadline, "kubectl {line}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_sees_what_is_served_and_who_waits() {
    let server = TestServer::with_controllers().await;
    eventually(&server, "get apiservice v1.apps", |text| text.contains("Local") && text.contains("True"));
    let services = server.kubectl(&["get", "apiservices"]).ok();
    assert!(!services.contains("False"), "{services}");
    let schemas = eventually(&server, "get flowschemas", |text| text.contains("system-nodes"));
    assert!(schemas.contains("exempt") && schemas.contains("catch-all"), "{schemas}");
    assert!(server.kubectl(&["delete", "flowschema", "catch-all"]).ok().contains("deleted"));
    eventually(&server, "get flowschema catch-all -o jsonpath={.status.conditions[0].reason}", |text| {
        text == "Found"
    });
    let metrics = server.kubectl(&["get", "--raw", "/metrics"]).ok();
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_holds_a_token_as_long_as_it_is_there() {
    let server = TestServer::with_controllers().await;
    let objects = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n---\n\
        apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\n\
        metadata: {name: robot-token, annotations: {kubernetes.io/service-account.name: robot}}\n";
    let file = server.file("robot.yaml", objects);
    server.kubectl(&["apply", "-f", &file]).ok();
    let encoded =
        eventually(&server, "get secret robot-token -o jsonpath={.data.token}", |text| !text.is_empty());
    use base64::Engine as _;
    let token = base64::prelude::BASE64_STANDARD.decode(encoded).expect("base64");
    let token = String::from_utf8(token).expect("a token");
    let robot = server.kubeconfig_of("robot", None, &token);
    let refused = server.kubectl_as(&robot, "get pods").err();
    assert!(refused.contains("system:serviceaccount:default:robot"), "{refused}");
    server.kubectl(&["delete", "serviceaccount", "robot"]).ok();
    eventually(&server, "get secrets -o name", |text| !text.contains("robot-token"));
    let refused = server.kubectl_as(&robot, "get pods").err();
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
    server.stop().await;
}
