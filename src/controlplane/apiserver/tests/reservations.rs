//! What is reserved for a write is settled by the write's outcome, not by the request's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;
use tokio::sync::Notify;

use super::Server;
use storage::{self, Entry, ListQuery, Listing, Payload, StorageError, Store, Turn, Watch};

/// A store whose creates wait, once it is told so, until they are let go.
struct Slow {
    inner: Arc<dyn Store>,
    slow: AtomicBool,
    arrived: Notify,
    released: Notify,
}

impl Store for Slow {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<Entry>>, StorageError>> {
        self.inner.get(key)
    }

    fn seen(&self, key: &str) -> Option<Arc<Entry>> {
        self.inner.seen(key)
    }

    fn turn<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>> {
        self.inner.turn(name)
    }

    fn alone(&self) -> bool {
        self.inner.alone()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, StorageError>> {
        self.inner.list(query)
    }

    fn create(&self, key: String, payload: Payload) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        Box::pin(async move {
            if self.slow.load(Ordering::Relaxed) {
                self.arrived.notify_one();
                self.released.notified().await;
            }
            self.inner.create(key, payload).await
        })
    }

    fn update_if(
        &self,
        key: String,
        expected: u64,
        payload: Payload,
    ) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.inner.update_if(key, expected, payload)
    }

    fn delete_if(&self, key: String, expected: u64) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.inner.delete_if(key, expected)
    }

    fn watch(&self, prefix: String, from: u64) -> Result<Box<dyn Watch>, StorageError> {
        self.inner.watch(prefix, from)
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StorageError>> {
        self.inner.compact(revision)
    }

    fn revision(&self) -> u64 {
        self.inner.revision()
    }

    fn failed(&self) -> BoxFuture<'_, Arc<str>> {
        self.inner.failed()
    }

    fn healthy(&self) -> Result<(), StorageError> {
        self.inner.healthy()
    }
}

#[tokio::test]
async fn an_address_is_kept_for_a_write_whose_client_has_gone() {
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let slow = Arc::new(Slow {
        inner: storage::memory(),
        slow: AtomicBool::new(false),
        arrived: Notify::new(),
        released: Notify::new(),
    });
    let server = Server::over(slow.clone()).await;
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    slow.slow.store(true, Ordering::Relaxed);
    let first = service("a");
    tokio::select! {
        _ = server.send("POST", SERVICES, &first) => panic!("answered before it was written"),
        () = slow.arrived.notified() => {} // the request is dropped here
    }
    slow.slow.store(false, Ordering::Relaxed);
    let (code, refused) = server.send("POST", SERVICES, &service("b")).await;
    assert_eq!(code, 422, "the address is promised: {refused}");
    slow.released.notify_one();
    let written = async {
        while server.get(&format!("{SERVICES}/a")).await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), written).await.expect("the write went on");
    let (code, refused) = server.send("POST", SERVICES, &service("b")).await;
    assert_eq!(code, 422, "the address is taken: {refused}");
}
