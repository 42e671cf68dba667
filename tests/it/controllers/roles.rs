//! Aggregating ClusterRoles, as objects and as what they allow.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_is_written_and_allows_what_its_parts_allow() {
    let cluster = Cluster::start(LONG).await;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client.clone());
    let written = async |name: &str| {
        let role = roles.get(name).await.expect("a role");
        json!(role.rules.unwrap_or_default()).to_string()
    };
    // The default ones are filled from the start, and aggregate one another.
    eventually("the default roles are filled", || async {
        written("view").await.contains("deployments") && written("admin").await.contains("rolebindings")
    })
    .await;
    let part = json!({"metadata": {"name": "things", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}]});
    roles.create(&PostParams::default(), &parse(part)).await.expect("a part");
    let binding = json!({"metadata": {"name": "jane-views"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}});
    bindings.create(&PostParams::default(), &parse(binding)).await.expect("a binding");
    eventually("the part's rules are the aggregate's", || async { written("view").await.contains("things") })
        .await;
    eventually("and of what it is a part", || async { written("edit").await.contains("things") }).await;
    let manager = roles.get("view").await.expect("a role").metadata.managed_fields.unwrap_or_default();
    assert!(
        manager.iter().any(|entry| entry.manager.as_deref() == Some("clusterrole-aggregation-controller")),
        "{manager:?}"
    );
    roles.delete("things", &DeleteParams::default()).await.expect("it goes");
    eventually("they go with it", || async { !written("view").await.contains("things") }).await;
}
