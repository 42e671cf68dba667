//! How long the store takes, under the names of upstream's etcd client.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;

use super::super::key::resource_of;
use super::BOUNDS;
use metrics::{Counter, Family, Histogram, Kind, Text};
use storage::{Entry, ListQuery, Listing, Payload, StorageError, Store, Turn, Watch};

/// A store whose requests are timed: those that leave this process' memory. Reads are answered from memory, unless another
/// process has to be asked first what is newest.
pub struct TimedStore {
    store: Arc<dyn Store>,
    /// Whether reads wait for somebody else.
    shared: bool,
    requests: Family<Requests>,
}

#[derive(Default)]
struct Requests {
    took: Histogram<23>,
    errors: Counter,
}

impl TimedStore {
    pub fn new(store: Arc<dyn Store>) -> Self {
        let shared = !store.alone();
        Self { store, shared, requests: Family::default() }
    }

    /// Waits for a request on a key or a prefix, and counts it.
    async fn timed<T>(
        &self,
        operation: &str,
        key: &str,
        request: BoxFuture<'_, Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let (group, plural) = resource_of(key);
        let series = self.requests.of(&[group, operation, plural]);
        let began = Instant::now();
        let answer = request.await;
        series.took.observe(&BOUNDS, began.elapsed());
        // What the store decided is an answer, whatever it is.
        if let Err(StorageError::Unavailable(_) | StorageError::Overloaded | StorageError::Undecided { .. }) =
            answer
        {
            series.errors.add(1);
        }
        answer
    }

    /// Tells how long requests took.
    pub fn tell(&self, text: &mut Text) {
        let all = self.requests.all();
        let took = "etcd_request_duration_seconds";
        let about =
            "How long the store took for what memory does not answer: this server's redb file, or its etcd.";
        text.family(took, Kind::Histogram, about);
        for (values, requests) in &all {
            requests.took.tell(text, took, &BOUNDS, &labels(values));
        }
        let total = "etcd_requests_total";
        text.family(total, Kind::Counter, "Requests to the store.");
        for (values, requests) in &all {
            text.sample(total, &labels(values), requests.took.total() as f64);
        }
        let errors = "etcd_request_errors_total";
        text.family(errors, Kind::Counter, "Requests that the store could not carry out.");
        for (values, requests) in &all {
            text.sample(errors, &labels(values), requests.errors.get() as f64);
        }
    }
}

fn labels(values: &[String]) -> [(&str, &str); 3] {
    [("group", &values[0]), ("operation", &values[1]), ("resource", &values[2])]
}

impl Store for TimedStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<Entry>>, StorageError>> {
        let answer = self.store.get(key);
        if self.shared { Box::pin(self.timed("get", key, answer)) } else { answer }
    }

    fn seen(&self, key: &str) -> Option<Arc<Entry>> {
        self.store.seen(key)
    }

    fn turn<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>> {
        self.store.turn(name)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, StorageError>> {
        if !self.shared {
            return self.store.list(query);
        }
        Box::pin(async move {
            let prefix = query.prefix.clone();
            self.timed("list", &prefix, self.store.list(query)).await
        })
    }

    fn create(&self, key: String, payload: Payload) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        Box::pin(async move { self.timed("create", &key.clone(), self.store.create(key, payload)).await })
    }

    fn update_if(
        &self,
        key: String,
        expected: u64,
        payload: Payload,
    ) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        Box::pin(async move {
            self.timed("update", &key.clone(), self.store.update_if(key, expected, payload)).await
        })
    }

    fn delete_if(&self, key: String, expected: u64) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        Box::pin(async move { self.timed("delete", &key.clone(), self.store.delete_if(key, expected)).await })
    }

    fn watch(&self, prefix: String, from: u64) -> Result<Box<dyn Watch>, StorageError> {
        self.store.watch(prefix, from)
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StorageError>> {
        self.store.compact(revision)
    }

    fn revision(&self) -> u64 {
        self.store.revision()
    }

    fn alone(&self) -> bool {
        self.store.alone()
    }

    fn healthy(&self) -> Result<(), StorageError> {
        self.store.healthy()
    }

    fn failed(&self) -> BoxFuture<'_, Arc<str>> {
        self.store.failed()
    }
}
