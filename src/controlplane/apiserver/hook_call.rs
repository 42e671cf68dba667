//! Calling a webhook over TLS: of admission, of a conversion.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

use super::index::Known;
use api::meta::ObjectExt;
use client::tls;

/// How long a hook that does not say may take.
const TIMEOUT: i64 = 10;
/// Answers are no longer.
const LONGEST: usize = 16 * 1024 * 1024;
/// Connections are kept for so many servers.
const MOST_CLIENTS: usize = 64;

/// Why a hook could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct CallError {
    pub why: String,
    /// What it answered, if that was a refusal to answer; else 503.
    pub code: u16,
}

impl CallError {
    /// There was no answer, or none that can be used.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), code: 503 }
    }
}

/// Where a hook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: String,
    /// The name in the URL and the address it stands for, where DNS is not to be asked.
    resolve: Option<(String, SocketAddr)>,
    /// The authorities to believe, as PEM; empty: the machine's.
    authorities: String,
    timeout: Duration,
}

/// The bytes that a text in base 64 stands for, if it is one.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Finds where a hook is; fails if its Service is not there.
pub fn target(hook: &Value, known: &Known) -> Result<Target, CallError> {
    let seconds = hook.int_at("/timeoutSeconds").unwrap_or(TIMEOUT);
    let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    let bundle = hook.str_at("/clientConfig/caBundle").unwrap_or_default();
    let authorities = decode_base64(bundle).and_then(|pem| String::from_utf8(pem).ok()).unwrap_or_default();
    let query = format!("timeout={seconds}s");
    if let Some(url) = hook.str_at("/clientConfig/url") {
        let url = format!("{url}?{query}");
        return Ok(Target { url, resolve: None, authorities, timeout });
    }
    let service = hook.pointer("/clientConfig/service").unwrap_or(&Value::Null);
    let text = |key: &str| service.text(key).unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service.int_at("/port").unwrap_or(443);
    let address = known
        .service_address(namespace, name, port)
        .map_err(|why| CallError::new(format!("failed to call webhook: {why}")))?;
    let host = format!("{name}.{namespace}.svc");
    let path = if text("path").is_empty() { "/" } else { text("path") };
    let url = format!("https://{host}:{port}{path}?{query}");
    Ok(Target { url, resolve: Some((host, address)), authorities, timeout })
}

/// What a client is made for: where the host is resolved to, and whose certificates are trusted.
type ClientKey = (Option<(String, SocketAddr)>, String);

/// Calls webhooks, and keeps the connections.
#[derive(Default)]
pub struct Caller {
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
}

impl Caller {
    fn client(&self, target: &Target) -> Result<reqwest::Client, CallError> {
        let key = (target.resolve.clone(), target.authorities.clone());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let own = &target.authorities;
        let authorities = if own.is_empty() { tls::system_authorities() } else { own.clone() };
        let trust = tls::config(&authorities, None).map_err(|error| {
            CallError::new(format!("failed to call webhook: unable to load root certificates: {error}"))
        })?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(trust)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some((host, address)) = &target.resolve {
            builder = builder.resolve(host, *address);
        }
        let client =
            builder.build().map_err(|error| CallError::new(format!("failed to call webhook: {error}")))?;
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// Sends a question and returns the answer's document. Fails when there is none in time, or not with 200.
    pub async fn call(&self, target: &Target, question: &Value) -> Result<Value, CallError> {
        let client = self.client(target)?;
        let none = |error: &reqwest::Error| CallError::new(deepest(error));
        let exchange = async {
            // Servers that know several forms answer in any of them, if they are not told.
            let request = client
                .post(&target.url)
                .header("content-type", "application/json")
                .header("accept", "application/json, */*");
            let mut response =
                request.body(question.to_string()).send().await.map_err(|error| none(&error))?;
            let status = response.status();
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| none(&error))? {
                body.extend_from_slice(&chunk);
                if body.len() > LONGEST {
                    return Err(CallError::new("the answer is too long"));
                }
            }
            if !status.is_success() {
                let why = format!("the server answered {status}: {}", String::from_utf8_lossy(&body));
                return Err(CallError { why, code: status.as_u16() });
            }
            serde_json::from_slice(&body)
                .map_err(|error| CallError::new(format!("the answer is no JSON: {error}")))
        };
        let outcome = match tokio::time::timeout(target.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::new("context deadline exceeded")),
        };
        outcome.map_err(|CallError { why, code }| {
            let why = format!("failed to call webhook: Post {:?}: {why}", target.url);
            CallError { why, code }
        })
    }
}

/// The innermost reason, which says what went wrong.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
