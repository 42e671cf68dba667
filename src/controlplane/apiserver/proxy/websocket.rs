//! Logs and watches in a WebSocket, as dashboards in a browser read them: each piece of the log, each event is one message.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use api::status::ApiError;
use rt::Tasks;

/// Ends every handshake's key, by RFC 6455.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// A close frame without a reason.
const CLOSE: [u8; 2] = [0x88, 0];

/// How the pieces travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Binary,
    Base64,
    /// Each line is a text.
    Lines,
}

/// What becomes one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// Whatever comes at once, in a protocol that the client names.
    Pieces,
    /// A line: an event of a watch.
    Lines,
}

const PROTOCOLS: &[(&str, Protocol)] =
    &[("binary.k8s.io", Protocol::Binary), ("base64.binary.k8s.io", Protocol::Base64)];

/// A client that asked for a WebSocket, before it is answered.
pub struct Socket {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    protocol: Protocol,
    name: Option<&'static str>,
}

impl Socket {
    /// The WebSocket that a request asks for; `None` where it is an ordinary request.
    ///
    /// Fails when the handshake is incomplete or offers no protocol that is known.
    pub fn of(parts: &mut Parts, messages: Messages) -> Result<Option<Self>, ApiError> {
        let headers = &parts.headers;
        let asked = headers.get(header::UPGRADE);
        if !asked.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Ok(None);
        }
        let (protocol, name) = match messages {
            Messages::Pieces => choose(headers)?,
            Messages::Lines => (Protocol::Lines, None),
        };
        let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
        let key = key.ok_or_else(|| ApiError::bad_request("the WebSocket handshake has no key"))?;
        let accept = HeaderValue::from_str(&accept(key)).map_err(ApiError::internal)?;
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade =
            upgrade.ok_or_else(|| ApiError::bad_request("this connection cannot become a WebSocket"))?;
        Ok(Some(Self { upgrade, accept, protocol, name }))
    }

    /// Answers with the WebSocket, and sends what `log` says until it ends or the client goes.
    pub fn serve(self, log: Response<Body>, tasks: &Tasks) -> Response<Body> {
        let Self { upgrade, accept, protocol, name } = self;
        tasks.spawn_until_stop(async move {
            match upgrade.await {
                Ok(stream) => {
                    if let Err(error) = send(TokioIo::new(stream), log.into_body(), protocol).await {
                        tracing::debug!(%error, "a log's WebSocket ended early");
                    }
                }
                Err(error) => tracing::debug!(%error, "a log's WebSocket was not taken up"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(name) = name {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        response
    }
}

/// The first protocol offered that is known; who offers none gets binary messages.
fn choose(headers: &HeaderMap) -> Result<(Protocol, Option<&'static str>), ApiError> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if offered.is_empty() {
        return Ok((Protocol::Binary, None));
    }
    let known = offered.iter().find_map(|offer| PROTOCOLS.iter().find(|(name, _)| name == offer));
    known.map(|(name, protocol)| (*protocol, Some(*name))).ok_or_else(|| {
        ApiError::bad_request(format!("no supported WebSocket protocol among {offered:?} for a log"))
    })
}

fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

async fn send<S>(stream: S, mut log: Body, protocol: Protocol) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    // Whatever the client says means nothing here, but that it has gone is noticed.
    let gone = async {
        let mut ignored = [0; 512];
        while reader.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    };
    tokio::pin!(gone);
    loop {
        let piece = tokio::select! {
            frame = log.frame() => frame,
            () = &mut gone => return Ok(()),
        };
        let Some(piece) = piece else { break };
        let piece = piece.map_err(std::io::Error::other)?;
        if let Ok(data) = piece.into_data() {
            for message in messages(protocol, &data) {
                writer.write_all(&message).await?;
            }
            writer.flush().await?;
        }
    }
    writer.write_all(&CLOSE).await?;
    writer.shutdown().await
}

/// What a piece becomes; pieces of a watch hold whole lines.
fn messages(protocol: Protocol, data: &Bytes) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::Lines => {
            let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| message(protocol, line)).collect()
        }
        _ => vec![message(protocol, data)],
    }
}

/// One message in one frame; a server does not mask.
fn message(protocol: Protocol, data: &[u8]) -> Vec<u8> {
    let (kind, payload) = match protocol {
        Protocol::Binary => (BINARY, data.to_vec()),
        Protocol::Base64 => (TEXT, STANDARD.encode(data).into_bytes()),
        Protocol::Lines => (TEXT, data.to_vec()),
    };
    let mut frame = vec![kind];
    match payload.len() {
        short @ 0..126 => frame.push(u8::try_from(short).unwrap_or_default()),
        middle @ 126..65_536 => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(middle).unwrap_or_default().to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_standard_s() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn protocols_are_chosen_by_the_client_s_order() {
        let check = |offered: &[&'static str], expect: Option<Option<&str>>| {
            let mut headers = HeaderMap::new();
            for offer in offered {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            assert_eq!(choose(&headers).ok().map(|(_, name)| name), expect, "{offered:?}");
        };
        check(&[], Some(None));
        check(&["x, base64.binary.k8s.io", "binary.k8s.io"], Some(Some("base64.binary.k8s.io")));
        check(&["x"], None);
    }

    #[test]
    fn lengths_are_written_in_three_ways() {
        let check = |length: usize, head: &[u8]| {
            let frame = message(Protocol::Binary, &vec![7; length]);
            assert_eq!((&frame[..head.len()], frame.len()), (head, head.len() + length));
        };
        check(5, &[0x82, 5]);
        check(300, &[0x82, 126, 1, 44]);
        check(70_000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn events_are_messages_one_by_one() {
        let sent = messages(Protocol::Lines, &Bytes::from_static(b"{\"a\":1}\n{}\n"));
        assert_eq!(sent, [b"\x81\x07{\"a\":1}".to_vec(), b"\x81\x02{}".to_vec()]);
    }

    #[tokio::test]
    async fn a_log_becomes_messages_and_a_close() {
        let (client, server) = tokio::io::duplex(1024);
        send(server, Body::from("alive\n"), Protocol::Binary).await.expect("sent");
        let mut client = client;
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.expect("read");
        assert_eq!(seen, [&[0x82, 6][..], b"alive\n", &[0x88, 0]].concat());
    }
}
