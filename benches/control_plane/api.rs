//! The API over TLS, with a client certificate and RBAC, on a durable store: 16 connections against etcd's 16.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use minik::apiserver::{ApiServer, Options, serve};
use minik::pki::ServerPki;
use minik::rt::Tasks;
use minik::storage;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::etcd::{Client, Etcd};
use crate::figures::{AsyncOperation, WORKERS, measure, median, print, ratio};
use crate::store::key;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LISTED: &str = "/api/v1/namespaces/listed/configmaps";
const WATCHERS: usize = 50;

/// A server in this process, and what its clients need.
struct Server {
    address: SocketAddr,
    tls: TlsConnector,
    tasks: Tasks,
}

impl Server {
    /// Starts on the store in `folder`; answers how long it took until `/readyz` said ok over TLS.
    async fn start(folder: &Path) -> Result<(Self, Duration)> {
        let begun = Instant::now();
        let pki = ServerPki::prepare(&folder.join("pki"), "bench", &["127.0.0.1".to_owned()])?;
        let tasks = Tasks::new();
        let (client, serving) =
            (client_tls(&pki)?, serve::tls(&pki.serving, pki.authority.certificate_pem())?);
        let store = storage::open(storage::Config::embedded(folder.join("api.redb"))).await?;
        let options = Options::new(store, pki.service_account_key, tasks.clone());
        let api = ApiServer::build(options).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        serve::serve(listener, api.router(), serving, &tasks);
        let server = Self { address, tls: client, tasks };
        let (status, _) = server.connect().await?.send(Method::GET, "/readyz", Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "/readyz: {status}");
        Ok((server, begun.elapsed()))
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.address.ip()), stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn_until_stop(connection);
        Ok(Connection(sender))
    }

    async fn connections(&self) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        for _ in 0..WORKERS {
            connections.push(self.connect().await?);
        }
        Ok(connections)
    }
}

fn client_tls(pki: &ServerPki) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pki.authority.certificate_pem().as_bytes()) {
        roots.add(authority?)?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pki.admin.certificate_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pki.admin.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain?, key)?;
    Ok(Arc::new(config).into())
}

/// One HTTP/1.1 connection.
struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    async fn open(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Incoming)> {
        self.0.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let response = self.0.send_request(request).await?;
        Ok((response.status(), response.into_body()))
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let (status, body) = self.open(method, path, body).await?;
        Ok((status, body.collect().await?.to_bytes()))
    }

    async fn expect(&mut self, method: Method, path: &str, body: Bytes, expect: StatusCode) -> Result<Bytes> {
        let (status, answer) = self.send(method, path, body).await?;
        ensure!(status == expect, "{path}: {status} {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

fn name(run: usize, n: usize) -> String {
    key(run, n).rsplit('/').next().unwrap_or_default().to_owned()
}

fn config_map(name: &str) -> Bytes {
    let value = "x".repeat(1024);
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":"{value}"}}}}"#
    )
    .into()
}

#[derive(Clone)]
struct Create(&'static str, usize);

impl AsyncOperation<Connection> for Create {
    async fn run(&self, connection: &mut Connection, n: usize) -> Result<()> {
        let body = config_map(&name(self.1, n));
        connection.expect(Method::POST, self.0, body, StatusCode::CREATED).await.map(drop)
    }
}

/// Reads what run 0 has created.
#[derive(Clone)]
struct Get(usize);

impl AsyncOperation<Connection> for Get {
    async fn run(&self, connection: &mut Connection, n: usize) -> Result<()> {
        let path = format!("{MAPS}/{}", name(0, n.wrapping_mul(7919) % self.0));
        connection.expect(Method::GET, &path, Bytes::new(), StatusCode::OK).await.map(drop)
    }
}

impl AsyncOperation<Client> for Get {
    async fn run(&self, etcd: &mut Client, n: usize) -> Result<()> {
        let found = etcd.range(&key(0, n.wrapping_mul(7919) % self.0)).await?;
        ensure!(found == 1, "etcd has lost a key");
        Ok(())
    }
}

/// etcd must hold what the engine's own measurement has put there: run 0 is read back.
pub async fn all(folder: &Path, etcd: Option<&Etcd>, operations: usize, rounds: usize) -> Result<()> {
    let (server, _) = Server::start(folder).await?;
    let mut admin = server.connect().await?;
    for namespace in ["default", "listed"] {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}}}}"#);
        admin.expect(Method::POST, "/api/v1/namespaces", body.into(), StatusCode::CREATED).await?;
    }
    let (mut creates, mut gets, mut puts, mut ranges) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        creates.push(measure(server.connections().await?, operations, Create(MAPS, round)).await?);
        if let Some(etcd) = etcd {
            // Runs of the engine's own measurement have other numbers.
            let run = crate::store::Create(1_000 + round);
            puts.push(measure(etcd.connections(WORKERS).await?, operations, run).await?);
        }
        let known = operations / WORKERS * WORKERS;
        gets.push(measure(server.connections().await?, operations, Get(known)).await?);
        if let Some(etcd) = etcd {
            ranges.push(measure(etcd.connections(WORKERS).await?, operations, Get(known)).await?);
        }
    }
    let (creates, gets) = (median(creates), median(gets));
    print("API: create, 1 KiB, 16 TLS connections", &creates);
    print("API: get, 16 TLS connections", &gets);
    if etcd.is_some() {
        let (puts, ranges) = (median(puts), median(ranges));
        print("etcd: put, same rounds", &puts);
        print("etcd: range of one key, same rounds", &ranges);
        ratio("API create / etcd put", creates.per_second, puts.per_second, "0.8 or more");
        ratio("API get / etcd range", gets.per_second, ranges.per_second, "1.5 or more");
    }
    lists(&server).await?;
    watchers(&server, operations).await?;
    drop(admin);
    // The file is free once the last connection and index has let go of the store.
    let _ = server.tasks.drain(Duration::from_secs(10)).await;
    starts(folder).await
}

async fn lists(server: &Server) -> Result<()> {
    measure(server.connections().await?, 2_000, Create(LISTED, 0)).await?;
    let mut connection = server.connect().await?;
    let mut times = Vec::new();
    let mut size = 0;
    for _ in 0..21 {
        let begun = Instant::now();
        size = connection.expect(Method::GET, LISTED, Bytes::new(), StatusCode::OK).await?.len();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let what = format!("API: LIST of 2,000 ({:.1} MB)", size as f64 / 1e6);
    println!("{what:<44} {:>9.2} ms  (aim: under 5)", times[times.len() / 2]);
    Ok(())
}

/// 50 watchers, each on a connection of its own, and 16 writers at full speed.
async fn watchers(server: &Server, writes: usize) -> Result<()> {
    let writes = writes / WORKERS * WORKERS;
    let list = format!("{MAPS}?limit=1");
    let answer = server.connect().await?.expect(Method::GET, &list, Bytes::new(), StatusCode::OK).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let from = answer["metadata"]["resourceVersion"].as_str().context("a list's revision")?;
    let path = format!("{MAPS}?watch=1&resourceVersion={from}");
    let mut following = Vec::new();
    for _ in 0..WATCHERS {
        let mut connection = server.connect().await?;
        let (status, mut body) = connection.open(Method::GET, &path, Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "watch: {status}");
        following.push(server.tasks.spawn(async move {
            let mut seen = 0;
            while seen < writes {
                let frame = body.frame().await.context("the watch ended early")??;
                let data = frame.into_data().unwrap_or_default();
                seen += data.iter().filter(|byte| **byte == b'\n').count();
            }
            drop(connection);
            anyhow::Ok(seen)
        }));
    }
    let begun = Instant::now();
    measure(server.connections().await?, writes, Create(MAPS, usize::MAX)).await?;
    let mut told = 0;
    for watcher in futures::future::try_join_all(following).await? {
        told += watcher?;
    }
    let per_second = told as f64 / begun.elapsed().as_secs_f64();
    println!("{:<44} {per_second:>9.0} /s  (aim: 150,000 or more)", "API: events to 50 watchers");
    Ok(())
}

/// From nothing but files to an answer over TLS.
async fn starts(folder: &Path) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let (server, took) = Server::start(folder).await?;
        times.push(took.as_secs_f64() * 1e3);
        let _ = server.tasks.drain(Duration::from_secs(10)).await;
    }
    times.sort_by(f64::total_cmp);
    let what = "API: start to /readyz over TLS, with data";
    println!("{what:<44} {:>9.1} ms  (aim: under 100)", times[times.len() / 2]);
    Ok(())
}
