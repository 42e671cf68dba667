use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_makes_shows_changes_and_removes() {
    let server = TestServer::start().await;
    assert!(server.kubectl(&["version"]).ok().contains("Server Version: v1.36"));
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]).ok(), "ok");
    let namespaces = server.kubectl(&["get", "namespaces"]).ok();
    assert!(namespaces.contains("Active") && namespaces.contains("kube-system"), "{namespaces}");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    let file = server.file("map.yaml", map);
    assert_eq!(server.kubectl(&["create", "-f", &file]).ok(), "configmap/a created\n");
    assert!(server.kubectl(&["create", "-f", &file]).err().contains("Error from server (AlreadyExists)"));
    assert_eq!(server.kubectl(&["get", "cm", "a", "-o", "jsonpath={.data.k}"]).ok(), "v");
    assert!(
        server.kubectl(&["get", "cm"]).ok().contains("kube-root-ca.crt")
            || server.kubectl(&["get", "cm"]).ok().contains("a ")
    );
    assert_eq!(server.kubectl(&["label", "cm", "a", "x=y"]).ok(), "configmap/a labeled\n");
    assert!(server.kubectl(&["get", "cm", "-l", "x=y", "-o", "name"]).ok().contains("configmap/a"));
    assert_eq!(server.kubectl(&["annotate", "cm", "a", "n=1"]).ok(), "configmap/a annotated\n");
    assert_eq!(
        server.kubectl(&["patch", "cm", "a", "--type=merge", "-p", r#"{"data":{"k":"w"}}"#]).ok(),
        "configmap/a patched\n"
    );
    assert_eq!(
        server
            .kubectl(&[
                "patch",
                "cm",
                "a",
                "--type=json",
                "-p",
                r#"[{"op":"replace","path":"/data/k","value":"x"}]"#
            ])
            .ok(),
        "configmap/a patched\n"
    );
    assert!(
        server
            .kubectl(&["get", "cm", "none"])
            .err()
            .contains("Error from server (NotFound): configmaps \"none\" not found")
    );
    assert!(server.kubectl(&["get", "nothing"]).err().contains("doesn't have a resource type"));
    assert_eq!(server.kubectl(&["delete", "cm", "a"]).ok(), "configmap \"a\" deleted\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_discovers_every_resource() {
    let server = TestServer::start().await;
    let resources = server.kubectl(&["api-resources"]).ok();
    for line in ["deployments", "pods", "customresourcedefinitions", "endpointslices", "leases"] {
        assert!(resources.contains(line), "{line}: {resources}");
    }
    let versions = server.kubectl(&["api-versions"]).ok();
    assert!(versions.contains("apps/v1\n") && versions.contains("\nv1\n"), "{versions}");
    server.stop().await;
}
