use std::time::Duration;

use minik::storage::{Config, EventKind, Limits, ListQuery, StorageError};

use super::{Bench, PATIENCE, create, data, delete, events, keys, list, under, update};

fn short(count: usize) -> Config {
    Config { history: Limits { events: count, ..Limits::default() }, ..Default::default() }
}

pub async fn a_watch_tells_every_change_with_the_state_before(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut watch = store.watch("/core/pods/".to_owned(), 0).expect("a watch");
    let made = create(&*store, "/core/pods/default/a", "one").await;
    let changed = update(&*store, &made, "two").await;
    delete(&*store, &changed).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.extend(watch.next().await.expect("a batch").events);
    }
    let told: Vec<_> = told
        .iter()
        .map(|e| (e.kind, e.revision, data(&e.entry), e.prev.as_ref().map(|p| (p.revision, data(p)))))
        .collect();
    let expect = [
        (EventKind::Put, 1, "one", None),
        (EventKind::Put, 2, "two", Some((1, "one"))),
        (EventKind::Delete, 3, "two", Some((2, "two"))),
    ];
    assert_eq!(told, expect);
}

pub async fn a_watch_starts_where_it_is_told(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    for n in 1..=5 {
        create(&*store, &format!("/core/pods/default/{n}"), "x").await;
    }
    for from in 0..5 {
        let mut watch = store.watch("/core/pods/".to_owned(), from).expect("a watch");
        let seen = events(&mut *watch, 5 - from as usize).await;
        let revisions: Vec<u64> = seen.iter().map(|e| e.1).collect();
        assert_eq!(revisions, (from + 1..=5).collect::<Vec<_>>());
    }
}

pub async fn watches_end_at_their_prefix(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut watches = Vec::new();
    for (prefix, expect) in [
        ("/core/pods/", vec![1, 2]),
        ("/core/pods/default/", vec![1]),
        ("/core/pods/default/a", vec![1]),
        ("/core/", vec![1, 2, 3]),
        ("/", vec![1, 2, 3, 4]),
        ("", vec![1, 2, 3, 4]),
    ] {
        watches.push((store.watch(prefix.to_owned(), 0).expect("a watch"), prefix, expect));
    }
    create(&*store, "/core/pods/default/a", "x").await;
    create(&*store, "/core/pods/other/a", "x").await;
    create(&*store, "/core/podtemplates/default/a", "x").await;
    create(&*store, "/apps/deployments/default/a", "x").await;
    for (watch, prefix, expect) in &mut watches {
        let seen: Vec<u64> = events(&mut **watch, expect.len()).await.iter().map(|e| e.1).collect();
        assert_eq!(seen, *expect, "{prefix}");
        let rest = watch.progress().expect("progress");
        assert_eq!((rest.events.len(), rest.revision), (0, 4), "{prefix}");
    }
}

pub async fn the_future_is_refused(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    create(&*store, "/core/pods/default/a", "x").await;
    let is_future = |error| matches!(error, StorageError::Future { asked: 2, current: 1 });
    let at = ListQuery { at: Some(2), ..under("/core/pods/") };
    assert!(store.list(at).await.is_err_and(is_future));
    assert!(store.watch("/core/pods/".to_owned(), 2).err().is_some_and(is_future));
    assert!(store.compact(2).await.is_err_and(is_future));
}

pub async fn progress_does_not_wait(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut watch = store.watch("/core/pods/".to_owned(), 0).expect("a watch");
    assert_eq!(watch.progress().expect("progress").revision, 0);
    create(&*store, "/core/secrets/default/a", "x").await;
    let moved = watch.progress().expect("progress");
    assert_eq!((moved.events.len(), moved.revision), (0, 1));
    create(&*store, "/core/pods/default/a", "x").await;
    let pending = watch.progress().expect("progress");
    assert_eq!((pending.events.len(), pending.revision), (1, 2), "it never steps over an event");
}

pub async fn lists_at_an_older_revision(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let a = create(&*store, "/core/pods/default/a", "a1").await;
    let b = create(&*store, "/core/pods/default/b", "b1").await;
    let a = update(&*store, &a, "a2").await;
    delete(&*store, &b).await;
    create(&*store, "/core/pods/default/c", "c1").await;
    create(&*store, "/core/secrets/default/s", "s1").await;
    update(&*store, &a, "a3").await;
    create(&*store, "/core/pods/default/b", "b2").await;
    let expect: [&[&str]; 9] = [
        &[],
        &["a1"],
        &["a1", "b1"],
        &["a2", "b1"],
        &["a2"],
        &["a2", "c1"],
        &["a2", "c1"],
        &["a3", "c1"],
        &["a3", "b2", "c1"],
    ];
    for (at, expect) in expect.iter().enumerate() {
        let listing = list(&*store, ListQuery { at: Some(at as u64), ..under("/core/pods/") }).await;
        let states: Vec<&str> = listing.entries.iter().map(|e| data(e)).collect();
        assert_eq!((states.as_slice(), listing.revision), (*expect, at as u64), "at {at}");
    }
    let wide = list(&*store, ListQuery { at: Some(6), ..under("") }).await;
    assert_eq!(keys(&wide), ["/core/pods/default/a", "/core/pods/default/c", "/core/secrets/default/s"]);
}

pub async fn pages_of_one_revision_stay_consistent(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut first = Vec::new();
    for n in 0..30 {
        first.push(create(&*store, &format!("/core/pods/default/{n:02}"), "old").await);
    }
    let at = store.revision();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let query = ListQuery { at: Some(at), after, limit: 7, ..under("/core/pods/") };
        let page = list(&*store, query).await;
        assert_eq!(page.revision, at);
        assert_eq!(page.remaining, Some(30 - (seen.len() + page.entries.len()) as u64));
        seen.extend(page.entries.iter().map(|e| (e.key.to_string(), data(e).to_owned())));
        after = seen.last().map(|(key, _)| key.clone());
        if !page.more {
            break;
        }
        // The world moves on between the pages: ahead of the reader, behind it, and new keys.
        let n = seen.len();
        update(&*store, &first[n - 7], "new").await;
        delete(&*store, &first[29 - n / 7]).await;
        create(&*store, &format!("/core/pods/default/{n:02}-new"), "new").await;
    }
    assert_eq!(seen.len(), 30);
    assert!(seen.iter().all(|(_, data)| data == "old"));
}

pub async fn compaction_is_told_to_those_behind_it(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut reader = store.watch("/core/pods/".to_owned(), 0).expect("a watch");
    let mut slow = store.watch("/core/pods/".to_owned(), 0).expect("a watch");
    for n in 1..=6 {
        create(&*store, &format!("/core/pods/default/{n}"), "x").await;
    }
    events(&mut *reader, 6).await;
    store.compact(4).await.expect("a compaction");
    store.compact(2).await.expect("what is compacted already stays so");

    let is_compacted = |error| matches!(error, StorageError::Compacted { oldest: 4, .. });
    assert!(store.watch("/core/pods/".to_owned(), 3).err().is_some_and(is_compacted));
    let at = |at| ListQuery { at: Some(at), ..under("/core/pods/") };
    assert!(store.list(at(3)).await.is_err_and(is_compacted));
    assert_eq!(list(&*store, at(4)).await.entries.len(), 4);
    let mut later = store.watch("/core/pods/".to_owned(), 4).expect("a watch");
    assert_eq!(events(&mut *later, 2).await.len(), 2);
    assert!(slow.next().await.is_err_and(is_compacted));
    create(&*store, "/core/pods/default/7", "x").await;
    assert_eq!(events(&mut *reader, 1).await[0].1, 7);
}

pub async fn a_bounded_history_cuts_slow_watchers_off(bench: &dyn Bench) {
    let store = bench.open(short(10)).await;
    let mut slow = store.watch("/core/pods/".to_owned(), 0).expect("a watch");
    let mut wide = store.watch("/".to_owned(), 0).expect("a watch");
    for n in 1..=30 {
        create(&*store, &format!("/core/pods/default/{n}"), "x").await;
    }
    for watch in [&mut slow, &mut wide] {
        let cut = watch.next().await;
        assert!(matches!(cut, Err(StorageError::Compacted { asked: 0, oldest: 20 })), "{cut:?}");
    }
    let mut fresh = store.watch("/core/pods/".to_owned(), 20).expect("a watch");
    assert_eq!(events(&mut *fresh, 10).await[0].1, 21);
}

pub async fn a_quiet_watch_outlives_the_noise_of_others(bench: &dyn Bench) {
    let store = bench.open(short(10)).await;
    create(&*store, "/core/nodes/a", "x").await;
    let listed = list(&*store, under("/core/nodes/")).await.revision;
    let mut quiet = store.watch("/core/nodes/".to_owned(), listed).expect("a watch");
    for n in 1..=50 {
        create(&*store, &format!("/core/pods/default/{n}"), "x").await;
    }
    create(&*store, "/core/nodes/b", "x").await;
    assert_eq!(events(&mut *quiet, 1).await[0].2, "/core/nodes/b");
    let mut late = store.watch("/core/nodes/".to_owned(), listed).expect("its history is whole");
    assert_eq!(events(&mut *late, 1).await.len(), 1);
    let then = list(&*store, ListQuery { at: Some(listed), ..under("/core/nodes/") }).await;
    assert_eq!(keys(&then), ["/core/nodes/a"]);
}

pub async fn a_cancelled_wait_loses_nothing(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mut watch = store.watch("/core/pods/".to_owned(), 0).expect("a watch");
    for n in 1..=20 {
        let wait = tokio::time::timeout(Duration::from_micros(50), watch.next()).await;
        assert!(wait.is_err(), "nothing has happened yet");
        create(&*store, &format!("/core/pods/default/{n}"), "x").await;
        let seen = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("a batch");
        assert_eq!(seen.events.iter().map(|e| e.revision).collect::<Vec<_>>(), [n]);
    }
}
