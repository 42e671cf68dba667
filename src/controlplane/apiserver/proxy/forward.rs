//! Passes a request on to a node, a Pod or a Service, upgrades included.

use axum::body::Body;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::relay::{self, Peer, upgrade_of};
use super::rewrite::Rewriting;
use super::target;
use super::{Dial, Location, Streams};
use crate::request::RequestInfo;
use api::status::{ApiError, Reason};

/// How much of a kubelet's refusal is repeated to the client.
const REFUSAL: usize = 2000;
/// The longest answer that is taken from a kubelet: some KiB a Pod.
const SUMMARY: usize = 16 << 20;
/// WebSocket protocols that a container runtime speaks.
const RUNTIME_PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
/// WebSocket port-forwarding as old clients do it, without a tunnel.
const PORT_PROTOCOLS: &[&str] = &["v4.base64.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];

/// Leaves of the WebSocket protocols that are offered those that the runtime speaks; refuses when there is none, which
/// makes kubectl try SPDY.
pub(super) fn settle_protocols(headers: &mut HeaderMap) -> Result<(), ApiError> {
    let websocket =
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !websocket {
        return Ok(());
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<String> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect();
    if offered.is_empty() {
        return Ok(());
    }
    let known = |protocol: &&String| {
        RUNTIME_PROTOCOLS.contains(&protocol.as_str()) || PORT_PROTOCOLS.contains(&protocol.as_str())
    };
    let spoken: Vec<&str> = offered.iter().filter(known).map(String::as_str).collect();
    let value = HeaderValue::from_str(&spoken.join(", ")).ok().filter(|_| !spoken.is_empty());
    match value {
        Some(value) => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
            Ok(())
        }
        None => {
            let why = format!("unable to upgrade: no supported WebSocket protocol among {offered:?}");
            Err(ApiError::bad_request(why))
        }
    }
}

impl Streams {
    /// Passes a request on; after a 101 both ends talk to each other until one of them ends. Links in a page that comes back, and
    /// redirects, are made to lead through this server again.
    pub(super) async fn forward(
        &self,
        location: Location,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let (upgrade, client_side) = upgrade_of(&mut request);
        let (parts, body) = request.into_parts();
        let mut onward = Request::builder().method(parts.method).uri(&location.path);
        let rewrite = location.outside.as_ref();
        let rewrite = rewrite.map(|outside| Rewriting::new(&location, outside, &parts.headers, &parts.uri));
        if let Some(headers) = onward.headers_mut() {
            *headers = relay::onward_headers(&parts.headers, upgrade);
            if let Some(rewrite) = &rewrite {
                rewrite.tell(headers);
            }
        }
        let body = if upgrade { Body::empty() } else { body };
        let onward = onward.body(body).map_err(ApiError::internal)?;
        let answered = relay::relay(&self.tasks, &self.peer(&location), onward, client_side).await;
        let response = answered.map_err(|error| dialing(&error))??;
        Ok(match rewrite {
            Some(rewrite) => rewrite.response(response),
            None => response,
        })
    }

    fn peer(&self, location: &Location) -> Peer {
        let tls = match location.dial {
            Dial::Plain => None,
            Dial::Anonymous => Some(&self.anybody),
            Dial::Kubelet => Some(&self.kubelets),
        };
        Peer {
            address: (location.host, location.port).into(),
            host: format!("{}:{}", location.host, location.port),
            tls: tls.map(|tls| (tls.clone(), ServerName::IpAddress(location.host.into()))),
        }
    }

    /// A container's log: what the kubelet sends, as it comes; its refusals as Status.
    pub(super) async fn log(
        &self,
        info: &RequestInfo,
        location: Location,
    ) -> Result<Response<Body>, ApiError> {
        let request = Request::get(&location.path).body(Body::empty()).map_err(ApiError::internal)?;
        let sent = relay::send(&self.tasks, &self.peer(&location), request).await;
        let response = sent.map_err(|error| {
            let Location { host, port, path, .. } = &location;
            ApiError::internal(format!("Get \"https://{host}:{port}{path}\": {error}"))
        })?;
        if response.status().is_success() {
            let mut answer = relay::downstream(response);
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return Ok(answer);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), REFUSAL).collect().await;
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(refusal(info, status, String::from_utf8_lossy(&text).trim_end()))
    }

    /// What a node's kubelet answers at `path`, as JSON. Fails when it does not answer with success.
    pub async fn kubelet_json(&self, node: &Value, path: &str) -> Result<Value, ApiError> {
        let (host, port) = target::kubelet_address(node)?;
        let location = Location { host, port, dial: Dial::Kubelet, path: path.to_owned(), outside: None };
        let request = Request::get(path).body(Body::empty()).map_err(ApiError::internal)?;
        let sent = relay::send(&self.tasks, &self.peer(&location), request).await;
        let response = sent.map_err(ApiError::internal)?;
        if !response.status().is_success() {
            return Err(ApiError::internal(format!("the kubelet answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), SUMMARY).collect().await;
        let body = body.map_err(|error| ApiError::internal(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(ApiError::internal)
    }
}

fn dialing(error: &std::io::Error) -> ApiError {
    ApiError::internal(format!("error dialing backend: {error}"))
}

/// A kubelet's refusal in upstream's clothes.
fn refusal(info: &RequestInfo, status: StatusCode, text: &str) -> ApiError {
    match status.as_u16() {
        400 => ApiError::bad_request(text),
        404 => {
            let why = format!(
                "the server could not find the requested resource ( {} {})",
                info.resource, info.name
            );
            let why = if text.is_empty() { why } else { text.to_owned() };
            ApiError::new(404, Reason::NotFound, why)
        }
        code if code >= 500 => ApiError::internal(text),
        code => ApiError::new(code, Reason::Unknown, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(offered: &str, expect: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        let settled = settle_protocols(&mut headers);
        let left = settled.ok().map(|()| headers[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap());
        assert_eq!(left, expect, "{offered}");
    }

    #[test]
    fn only_protocols_that_runtimes_speak_go_on() {
        check("v5.channel.k8s.io", None);
        check("v5.channel.k8s.io, v4.channel.k8s.io", Some("v4.channel.k8s.io"));
        check("v4.channel.k8s.io", Some("v4.channel.k8s.io"));
        check("SPDY/3.1+portforward.k8s.io", None);
        let mut spdy = HeaderMap::new();
        spdy.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(settle_protocols(&mut spdy).is_ok());
    }
}
