//! No more is made than a quota allows, and no less, whichever servers are asked.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Error, ResourceExt};
use serde_json::json;

use super::{Server, Shared, eventually, parse};

async fn create(server: &Server, name: String) -> Result<ConfigMap, Error> {
    let map = parse(json!({"metadata": {"name": name}}));
    server.api::<ConfigMap>("default").create(&PostParams::default(), &map).await
}

/// Whether a server knows of a quota: admission counts by those that it has seen.
async fn knows(server: &Server, quota: &str) {
    eventually("the quota is known", || async {
        let quota = server.api::<ResourceQuota>("default").get_opt(quota).await.expect("the API answers");
        quota.is_some()
    })
    .await;
    server.server().index().caught_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_count_as_one() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.server("one").await, shared.server("two").await);
    let servers = [&one, &two];
    let maps = one.api::<ConfigMap>("default");
    let made = |list: Vec<ConfigMap>| list.iter().filter(|map| map.name_any().starts_with('m')).count();
    let before = maps.list(&ListParams::default()).await.expect("a list").items.len();
    for round in 1..=4 {
        let (name, limit) = (format!("q{round}"), 7 * round);
        let hard = json!({"count/configmaps": (before + limit).to_string()});
        let quota = parse(json!({"metadata": {"name": name}, "spec": {"hard": hard}}));
        one.api::<ResourceQuota>("default").create(&PostParams::default(), &quota).await.expect("a quota");
        knows(&one, &name).await;
        knows(&two, &name).await;
        let wanted = (0..30).map(|at| create(servers[at % 2], format!("m{round}-{at}")));
        let answers = join_all(wanted).await;
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(refused.to_string().contains("exceeded quota"), "{refused}");
        }
        let stand = maps.list(&ListParams::default()).await.expect("a list").items;
        assert_eq!(made(stand), limit, "round {round}");
        one.api::<ResourceQuota>("default").delete(&name, &DeleteParams::default()).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grows_at_one_server_is_counted_at_the_other() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.server("one").await, shared.server("two").await);
    let claim = |name: &str, size: u32| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": format!("{size}Gi")}}}})
    };
    let hard = json!({"requests.storage": "20Gi"});
    let quota = parse(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    one.api::<ResourceQuota>("default").create(&PostParams::default(), &quota).await.expect("a quota");
    knows(&one, "q").await;
    knows(&two, "q").await;
    let (here, there) =
        (one.api::<PersistentVolumeClaim>("default"), two.api::<PersistentVolumeClaim>("default"));
    // Each time one of the two fits.
    for round in 0..10 {
        let names = [format!("a{round}"), format!("b{round}")];
        let [a, b] = names.each_ref().map(|name| parse(claim(name, 15)));
        let post = PostParams::default();
        let (a, b) = futures::join!(here.create(&post, &a), there.create(&post, &b));
        assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "round {round}: {a:?}, {b:?}");
        for name in names {
            let gone = there.delete(&name, &DeleteParams::default()).await;
            let free = json!({"metadata": {"finalizers": null}});
            let _ = (gone, there.patch(&name, &PatchParams::default(), &Patch::Merge(free)).await);
        }
        eventually("both are gone", || async {
            here.list(&ListParams::default()).await.expect("a list").items.is_empty()
        })
        .await;
    }
}
