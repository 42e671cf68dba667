//! The loop every controller runs in. A controller is a name, the caches it reads, a mapping from their changes to
//! keys, and a reconciler; starting, waiting for the first lists, workers, requeueing, back-off, metrics and
//! surviving a panic are done here, once.
//!
//! ```text
//! change --mapping--> key in the queue --worker--> reconcile(key)
//!                        ^                              | done: forgotten
//!                        +-- at once / after a delay <--+ requeue-after
//!                        +-- after a back-off        <--+ error, panic
//! ```

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::context::{Context, Error};
use super::metrics::Counters;
use client::informer::{Cache, Change, Object};
use client::queue::Queue;
use rt::Tasks;

/// What is to happen to a key that was reconciled without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing, until something changes.
    Done,
    /// It is looked at again after this long, whatever changes.
    RequeueAfter(Duration),
}

impl Outcome {
    /// Requeues after the delay if there is one.
    pub(super) fn after(delay: Option<SignedDuration>) -> Self {
        delay.map_or(Self::Done, |delay| Self::RequeueAfter(Duration::try_from(delay).unwrap_or_default()))
    }
}

/// Brings what a key names to its desired state.
pub(super) trait Reconcile: Send + Sync + 'static {
    type Key: Clone + Eq + Hash + Ord + fmt::Debug + Send + Sync + 'static;

    /// Compares what is with what should be, and does what is missing. Fails when a key is to be tried again after
    /// a back-off.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Outcome, Error>> + Send;
}

/// A controller that is being put together.
pub(super) struct Harness<T> {
    name: &'static str,
    tasks: Tasks,
    queue: Queue<T>,
    synced: Vec<BoxFuture<'static, ()>>,
    counters: Arc<Counters>,
}

impl<T: Clone + Eq + Hash + Ord + fmt::Debug + Send + Sync + 'static> Harness<T> {
    /// A controller of the context's name, which watches nothing yet.
    pub(super) fn new(context: &Context) -> Self {
        Self::named(context.name(), &context.tasks, context.metrics.counters(context.name()))
    }

    fn named(name: &'static str, tasks: &Tasks, counters: Arc<Counters>) -> Self {
        let queue = Queue::default();
        let measured = queue.clone();
        counters.measure(queue.asked(), move || measured.load());
        Self { name, tasks: tasks.clone(), queue, synced: Vec::new(), counters }
    }

    /// The queue, for keys that do not come out of a cache.
    pub(super) fn queue(&self) -> Queue<T> {
        self.queue.clone()
    }

    /// No key is worked on before this has come to pass.
    pub(super) fn waits_for(&mut self, ready: impl Future<Output = ()> + Send + 'static) {
        self.synced.push(ready.boxed());
    }

    /// The reconciler reads this cache: no key is worked on before its first list is complete.
    pub(super) fn reads<K: Object>(&mut self, cache: &Cache<K>) {
        let cache = cache.clone();
        self.waits_for(async move { cache.synced().await });
    }

    /// The reconciler reads this cache, and the mapping says which keys a change concerns.
    pub(super) fn watches<K: Object>(
        &mut self,
        cache: &Cache<K>,
        mapping: impl Fn(&Change<'_, K>, &Queue<T>) + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        cache.on_change(move |change| mapping(change, &queue));
        self.reads(cache);
    }

    /// Starts so many workers, once everything that is read has been listed. They end when the tasks stop.
    pub(super) fn run<R: Reconcile<Key = T>>(self, workers: usize, reconciler: Arc<R>) {
        let Self { name, tasks, queue, synced, counters } = self;
        let all = tasks.clone();
        tasks.spawn_until_stop(async move {
            futures::future::join_all(synced).await;
            for _ in 0..workers {
                let worker = Worker {
                    name,
                    queue: queue.clone(),
                    counters: Arc::clone(&counters),
                    reconciler: Arc::clone(&reconciler),
                };
                all.spawn_until_stop(async move { worker.work().await });
            }
        });
    }
}

/// One of the tasks that take keys from a controller's queue.
struct Worker<R: Reconcile> {
    name: &'static str,
    queue: Queue<R::Key>,
    counters: Arc<Counters>,
    reconciler: Arc<R>,
}

impl<R: Reconcile> Worker<R> {
    async fn work(&self) {
        loop {
            let key = self.queue.next().await;
            let start = Instant::now();
            // A panic is a bug in one reconciler: the key is tried again later, and everything else goes on.
            let attempt = AssertUnwindSafe(async { self.reconciler.reconcile(&key).await }).catch_unwind();
            let attempt = attempt.await;
            self.counters.worked(start.elapsed());
            match attempt {
                Ok(Ok(Outcome::Done)) => self.queue.forget(&key),
                Ok(Ok(Outcome::RequeueAfter(delay))) => {
                    self.queue.forget(&key);
                    self.queue.add_after(key.clone(), delay);
                }
                Ok(Err(error)) => {
                    self.failed(&key, &error);
                    self.counters.retried();
                    self.queue.retry(key.clone());
                }
                Err(panic) => {
                    let text = rt::panic_text(panic.as_ref());
                    tracing::error!(controller = self.name, ?key, panic = text, "a reconciler panicked");
                    self.counters.panicked();
                    self.queue.retry(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    fn failed(&self, key: &R::Key, error: &Error) {
        if error.is_conflict() {
            tracing::debug!(controller = self.name, ?key, %error, "will be tried again");
        } else {
            tracing::warn!(controller = self.name, ?key, %error, "will be tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::metrics::Metrics;

    /// Does what its script says, attempt after attempt, and writes down the keys it saw.
    struct Scripted {
        script: Mutex<Vec<&'static str>>,
        seen: Mutex<Vec<&'static str>>,
        all: tokio::sync::Notify,
    }

    impl Reconcile for Scripted {
        type Key = &'static str;

        async fn reconcile(&self, key: &&'static str) -> Result<Outcome, Error> {
            let step = self.script.lock().unwrap().pop();
            self.seen.lock().unwrap().push(key);
            match step {
                Some("panic") => panic!("as the script says"),
                Some("fail") => Err(Error::Other("as the script says".to_owned())),
                Some("again") => Ok(Outcome::RequeueAfter(Duration::from_millis(1))),
                _ => {
                    self.all.notify_one();
                    Ok(Outcome::Done)
                }
            }
        }
    }

    async fn check(script: &[&'static str], expect: &str) {
        let (tasks, metrics) = (Tasks::new(), Metrics::default());
        let reconciler = Arc::new(Scripted {
            script: Mutex::new(script.iter().rev().copied().collect()),
            seen: Mutex::default(),
            all: tokio::sync::Notify::new(),
        });
        let harness = Harness::named("test", &tasks, metrics.counters("test"));
        harness.queue().add("a");
        let queue = harness.queue();
        harness.run(1, Arc::clone(&reconciler));
        let done = reconciler.all.notified();
        tokio::time::timeout(Duration::from_secs(10), done).await.expect("the key is tried until it is done");
        queue.add("b");
        tokio::time::timeout(Duration::from_secs(10), reconciler.all.notified()).await.expect("others too");
        let seen = reconciler.seen.lock().unwrap().clone();
        assert_eq!(seen.last(), Some(&"b"));
        assert_eq!(seen.len(), script.len() + 2, "{script:?}");
        let text = metrics.render();
        assert!(text.contains(expect), "{script:?}: {text}");
        tasks.drain(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_survives_what_its_reconciler_does() {
        check(&["panic", "panic"], "minik_controller_panics_total{name=\"test\"} 2").await;
        check(&["fail"], "workqueue_retries_total{name=\"test\"} 1").await;
        check(&["again", "again"], "workqueue_work_duration_seconds_count{name=\"test\"} 4").await;
        check(&["again"], "workqueue_adds_total{name=\"test\"} 3").await;
        check(&["again"], "workqueue_queue_duration_seconds_bucket{name=\"test\",le=\"+Inf\"} 3").await;
    }
}
