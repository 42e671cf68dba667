//! What every storage engine must do, run over each engine there is. A new engine adds one line to `engines!`.

mod concurrency;
mod durability;
pub mod etcd;
mod expiry;
mod history;
mod moving;
mod semantics;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use minik::storage::{self, Config, Engine, Entry, EventKind, ListQuery, Listing, Payload, Store, Watch};
use tempfile::TempDir;

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine under test: what the suite may ask of its surroundings.
trait Bench: Send + Sync {
    fn open(&self, config: Config) -> BoxFuture<'_, Arc<dyn Store>>;
    /// Whether opening again finds what was written before.
    fn keeps(&self) -> bool;
}

struct Memory;

impl Bench for Memory {
    fn open(&self, config: Config) -> BoxFuture<'_, Arc<dyn Store>> {
        async { storage::open(config).await.expect("a thread") }.boxed()
    }

    fn keeps(&self) -> bool {
        false
    }
}

struct Redb(TempDir);

impl Redb {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }
}

impl Bench for Redb {
    fn open(&self, config: Config) -> BoxFuture<'_, Arc<dyn Store>> {
        let config = Config { engine: Engine::Embedded(self.0.path().join("state.redb")), ..config };
        async { storage::open(config).await.expect("an openable store") }.boxed()
    }

    fn keeps(&self) -> bool {
        true
    }
}

/// Makes one test per engine and case.
macro_rules! engines {
    ($($area:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod memory {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() { super::super::$area::$case(&super::super::Memory).await }
            )* })*
        }
        mod real_etcd {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    let Some(member) = super::super::etcd::Member::start() else { return };
                    super::super::$area::$case(&member).await
                }
            )* })*
        }
        mod redb {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() { super::super::$area::$case(&super::super::Redb::new()).await }
            )* })*
        }
    };
}

engines! {
    semantics: [
        create_get_update_delete,
        preconditions_answer_what_stands,
        the_revision_is_written_into_the_data,
        attributes_filter_lists,
        lists_page_in_key_order,
    ],
    history: [
        a_watch_tells_every_change_with_the_state_before,
        a_watch_starts_where_it_is_told,
        watches_end_at_their_prefix,
        the_future_is_refused,
        progress_does_not_wait,
        lists_at_an_older_revision,
        pages_of_one_revision_stay_consistent,
        compaction_is_told_to_those_behind_it,
        a_bounded_history_cuts_slow_watchers_off,
        a_quiet_watch_outlives_the_noise_of_others,
        a_cancelled_wait_loses_nothing,
    ],
    concurrency: [
        no_update_is_lost,
        one_creator_wins,
        revisions_are_unique_and_rise,
        every_watcher_sees_every_event_once_and_in_order,
        snapshots_agree_with_their_revision,
    ],
    expiry: [
        an_entry_expires_by_itself,
        a_write_renews_or_ends_the_time_to_live,
        an_expired_entry_goes_before_the_next_write,
    ],
    moving: [a_state_comes_and_goes_as_a_file],
    durability: [a_clean_close_keeps_everything, expiry_is_kept, history_begins_anew],
}

fn text(data: &str) -> Payload {
    Payload { data: data.to_owned().into(), ..Default::default() }
}

fn data(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.data).expect("UTF-8")
}

fn under(prefix: &str) -> ListQuery {
    ListQuery { prefix: prefix.to_owned(), ..Default::default() }
}

async fn list(store: &dyn Store, query: ListQuery) -> Listing {
    store.list(query).await.expect("a list")
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|entry| &*entry.key).collect()
}

async fn create(store: &dyn Store, key: &str, payload: &str) -> Arc<Entry> {
    store.create(key.to_owned(), text(payload)).await.expect("a create")
}

async fn update(store: &dyn Store, entry: &Entry, payload: &str) -> Arc<Entry> {
    store.update_if(entry.key.to_string(), entry.revision, text(payload)).await.expect("an update")
}

async fn delete(store: &dyn Store, entry: &Entry) -> Arc<Entry> {
    store.delete_if(entry.key.to_string(), entry.revision).await.expect("a delete")
}

/// One event, as the tests compare it.
type Seen = (EventKind, u64, String, String);

/// Reads until `count` events have come.
async fn events(watch: &mut dyn Watch, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = tokio::time::timeout(PATIENCE, watch.next()).await.expect("events in time");
        for event in batch.expect("a batch").events {
            seen.push((
                event.kind,
                event.revision,
                event.entry.key.to_string(),
                data(&event.entry).to_owned(),
            ));
        }
    }
    seen
}
