use std::time::Duration;

use minik::storage::{self, Payload, Store};

use super::expiry::lasting;
use super::{Bench, create, list, under};

/// Keys, what they hold but for its revision, and whether they end by themselves.
async fn state(store: &dyn Store) -> Vec<(String, Vec<u8>, bool)> {
    let listing = list(store, under("")).await;
    let of = |entry: &std::sync::Arc<storage::Entry>| {
        let mut data = entry.data.to_vec();
        if let Some(span) = entry.revision_span.clone() {
            assert_eq!(&data[span.clone()], entry.revision.to_string().as_bytes());
            data.drain(span);
        }
        (entry.key.to_string(), data, entry.expires.is_some())
    };
    listing.entries.iter().map(of).collect()
}

pub async fn a_state_comes_and_goes_as_a_file(bench: &dyn Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    let before = storage::memory();
    for n in 0..300 {
        let key = format!("/core/configmaps/default/c{n}");
        let payload = Payload { data: "{\"v\":\"\"}".into(), revision_at: Some(6), ..Payload::default() };
        let entry = before.create(key.clone(), payload).await.expect("a create");
        if n % 3 != 0 {
            before.delete_if(key, entry.revision).await.expect("a delete");
        }
    }
    let event = lasting("e", Duration::from_secs(3600));
    before.create("/core/events/default/e".to_owned(), event).await.expect("a create");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let saved = storage::save(before.as_ref(), first.clone()).await.expect("saved");
    assert_eq!((saved.revision, saved.entries), (501, 101));

    let store = bench.open(Default::default()).await;
    storage::load(first, store.as_ref()).await.expect("loaded");
    assert_eq!(state(store.as_ref()).await, state(before.as_ref()).await);
    let next = create(store.as_ref(), "/core/configmaps/default/next", "n").await;
    assert!(next.revision > saved.revision, "nobody sees {} for a second time", next.revision);

    let saved = storage::save(store.as_ref(), second.clone()).await.expect("saved");
    assert_eq!(saved.entries, 102);
    let again = storage::memory();
    storage::load(second, again.as_ref()).await.expect("loaded");
    assert_eq!(state(again.as_ref()).await, state(store.as_ref()).await);
}
