use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use minik::rt::ManualClock;
use minik::storage::{Config, EventKind, Payload};

use super::{Bench, create, delete, events, text};

pub fn lasting(data: &str, ttl: Duration) -> Payload {
    Payload { ttl: Some(ttl), ..text(data) }
}

pub async fn an_entry_expires_by_itself(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut watch = store.watch("/core/events/".to_owned(), 0).expect("a watch");
    for (key, ms) in [("late", 1_500), ("soon", 500), ("never", 3_600_000)] {
        let payload = lasting(key, Duration::from_millis(ms));
        store.create(format!("/core/events/default/{key}"), payload).await.expect("a create");
    }
    let seen = events(&mut *watch, 5).await;
    let gone: Vec<_> =
        seen.iter().filter(|e| e.0 == EventKind::Delete).map(|e| (e.1, e.3.as_str())).collect();
    assert_eq!(gone, [(4, "soon"), (5, "late")]);
    assert!(store.get("/core/events/default/soon").await.expect("a read").is_none());
    assert!(store.get("/core/events/default/never").await.expect("a read").is_some());
}

pub async fn a_write_renews_or_ends_the_time_to_live(bench: &dyn Bench) {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let store = bench.open(Config { clock: Arc::new(clock.clone()), ..Default::default() }).await;
    let minute = Duration::from_secs(60);
    let mut made = Vec::new();
    for key in ["renewed", "ended", "replaced", "left"] {
        let payload = lasting(key, minute);
        made.push(store.create(format!("/core/events/default/{key}"), payload).await.expect("a create"));
    }
    clock.advance(SignedDuration::from_secs(40));
    let write = |n: usize, payload| store.update_if(made[n].key.to_string(), made[n].revision, payload);
    write(0, lasting("renewed", minute)).await.expect("an update");
    write(1, text("ended")).await.expect("an update");
    delete(&*store, &made[2]).await;
    create(&*store, &made[2].key, "replaced").await;
    clock.advance(SignedDuration::from_secs(40));
    create(&*store, "/core/events/default/any", "x").await;
    let mut standing = Vec::new();
    for entry in &made {
        standing.push(store.get(&entry.key).await.expect("a read").is_some());
    }
    assert_eq!(standing, [true, true, true, false]);
}

pub async fn an_expired_entry_goes_before_the_next_write(bench: &dyn Bench) {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let store = bench.open(Config { clock: Arc::new(clock.clone()), ..Default::default() }).await;
    let key = "/core/events/default/e";
    store.create(key.to_owned(), lasting("one", Duration::from_secs(1))).await.expect("a create");
    clock.advance(SignedDuration::from_secs(1));
    let again = create(&*store, key, "two").await;
    assert_eq!((again.revision, again.created), (3, 3), "the delete had revision 2");
}
