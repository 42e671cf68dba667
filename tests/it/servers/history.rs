//! What clients of two servers see while their etcd dies again and again is what one store could have shown them.

use std::time::Duration;

use futures::future::join_all;
use minik::rt::Tasks;

use super::{Shared, eventually};
use crate::history::flaws;
use crate::history::load::{Record, client, close, watcher};

/// Answers between one death and the next.
const ENOUGH: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_holds_while_etcd_dies() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.server("one").await, shared.server("two").await);
    let (record, tasks) = (Record::begin(), Tasks::new());
    let watchers = [&one, &two].map(|server| tasks.spawn(watcher(server.client.clone(), record.clone())));
    record.watched_by(watchers.len()).await;
    let clients = [&one, &two, &one, &two].into_iter().enumerate().map(|(at, server)| {
        let (name, to) = (format!("c{at}"), server.client.clone());
        tasks.spawn(client(name, to, record.clone(), at as u64))
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..4 {
        let before = record.ops().len();
        eventually("clients are answered", || async { record.ops().len() >= before + ENOUGH }).await;
        shared.member.kill();
        // A moment in which whatever was on its way finds nobody.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(shared.member.run(), "etcd starts again: {}", shared.member.log());
    }
    record.stop();
    for ended in join_all(clients).await {
        ended.expect("a client ends");
    }
    close(&one.client, &record).await;
    let watches: Vec<_> =
        join_all(watchers).await.into_iter().flat_map(|ended| ended.expect("a watcher ends")).collect();
    let flaws = flaws(&record.ops(), &watches);
    assert!(flaws.is_empty(), "{flaws:#?}");
}
