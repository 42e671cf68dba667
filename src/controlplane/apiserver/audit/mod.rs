//! The audit log: who did what, as a policy wants it told.
//!
//! ```text
//! request -> the policy's first rule that matches: level, stages -> events, one JSON document a line -> file
//! ```
//!
//! An event waits for room in the writer's queue and is never dropped; without a policy nothing of this is done.

mod event;
mod log;
mod notes;
mod policy;

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;

use self::event::Record;
use self::log::Log;
use self::policy::{Level, Policy, Stage};
use super::request::RequestInfo;
use super::user::UserInfo;
use super::wire::{self, Format};
use rt::{Clock, Tasks};

pub use self::notes::Notes;
pub use self::policy::PolicyError;

const AUDIT_ID: &str = "audit-id";

/// Tells of requests as a policy wants it.
pub struct Audit {
    policy: Policy,
    log: Log,
    clock: Arc<dyn Clock>,
}

/// One request that is told of.
pub struct Audited {
    record: Record,
    level: Level,
    omitted: Vec<Stage>,
    without_managed_fields: bool,
    long: bool,
}

impl Audit {
    /// Reads the policy of a file, and appends to a log. `None`: there is no such file. Fails for a policy that is wrong.
    pub fn open(
        policy: &Path,
        log: &Path,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Option<Arc<Self>>, PolicyError> {
        let text = match std::fs::read_to_string(policy) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PolicyError::File { path: policy.to_owned(), source }),
        };
        let log =
            Log::open(log, tasks).map_err(|source| PolicyError::File { path: log.to_owned(), source })?;
        Ok(Some(Arc::new(Self { policy: Policy::parse(&text)?, log, clock })))
    }

    /// A request has come, and it is known from whom. `None`: the policy does not want to hear of it.
    pub async fn begin(
        &self,
        parts: &Parts,
        info: &RequestInfo,
        user: &UserInfo,
        impersonated: Option<&UserInfo>,
        long: bool,
    ) -> Option<Audited> {
        let wanted = self.policy.wants(info, user)?;
        let record = Record::new(parts, info, user, impersonated, self.clock.now());
        let audited = Audited {
            record,
            level: wanted.level,
            omitted: wanted.omit_stages,
            without_managed_fields: wanted.omit_managed_fields,
            long,
        };
        self.say(&audited, Stage::RequestReceived).await;
        Some(audited)
    }

    async fn say(&self, audited: &Audited, stage: Stage) {
        if !audited.omitted.contains(&stage) {
            self.log.write(audited.record.event(audited.level, stage, self.clock.now())).await;
        }
    }

    /// A request is answered; what lasts is told of now, and again when it ends.
    pub async fn end(self: &Arc<Self>, mut audited: Audited, response: Response<Body>) -> Response<Body> {
        audited.record.code = response.status().as_u16();
        let mut response = if audited.long { response } else { audited.look(response).await };
        if let Ok(id) = HeaderValue::from_str(&audited.record.id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        if !audited.long {
            self.say(&audited, Stage::ResponseComplete).await;
            return response;
        }
        self.say(&audited, Stage::ResponseStarted).await;
        let after = After { audit: self.clone(), audited: Some(audited) };
        let body = std::mem::take(response.body_mut());
        let pieces = futures::StreamExt::map(body.into_data_stream(), move |piece| {
            let _held = &after;
            piece
        });
        *response.body_mut() = Body::from_stream(pieces);
        response
    }

    /// A request whose handler panicked.
    pub async fn panicked(&self, audited: &Audited) {
        self.say(audited, Stage::Panic).await;
    }
}

/// Tells of the end of what lasts.
struct After {
    audit: Arc<Audit>,
    audited: Option<Audited>,
}

impl Drop for After {
    fn drop(&mut self) {
        let Some(audited) = self.audited.take().filter(|it| !it.omitted.contains(&Stage::ResponseComplete))
        else {
            return;
        };
        let event = audited.record.event(audited.level, Stage::ResponseComplete, self.audit.clock.now());
        self.audit.log.write_soon(event);
    }
}

impl Audited {
    /// Why the request was let through, or not.
    pub fn decided(&mut self, allowed: bool, reason: &str) {
        self.record.decided(allowed, reason);
    }

    /// What admission noted.
    pub fn noted(&mut self, notes: &Notes) {
        self.record.noted(notes.take());
    }

    /// Whether the policy wants the request's body.
    pub fn wants_request(&self) -> bool {
        self.level >= Level::Request
    }

    /// The request's body, as an object.
    pub fn requested(&mut self, object: Option<Value>) {
        self.record.request = object.map(|object| self.pruned(object));
    }

    /// Reads what is needed of an answer, and returns it whole.
    async fn look(&mut self, response: Response<Body>) -> Response<Body> {
        if self.level < Level::RequestResponse && self.record.code < 400 {
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if let Some(object) = read(&parts.headers, &bytes) {
            if object["kind"] == "Status" {
                self.record.status = Some(object.clone());
            }
            if self.level >= Level::RequestResponse {
                self.record.response = Some(self.pruned(object));
            }
        }
        Response::from_parts(parts, Body::from(bytes))
    }

    fn pruned(&self, mut object: Value) -> Value {
        if self.without_managed_fields {
            let items = object.get_mut("items").and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(forget_managers);
            forget_managers(&mut object);
        }
        object
    }
}

fn forget_managers(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// A body as an object, if it is one in a form that we know.
pub fn read(headers: &http::HeaderMap, bytes: &Bytes) -> Option<Value> {
    let kind =
        headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if bytes.is_empty() {
        return None;
    }
    // Patches have media types of their own; applied ones are YAML.
    let patch = if kind.contains("+yaml") { Format::Yaml } else { Format::Json };
    wire::parse(Format::of(kind).unwrap_or(patch), bytes).ok()
}

#[cfg(test)]
mod tests;
