//! What is told of one request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::header::USER_AGENT;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::RequestId;
use super::policy::{Level, Stage};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::meta::{ObjectExt, format_micro_time};

/// A user agent is told up to here, in bytes, as upstream has it.
const LONGEST_AGENT: usize = 1024;

/// What is known of a request, as it goes on.
pub(super) struct Record {
    /// What is told at every stage.
    head: Map<String, Value>,
    received: String,
    annotations: Map<String, Value>,
    pub code: u16,
    /// The Status that it was answered with, if it was.
    pub status: Option<Value>,
    pub request: Option<Value>,
    pub response: Option<Value>,
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({});
    for (key, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info[key] = text.as_str().into();
        }
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn agent(parts: &Parts) -> String {
    let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    // Only visible characters of one byte each are a text here.
    match agent.get(..LONGEST_AGENT) {
        Some(start) if agent.len() > LONGEST_AGENT => format!("{start}...TRUNCATED"),
        _ => agent.to_owned(),
    }
}

/// Where a request comes from: what proxies say, then who is connected.
fn sources(parts: &Parts) -> Vec<String> {
    let said = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let forwarded = said("x-forwarded-for").split(',').chain([said("x-real-ip")]);
    let mut all: Vec<String> =
        forwarded.map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect();
    if let Some(peer) = parts.extensions.get::<SocketAddr>() {
        all.push(peer.ip().to_string());
    }
    all.dedup();
    all
}

impl Record {
    /// A request from `user`, who may be nobody.
    pub(super) fn new(parts: &Parts, info: &RequestInfo, user: &UserInfo, now: Timestamp) -> Self {
        let id = parts.extensions.get::<RequestId>().map(RequestId::text).unwrap_or_default();
        let uri = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut head = Map::new();
        let mut set = |key: &str, value: Value| head.insert(key.to_owned(), value);
        set("auditID", id.into());
        set("requestURI", uri.into());
        set("verb", info.verb.into());
        set("user", user_info(user));
        set("sourceIPs", sources(parts).into());
        set("userAgent", agent(parts).into());
        if info.is_resource {
            let fields = [
                ("resource", &info.resource),
                ("namespace", &info.namespace),
                ("name", &info.name),
                ("apiGroup", &info.group),
                ("apiVersion", &info.version),
                ("subresource", &info.subresource),
            ];
            let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
            let reference: Map<String, Value> =
                fields.map(|(key, value)| (key.to_owned(), value.as_str().into())).collect();
            set("objectRef", reference.into());
        }
        let received = format_micro_time(now);
        set("requestReceivedTimestamp", received.as_str().into());
        let (annotations, code) = (Map::new(), 0);
        Self { head, received, annotations, code, status: None, request: None, response: None }
    }

    /// The request goes on as somebody else.
    pub(super) fn acts_as(&mut self, user: &UserInfo) {
        self.head.insert("impersonatedUser".to_owned(), user_info(user));
    }

    /// What was sent says which object it is about, where the path does not.
    pub(super) fn is_about(&mut self, object: &Value) {
        let Some(reference) = self.head.get_mut("objectRef").and_then(Value::as_object_mut) else { return };
        let Some(metadata) = object.get("metadata") else { return };
        for field in ["namespace", "name", "uid", "resourceVersion"] {
            if let Some(text) = metadata.text(field).filter(|text| !text.is_empty()) {
                reference.entry(field).or_insert_with(|| text.into());
            }
        }
    }

    pub(super) fn decided(&mut self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.annotations.insert("authorization.k8s.io/decision".to_owned(), decision.into());
        self.annotations.insert("authorization.k8s.io/reason".to_owned(), reason.into());
    }

    pub(super) fn noted(&mut self, notes: BTreeMap<String, String>) {
        self.annotations.extend(notes.into_iter().map(|(key, value)| (key, value.into())));
    }

    /// The event of a stage, as one line.
    pub(super) fn event(&self, level: Level, stage: Stage, now: Timestamp) -> Vec<u8> {
        let mut event =
            json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "stage": stage});
        let Some(fields) = event.as_object_mut() else { return Vec::new() };
        fields.extend(self.head.clone());
        if stage == Stage::RequestReceived {
            fields.insert("stageTimestamp".to_owned(), self.received.as_str().into());
        } else {
            self.add_outcome(fields);
            fields.insert("stageTimestamp".to_owned(), format_micro_time(now).into());
        }
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// What has come of the request so far.
    fn add_outcome(&self, fields: &mut Map<String, Value>) {
        let mut status = json!({"metadata": {}, "code": self.code});
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = self.status.as_ref().and_then(|status| status.get(field)) {
                status[field] = value.clone();
            }
        }
        fields.insert("responseStatus".to_owned(), status);
        for (key, value) in [("requestObject", &self.request), ("responseObject", &self.response)] {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value.clone());
            }
        }
        if !self.annotations.is_empty() {
            fields.insert("annotations".to_owned(), self.annotations.clone().into());
        }
    }
}
