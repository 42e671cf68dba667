//! Keeps the condition of every APIService true: of those that are served here at once, of others by looking at their server.
//!
//! ```text
//! look -> tell (discovery, OpenAPI) and write the condition -> wait: for a change, else half a minute -> look again
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::Method;
use serde_json::{Value, json};

use super::look::Found;
use super::remote::Backend;
use super::{Aggregator, Told};
use crate::bootstrap::send;
use crate::key::CollectionKey;
use crate::key::collections::{API_SERVICES, ENDPOINT_SLICES, SERVICES};
use api::meta::{ObjectExt, format_time};
use rt::{Backoff, Clock};
use storage::Watch;

/// A server says nothing when it ends or changes: this often it is looked at though nothing has happened, as upstream does.
const AGAIN: Duration = Duration::from_secs(30);
/// While it cannot be reached.
const RETRY: Backoff = Backoff { first: Duration::from_millis(500), max: AGAIN };

pub(super) const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

impl Aggregator {
    /// Follows the APIServices until the tasks stop.
    pub async fn run(self: Arc<Self>, router: Router, clock: Arc<dyn Clock>) {
        let mut changes = self.registry.api_services();
        let mut followed: BTreeSet<String> = BTreeSet::new();
        let mut work = FuturesUnordered::new();
        loop {
            changes.mark_unchanged();
            let remotes = self.registry.snapshot().remotes.clone();
            for remote in remotes.iter() {
                if !followed.insert(remote.name.clone()) {
                    continue;
                }
                work.push(self.clone().follow(remote.name.clone(), router.clone(), clock.clone()));
            }
            self.register(&router, clock.as_ref()).await;
            tokio::select! {
                Some(ended) = work.next(), if !work.is_empty() => { followed.remove(&ended); }
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Looks at one server again and again; ends, with its name, when its APIService is gone or is served here.
    async fn follow(self: Arc<Self>, name: String, router: Router, clock: Arc<dyn Clock>) -> String {
        let (mut told, mut failures) = (Arc::<Told>::default(), 0);
        loop {
            let from = self.index.store().revision();
            self.index.caught_up().await;
            let Some(object) = self.object(&name) else { return name };
            let Some(backend) = Backend::of(&object) else { return name };
            let text = |field: &str| object.str_at(field).unwrap_or_default().to_owned();
            let (group, version) = (text("/spec/group"), text("/spec/version"));
            let (found, new) = self.look(&backend, &group, &version, &told).await;
            failures = if found.available { 0 } else { failures + 1 };
            if let Some(new) = new.filter(|new| *new != *told) {
                told = Arc::new(new);
                self.registry.tell(&name, told.clone());
            }
            self.write_condition(&router, &name, &found, clock.as_ref()).await;
            let pause = if found.available { AGAIN } else { RETRY.delay(failures) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed(&name, &backend, from) => failures = 0,
            }
        }
    }

    /// Waits until something that a look depends on has changed behind a revision.
    async fn changed(&self, name: &str, backend: &Backend, from: u64) {
        let Backend { namespace, name: service, .. } = backend;
        let keys: [(String, CollectionKey<'_>); 3] = [
            (API_SERVICES.key("", name), API_SERVICES),
            (SERVICES.key(namespace, service), SERVICES),
            (ENDPOINT_SLICES.prefix(namespace), ENDPOINT_SLICES),
        ];
        let mut waits = FuturesUnordered::new();
        for (key, of) in keys {
            // What cannot be watched from there has changed too much.
            let Ok(watch) = self.index.store().watch(key, from) else { return };
            waits.push(touched(watch, of == ENDPOINT_SLICES, service, of == API_SERVICES, backend));
        }
        waits.next().await;
    }

    /// Writes what was found, if it is not what is written.
    pub(super) async fn write_condition(
        &self,
        router: &Router,
        name: &str,
        found: &Found,
        clock: &dyn Clock,
    ) {
        let Some(object) = self.object(name) else { return };
        let status = if found.available { "True" } else { "False" };
        let conditions = object.array_at("/status/conditions");
        let before = conditions.iter().find(|condition| condition.text("type") == Some("Available"));
        let same = |field: &str, now: &str| before.and_then(|before| before.text(field)) == Some(now);
        if same("status", status) && same("reason", found.reason) && same("message", &found.message) {
            return;
        }
        if !found.available && same("status", "True") {
            self.lost.of(&[name, found.reason]).add(1);
        }
        let since =
            before.filter(|_| same("status", status)).and_then(|before| before.text("lastTransitionTime"));
        let since = since.map_or_else(|| format_time(clock.now()), str::to_owned);
        let mut all: Vec<Value> = conditions
            .iter()
            .filter(|condition| condition.text("type") != Some("Available"))
            .cloned()
            .collect();
        all.push(json!({"type": "Available", "status": status, "reason": found.reason,
            "message": found.message, "lastTransitionTime": since}));
        let mut object = Value::clone(&object);
        object["status"]["conditions"] = all.into();
        let path = format!("{PATH}/{name}/status");
        match send(router, Method::PUT, &path, &object).await {
            // Somebody else has written it meanwhile: that wakes us again.
            Ok((200..=299 | 404 | 409, _)) => {}
            Ok((_, why)) | Err(why) => {
                tracing::warn!(name, why, "the state of an APIService was not written")
            }
        }
    }
}

/// Ends with the first event that matters: of endpoint slices only those of the service, of the APIService only what is not
/// its condition.
async fn touched(
    mut watch: Box<dyn Watch>,
    slices: bool,
    service: &str,
    api_service: bool,
    backend: &Backend,
) {
    loop {
        let Ok(batch) = watch.next().await else { return };
        for event in &batch.events {
            let object: Value = serde_json::from_slice(&event.entry.data).unwrap_or_default();
            let gone = event.kind == storage::EventKind::Delete;
            let matters = match (slices, api_service) {
                (true, _) => object.label("kubernetes.io/service-name") == Some(service),
                (_, true) => gone || Backend::of(&object).as_ref() != Some(backend),
                _ => true,
            };
            if matters {
                return;
            }
        }
    }
}
