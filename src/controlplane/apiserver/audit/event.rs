//! What is told of one request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::header::USER_AGENT;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::meta::format_micro_time;

/// What is known of a request, as it goes on.
pub(super) struct Record {
    pub id: String,
    /// What does not change.
    head: Map<String, Value>,
    annotations: Map<String, Value>,
    pub code: u16,
    /// The Status that it was answered with, if it was.
    pub status: Option<Value>,
    pub request: Option<Value>,
    pub response: Option<Value>,
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
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
    pub(super) fn new(
        parts: &Parts,
        info: &RequestInfo,
        user: &UserInfo,
        impersonated: Option<&UserInfo>,
        now: Timestamp,
    ) -> Self {
        let asked = parts.headers.get(super::AUDIT_ID).and_then(|id| id.to_str().ok());
        let id = asked.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let uri = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut head = Map::new();
        let mut set = |key: &str, value: Value| head.insert(key.to_owned(), value);
        set("auditID", id.as_str().into());
        set("requestURI", uri.into());
        set("verb", info.verb.into());
        set("user", user_info(user));
        if let Some(impersonated) = impersonated {
            set("impersonatedUser", user_info(impersonated));
        }
        set("sourceIPs", sources(parts).into());
        set("userAgent", agent.into());
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
        set("requestReceivedTimestamp", format_micro_time(now).into());
        let (annotations, code) = (Map::new(), 0);
        Self { id, head, annotations, code, status: None, request: None, response: None }
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
        if stage != Stage::RequestReceived {
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
        fields.insert("stageTimestamp".to_owned(), format_micro_time(now).into());
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}
