use std::sync::Arc;

use minik::storage::{Attrs, ListQuery, Payload, StorageError};

use super::{Bench, create, data, delete, keys, list, text, under, update};

pub async fn create_get_update_delete(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    assert_eq!(store.revision(), 0);
    assert!(store.get("/core/pods/default/a").await.expect("a read").is_none());

    let made = create(&*store, "/core/pods/default/a", "one").await;
    assert_eq!((made.revision, made.created, data(&made)), (1, 1, "one"));
    let changed = update(&*store, &made, "two").await;
    assert_eq!((changed.revision, changed.created, data(&changed)), (2, 1, "two"));
    let read = store.get("/core/pods/default/a").await.expect("a read").expect("an entry");
    assert_eq!((read.revision, data(&read)), (2, "two"));

    let gone = delete(&*store, &changed).await;
    assert_eq!((gone.revision, gone.created, data(&gone)), (3, 1, "two"));
    assert!(store.get("/core/pods/default/a").await.expect("a read").is_none());
    assert_eq!(store.revision(), 3);

    let again = create(&*store, "/core/pods/default/a", "three").await;
    assert_eq!((again.revision, again.created), (4, 4));
    assert!(store.healthy().is_ok());
}

pub async fn preconditions_answer_what_stands(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let key = "/core/pods/default/a";
    let made = create(&*store, key, "one").await;
    let changed = update(&*store, &made, "two").await;

    let exists = store.create(key.to_owned(), text("x")).await;
    assert!(matches!(exists, Err(StorageError::Exists(k)) if k == key));
    for refused in [
        store.update_if(key.to_owned(), made.revision, text("x")).await,
        store.delete_if(key.to_owned(), made.revision).await,
    ] {
        let Err(StorageError::Conflict(Some(standing))) = refused else { panic!("{refused:?}") };
        assert_eq!((standing.revision, data(&standing)), (changed.revision, "two"));
    }
    for refused in [
        store.update_if("/core/pods/default/b".to_owned(), 1, text("x")).await,
        store.delete_if("/core/pods/default/b".to_owned(), 1).await,
    ] {
        assert!(matches!(refused, Err(StorageError::Conflict(None))), "{refused:?}");
    }
    assert_eq!(store.revision(), 2, "a refused write takes no revision");
}

pub async fn the_revision_is_written_into_the_data(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let object = || Payload {
        data: r#"{"resourceVersion":"","x":1}"#.into(),
        revision_at: Some(20),
        ..Default::default()
    };
    for n in 0..8 {
        create(&*store, &format!("/core/pods/default/{n}"), "").await;
    }
    let key = "/core/pods/default/object";
    let made = store.create(key.to_owned(), object()).await.expect("a create");
    assert_eq!(data(&made), r#"{"resourceVersion":"9","x":1}"#);
    let changed = store.update_if(key.to_owned(), 9, object()).await.expect("an update");
    assert_eq!(data(&changed), r#"{"resourceVersion":"10","x":1}"#);
    assert_eq!(&changed.data_at(123)[..], br#"{"resourceVersion":"123","x":1}"#);
    let gone = delete(&*store, &changed).await;
    assert_eq!(data(&gone), r#"{"resourceVersion":"11","x":1}"#);
    assert_eq!(&gone.data_at(7)[..], br#"{"resourceVersion":"7","x":1}"#);
}

pub async fn attributes_filter_lists(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    for n in 0..10 {
        let attrs: Attrs = Arc::from([("l:parity".into(), ["even", "odd"][n % 2].into())]);
        let payload = Payload { attrs, ..text("x") };
        store.create(format!("/core/pods/default/{n}"), payload).await.expect("a create");
    }
    let odd = || ListQuery {
        filter: Some(Arc::new(|entry| entry.attr("l:parity") == Some("odd"))),
        ..under("/core/pods/")
    };
    let all = list(&*store, odd()).await;
    assert_eq!(all.entries.len(), 5);
    assert_eq!((all.more, all.remaining), (false, Some(0)));
    let page = list(&*store, ListQuery { limit: 2, ..odd() }).await;
    assert_eq!(keys(&page), ["/core/pods/default/1", "/core/pods/default/3"]);
    assert_eq!((page.more, page.remaining), (true, None));
    let last = ListQuery { limit: 2, after: Some("/core/pods/default/5".to_owned()), ..odd() };
    assert!(!list(&*store, last).await.more, "what follows does not pass the filter");
}

pub async fn lists_page_in_key_order(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    for n in (0..25).rev() {
        create(&*store, &format!("/core/pods/default/{n:02}"), "x").await;
    }
    create(&*store, "/core/podtemplates/default/a", "x").await;
    create(&*store, "/apps/deployments/default/a", "x").await;
    let all = list(&*store, under("/core/pods/")).await;
    assert_eq!((all.entries.len(), all.revision), (25, 27));
    assert!(keys(&all).is_sorted());

    let mut after = None;
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    loop {
        let page = list(&*store, ListQuery { after, limit: 10, ..under("/core/pods/") }).await;
        sizes.push((page.entries.len(), page.more, page.remaining));
        seen.extend(page.entries.iter().map(|e| e.key.to_string()));
        after = seen.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes, [(10, true, Some(15)), (10, true, Some(5)), (5, false, Some(0))]);
    assert_eq!(seen, keys(&all));
    let exact = list(&*store, ListQuery { limit: 25, ..under("/core/pods/") }).await;
    assert_eq!((exact.more, exact.remaining), (false, Some(0)));
    assert_eq!(list(&*store, under("")).await.entries.len(), 27);
    assert_eq!(list(&*store, under("/none/")).await.entries.len(), 0);
    let before = ListQuery { after: Some("/a".to_owned()), ..under("/core/pods/") };
    assert_eq!(list(&*store, before).await.entries.len(), 25, "a position before the prefix");
}
