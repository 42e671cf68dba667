//! Addresses and ports are given out once, whichever server gives them out; and what one server is told, the other knows.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Error, ResourceExt};
use minik::apiserver::UserInfo;
use serde_json::{Value, json};

use super::{Server, Shared, eventually, parse};

fn service(name: &str, spec: Value) -> Service {
    let mut spec = spec;
    spec["type"] = json!("NodePort");
    parse(json!({"metadata": {"name": name}, "spec": spec}))
}

async fn create(server: &Server, service: &Service) -> Result<Service, Error> {
    server.api::<Service>("default").create(&PostParams::default(), service).await
}

fn address(service: &Service) -> String {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default()
}

fn port(service: &Service) -> i32 {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.and_then(|ports| ports.first()?.node_port).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_give_nothing_out_twice() {
    let Some(shared) = Shared::start() else { return };
    // Both begin with an empty store.
    let (one, two) = futures::join!(shared.server("one"), shared.server("two"));
    // The same is asked of both at once: one gets it, the other is told.
    for round in 0..20 {
        let spec = json!({"clusterIP": format!("10.43.1.{round}"), "ports": [{"port": 80, "nodePort": 30100 + round}]});
        let (a, b) = (service(&format!("a{round}"), spec.clone()), service(&format!("b{round}"), spec));
        let (a, b) = futures::join!(create(&one, &a), create(&two, &b));
        let refused = match (a, b) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            both => panic!("round {round}: {both:?}"),
        };
        assert!(refused.to_string().contains("already allocated"), "{refused}");
    }
    // What nobody asks for by value differs, too.
    let any = |name: String| service(&name, json!({"ports": [{"port": 80}]}));
    let wanted: Vec<Service> = (0..40).map(|at| any(format!("c{at}"))).collect();
    let servers = [&one, &two];
    let made = join_all(wanted.iter().enumerate().map(|(at, wanted)| create(servers[at % 2], wanted))).await;
    let made: Vec<Service> = made.into_iter().map(|made| made.expect("made")).collect();
    let list = two.api::<Service>("default").list(&ListParams::default()).await.expect("a list").items;
    let addresses: HashSet<String> = list.iter().map(address).collect();
    let ports: HashSet<i32> = list.iter().map(port).filter(|port| *port > 0).collect();
    // `kubernetes` has an address and no node port.
    assert_eq!((list.len(), addresses.len(), ports.len()), (61, 61, 60));
    // What was given back at one server is to be had at the other.
    let again = json!({"clusterIP": address(&made[0]), "ports": [{"port": 80, "nodePort": port(&made[0])}]});
    let gone = made[0].name_any();
    one.api::<Service>("default").delete(&gone, &DeleteParams::default()).await.expect("deleted");
    create(&two, &service("again", again)).await.expect("it is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_allowed_at_one_server_is_at_the_other_soon() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.server("one").await, shared.server("two").await);
    let bob = two.server().client(UserInfo::new("bob", &["system:authenticated"]));
    let maps: Api<ConfigMap> = Api::namespaced(bob, "default");
    assert!(maps.list(&ListParams::default()).await.is_err());
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    let roles: Api<ClusterRole> = Api::all(one.client.clone());
    roles.create(&PostParams::default(), &parse(role)).await.expect("a role");
    let binding = json!({"metadata": {"name": "maps"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
        "name": "maps"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]});
    let bindings: Api<ClusterRoleBinding> = Api::all(one.client.clone());
    let bound = Duration::from_millis(100);
    let (mut allowed, mut refused) = (Duration::MAX, Duration::MAX);
    // The quickest of some tells what the servers need: any one may have had to wait for a processor.
    for _ in 0..20 {
        bindings.create(&PostParams::default(), &parse(binding.clone())).await.expect("a binding");
        let may = eventually("bob may", || async { maps.list(&ListParams::default()).await.is_ok() }).await;
        bindings.delete("maps", &DeleteParams::default()).await.expect("deleted");
        let may_not =
            eventually("bob may not", || async { maps.list(&ListParams::default()).await.is_err() }).await;
        (allowed, refused) = (allowed.min(may), refused.min(may_not));
        if allowed < bound && refused < bound {
            return;
        }
    }
    panic!("allowed after {allowed:?}, refused after {refused:?}");
}
