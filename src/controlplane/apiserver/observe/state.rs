//! What `/metrics` tells of what there is: the build, and stored objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;

use super::super::key::ObjectKey;
use api::status::qualified;
use config::BuildInfo;
use metrics::{Kind, Text};
use storage::{Entry, ListQuery, Store};

/// Tells of stored objects.
pub fn stored(store: &dyn Store, text: &mut Text) {
    // Whatever is in memory is there at once; a store that has to ask somebody first is not waited for.
    let all = ListQuery { prefix: "/".to_owned(), ..ListQuery::default() };
    if let Some(Ok(listing)) = store.list(all).now_or_never() {
        objects(&listing.entries, text);
    }
}

/// Which build this is, as upstream tells it.
pub fn build(info: BuildInfo, version: &str, text: &mut Text) {
    let name = "kubernetes_build_info";
    text.family(name, Kind::Gauge, "Which build this is.");
    let labels = [
        ("build_date", info.date),
        ("compiler", "rustc"),
        ("git_commit", info.commit),
        ("git_version", version),
        ("major", "1"),
        ("minor", "36"),
    ];
    text.sample(name, &labels, 1.0);
}

/// How many objects of each kind there are, and how large they are together.
fn objects(entries: &[Arc<Entry>], text: &mut Text) {
    let (mut by_resource, mut all) = (BTreeMap::<(&str, &str), (u64, usize)>::new(), 0);
    for entry in entries {
        all += entry.data.len();
        if let Some(key) = ObjectKey::parse(&entry.key) {
            let (count, bytes) = by_resource.entry((key.group, key.plural)).or_default();
            *count += 1;
            *bytes += entry.data.len();
        }
    }
    // The older name, which newer versions still tell, and the newer one.
    let about = "Stored objects by kind.";
    text.family("apiserver_storage_objects", Kind::Gauge, about);
    for ((group, plural), (count, _)) in &by_resource {
        text.sample("apiserver_storage_objects", &[("resource", &qualified(group, plural))], *count as f64);
    }
    let mut family = |name: &str, about: &str, value: &dyn Fn(&(u64, usize)) -> f64| {
        text.family(name, Kind::Gauge, about);
        for ((group, plural), of) in &by_resource {
            text.sample(name, &[("group", group), ("resource", plural)], value(of));
        }
    };
    family("apiserver_resource_objects", about, &|(count, _)| *count as f64);
    let about = "Size of the stored objects of a kind in bytes.";
    family("apiserver_resource_size_estimate_bytes", about, &|(_, bytes)| *bytes as f64);
    let name = "apiserver_storage_size_bytes";
    text.family(name, Kind::Gauge, "Size of all stored objects in bytes.");
    text.sample(name, &[("storage_cluster_id", "etcd-0")], all as f64);
}
