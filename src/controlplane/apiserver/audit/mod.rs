//! The audit log: who did what, as a policy wants it told.
//!
//! ```text
//! request -> the policy's first rule that matches: level, stages -> events, one JSON document a line -> file
//! ```
//!
//! An event waits for room in the writer's queue and is never dropped; without a policy nothing of this is done.

mod counts;
mod event;
mod log;
mod notes;
mod policy;

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use self::counts::Counts;
use self::event::Record;
use self::log::Log;
use self::policy::{Level, Policy, Stage, Wanted};
use super::request::RequestInfo;
use super::user::UserInfo;
use super::wire::{self, Format};
use api::status::ApiError;
use metrics::Text;
use rt::{Clock, Tasks};

pub use self::notes::Notes;
pub use self::policy::PolicyError;

/// What a request is known by, in its answer and in the log.
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What one request is known by.
#[derive(Clone)]
pub struct RequestId(pub HeaderValue);

impl RequestId {
    /// What the client calls its request, or else a name that nobody has given yet. It stays with the request.
    pub fn of(parts: &mut Parts) -> Self {
        let asked = parts.headers.get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
        let id = Self(asked.unwrap_or_else(|| {
            let mut buffer = uuid::Uuid::encode_buffer();
            let made = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
            HeaderValue::from_str(made).unwrap_or(HeaderValue::from_static(""))
        }));
        parts.extensions.insert(id.clone());
        id
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Tells of requests as a policy wants it.
pub struct Audit {
    policy: Policy,
    log: Log,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
}

/// One request that is told of.
pub struct Audited {
    record: Record,
    wanted: Wanted,
    long: bool,
    passed_on: bool,
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
        let policy = Policy::read(policy, &text)?;
        let counts = Arc::<Counts>::default();
        let log = Log::open(log, tasks, counts.clone())
            .map_err(|source| PolicyError::Log { path: log.to_owned(), source })?;
        Ok(Some(Arc::new(Self { policy, log, clock, counts })))
    }

    /// A request has come, and it is known from whom. `None`: the policy does not want to hear of it. One that is `long` is told of
    /// when its answer begins, too.
    pub async fn begin(
        &self,
        parts: &Parts,
        info: &RequestInfo,
        user: &UserInfo,
        long: bool,
    ) -> Option<Audited> {
        let audited = self.wanted(parts, info, user, long)?;
        self.say(&audited, Stage::RequestReceived).await;
        Some(audited)
    }

    fn wanted(&self, parts: &Parts, info: &RequestInfo, user: &UserInfo, long: bool) -> Option<Audited> {
        let wanted = self.policy.wants(info, user);
        self.counts.level(wanted.level);
        if wanted.level == Level::None {
            return None;
        }
        let record = Record::new(parts, info, user, self.clock.now());
        Some(Audited { record, wanted, long, passed_on: false })
    }

    /// A request has come from who could not prove to be somebody. It is told of once, when it is answered.
    pub async fn unauthenticated(&self, parts: &Parts, info: &RequestInfo, refusal: &ApiError) {
        let Some(mut audited) = self.wanted(parts, info, &UserInfo::default(), true) else { return };
        audited.record.code = refusal.code;
        audited.record.status = Some(refusal.to_status());
        self.say(&audited, Stage::ResponseStarted).await;
    }

    async fn say(&self, audited: &Audited, stage: Stage) {
        if let Some(event) = self.event(audited, stage) {
            self.log.write(event).await;
        }
    }

    /// The event of a stage; `None`: it is not wanted.
    fn event(&self, audited: &Audited, stage: Stage) -> Option<Vec<u8>> {
        if audited.wanted.omit_stages.contains(&stage) {
            return None;
        }
        self.counts.events.add(1);
        Some(audited.record.event(audited.wanted.level, stage, self.clock.now()))
    }

    /// A request is answered; what lasts is told of now, and again when it ends.
    pub async fn end(self: &Arc<Self>, mut audited: Audited, response: Response<Body>) -> Response<Body> {
        audited.record.code = response.status().as_u16();
        let whole = !audited.long && !audited.passed_on;
        let mut response = if whole { audited.look(response).await } else { response };
        if !audited.long {
            self.say(&audited, Stage::ResponseComplete).await;
            return response;
        }
        self.say(&audited, Stage::ResponseStarted).await;
        let after = After { audit: self.clone(), audited };
        let body = std::mem::take(response.body_mut());
        let pieces = futures::StreamExt::map(body.into_data_stream(), move |piece| {
            let _held = &after;
            piece
        });
        *response.body_mut() = Body::from_stream(pieces);
        response
    }

    /// A request whose handler panicked: nothing more is told of it.
    pub async fn panicked(&self, mut audited: Audited, why: &str) {
        let message = format!("APIServer panic'd: {why}");
        audited.record.code = 500;
        audited.record.status =
            Some(json!({"status": "Failure", "message": message, "reason": "InternalError"}));
        self.say(&audited, Stage::Panic).await;
    }

    /// What was told, under upstream's names.
    pub fn tell(&self, text: &mut Text) {
        self.counts.tell(text);
    }
}

/// Tells of the end of what lasts.
struct After {
    audit: Arc<Audit>,
    audited: Audited,
}

impl Drop for After {
    fn drop(&mut self) {
        if let Some(event) = self.audit.event(&self.audited, Stage::ResponseComplete) {
            self.audit.log.write_soon(event);
        }
    }
}

impl Audited {
    /// The request goes on as somebody else.
    pub fn acts_as(&mut self, user: &UserInfo) {
        self.record.acts_as(user);
    }

    /// Why the request was let through, or not.
    pub fn decided(&mut self, allowed: bool, reason: &str) {
        self.record.decided(allowed, reason);
    }

    /// Another server answers: its answer is not looked at.
    pub fn pass_on(&mut self) {
        self.passed_on = true;
    }

    /// What admission noted.
    pub fn noted(&mut self, notes: &Notes) {
        self.record.noted(notes.take(self.wanted.level));
    }

    /// What the request carries.
    pub fn requested(&mut self, info: &RequestInfo, headers: &HeaderMap, bytes: &Bytes) {
        let told = self.wanted.level >= Level::Request;
        let object = matches!(info.verb, "create" | "update");
        if !told && !object {
            return;
        }
        let Some(body) = read(headers, bytes) else { return };
        if object {
            self.record.is_about(&body);
        }
        if told {
            self.record.request = Some(self.pruned(body));
        }
    }

    /// Reads what is needed of an answer, and returns it whole.
    async fn look(&mut self, response: Response<Body>) -> Response<Body> {
        if self.wanted.level < Level::RequestResponse && self.record.code < 400 {
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if let Some(object) = read(&parts.headers, &bytes) {
            if object["kind"] == "Status" {
                self.record.status = Some(object.clone());
            }
            if self.wanted.level >= Level::RequestResponse {
                self.record.response = Some(self.pruned(object));
            }
        }
        Response::from_parts(parts, Body::from(bytes))
    }

    fn pruned(&self, mut object: Value) -> Value {
        if self.wanted.omit_managed_fields {
            for (list, of) in [("items", ""), ("rows", "/object")] {
                let all = object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
                all.filter_map(|one| one.pointer_mut(of)).for_each(forget_managers);
            }
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
fn read(headers: &HeaderMap, bytes: &Bytes) -> Option<Value> {
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
