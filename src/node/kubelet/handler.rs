//! What probes and lifecycle hooks do: run a command, ask over HTTP, open a connection, wait.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cri::Runtime;
use client::tls;

/// As much of an answer as goes into an event.
const SHOWN: usize = 1024;
const BODY: usize = 10 << 10;

/// One container, as its handlers reach it.
#[derive(Clone)]
pub struct Target {
    pub runtime: Runtime,
    pub container: Arc<Container>,
    pub id: String,
    pub pod_ip: Option<String>,
}

impl Target {
    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let ports = self.container.ports.iter().flatten();
                let mut named =
                    ports.filter(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
                named.next_back().or_else(|| name.parse().ok())
            }
        };
        number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("invalid port number: {port:?}"))
    }

    fn host(&self, own: Option<&String>) -> Result<String, String> {
        own.filter(|host| !host.is_empty())
            .cloned()
            .or_else(|| self.pod_ip.clone())
            .ok_or_else(|| "the Pod has no address".to_owned())
    }

    /// Runs a command in the container; a non-zero exit is a failure with its output.
    pub async fn exec(&self, action: &ExecAction, limit: Duration) -> Result<(), String> {
        let command = action.command.clone().unwrap_or_default();
        let answer =
            self.runtime.exec_sync(&self.id, &command, limit).await.map_err(|error| error.to_string())?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let mut text = String::from_utf8_lossy(&answer.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&answer.stderr));
        let shown: String = text.chars().take(SHOWN).collect();
        Err(if shown.is_empty() { format!("exit code {}", answer.exit_code) } else { shown })
    }

    /// Opens a connection and closes it again.
    pub async fn tcp(&self, action: &TCPSocketAction) -> Result<(), String> {
        let (host, port) = (self.host(action.host.as_ref())?, self.port(&action.port)?);
        connect(&host, port).await.map(drop)
    }

    /// Asks by the gRPC health protocol.
    pub async fn grpc(&self, action: &GRPCAction) -> Result<(), String> {
        let host = self.host(None)?;
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        super::grpc::check(&host, port, action.service.as_deref().unwrap_or_default()).await
    }

    /// Asks over HTTP; any status from 200 to 399 is success. Redirects on the same host are followed; one to another
    /// host says that somebody answers, which is enough: the answer is a warning then.
    pub async fn http(&self, action: &HTTPGetAction, agent: &str) -> Result<Option<String>, String> {
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let mut place = HttpTarget {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host: self.host(action.host.as_ref())?,
            port: self.port(&action.port)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        };
        for _ in 0..REDIRECTS {
            let Page { status, location, text } = place.get(action, agent).await?;
            match (status, location.and_then(|location| place.follow(&location))) {
                (301 | 302 | 303 | 307 | 308, Some(next)) if next.host == place.host => place = next,
                (300..400, Some(_)) => {
                    return Ok(Some(format!("Probe terminated redirects, Response body: {text}")));
                }
                (200..400, _) => return Ok(None),
                _ => return Err(format!("HTTP probe failed with statuscode: {status}")),
            }
        }
        Err(format!("Get \"{place}\": stopped after {REDIRECTS} redirects"))
    }
}

/// As many redirects are followed.
const REDIRECTS: u32 = 10;

/// What was answered over HTTP.
struct Page {
    status: u16,
    /// Where it points to.
    location: Option<String>,
    text: String,
}

/// What is asked for over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HttpTarget {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl HttpTarget {
    /// Where a redirect leads; `None` when that is no place on the web.
    fn follow(&self, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Self { path: location.to_owned(), ..self.clone() });
        }
        let uri: http::Uri = location.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            tls,
            host: uri.host()?.to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }

    /// Asks once.
    async fn get(&self, action: &HTTPGetAction, agent: &str) -> Result<Page, String> {
        let Self { host, port, .. } = self;
        let mut request = Request::get(&self.path)
            .header(http::header::HOST, format!("{host}:{port}"))
            .header(http::header::USER_AGENT, agent)
            .header(http::header::ACCEPT, "*/*")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let mut own = HashSet::new();
        for header in action.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&header.name).map_err(|error| error.to_string())?;
            let value = HeaderValue::try_from(&header.value).map_err(|error| error.to_string())?;
            // The first of a name replaces ours; the others of that name come beside it.
            if own.insert(name.clone()) {
                request.headers_mut().insert(name, value);
            } else {
                request.headers_mut().append(name, value);
            }
        }
        let tcp = connect(host, *port).await?;
        let shown = format!("Get \"{self}\"");
        let answer = if self.tls {
            let name =
                rustls_pki_types::ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
            let tls = TlsConnector::from(Arc::new(tls::unverified().map_err(|error| error.to_string())?));
            let stream = tls.connect(name, tcp).await.map_err(|error| format!("{shown}: {error}"))?;
            send(stream, request).await
        } else {
            send(tcp, request).await
        };
        answer.map_err(|error| format!("{shown}: {error}"))
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let fail = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {host}:{port}: {why}")
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await.map_err(fail),
        Err(_) => TcpStream::connect((host, port)).await.map_err(fail),
    }
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Page, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let ask = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let location = answer.headers().get(http::header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        // Read what there is of the answer, so that the server does not see a broken connection.
        let body = Limited::new(answer.into_body(), BODY).collect().await;
        let text =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok(Page { status, location, text })
    };
    tokio::pin!(connection);
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        _ = &mut connection => ask.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_somewhere() {
        let here = HttpTarget { tls: false, host: "10.42.0.3".into(), port: 8080, path: "/a".into() };
        let check = |location: &str, expect: Option<&str>| {
            assert_eq!(here.follow(location).map(|place| place.to_string()).as_deref(), expect, "{location}");
        };
        check("/b?c=d", Some("http://10.42.0.3:8080/b?c=d"));
        check("https://10.42.0.3/x", Some("https://10.42.0.3:443/x"));
        check("http://0.0.0.0:9000", Some("http://0.0.0.0:9000/"));
        check("ftp://x/", None);
    }
}
