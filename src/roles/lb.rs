//! The load balancer: carries one host port into the cluster, over TCP or UDP.
//!
//! ```text
//! host port (published by Docker) -> listen -> one of the targets, in turn; the next one when it does not answer
//! targets: fixed nodes, or the addresses of the LoadBalancer Services that have this port (watched), or the cluster's servers
//! ```
//!
//! What goes to servers is TLS: the client speaks first, and a server that says nothing to that is as good as gone. The same first
//! words are said to the next one then, and whoever answers first has the client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Service;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use client::informer::Informers;
use client::{Identified, connect};
use config::{LbConfig, Servers};
use rt::{Stop, Tasks};

/// Open connections get this long to end after the stop signal.
const DRAIN: Duration = Duration::from_secs(1);
/// A target that does not answer within this is passed over.
const CONNECT: Duration = Duration::from_secs(3);
/// When a server has said nothing for so long to a client's first words, the next one is asked as well.
const NEXT: Duration = Duration::from_millis(150);
/// One that says nothing for so long is gone: it is asked last for a while.
const SILENT: Duration = Duration::from_secs(3);
const SHUNNED: Duration = Duration::from_secs(10);
/// The most that a client says first: a TLS record.
const FIRST_WORDS: usize = 16 * 1024 + 5;
/// A UDP client that was silent for so long is forgotten, as connection tracking does.
const UDP_IDLE: Duration = Duration::from_secs(60);
/// The largest UDP datagram.
const DATAGRAM: usize = 65_535;

/// Runs until the process is told to stop.
pub async fn run(config: LbConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tasks = Tasks::new();
    let targets = Arc::new(Targets::start(&config, &tasks)?);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.port));
    if config.udp {
        let socket = UdpSocket::bind(address).await.context("binding the port")?;
        serve_udp(Arc::new(socket), targets, &tasks);
    } else {
        let listener = TcpListener::bind(address).await.context("binding the port")?;
        serve_tcp(listener, targets, &tasks);
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Connections that outlast the bound are cut: the port is being taken away.
    let _ = tasks.drain(DRAIN).await;
    Ok(())
}

/// Where connections go to, and whose turn it is.
struct Targets {
    addresses: watch::Receiver<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// The targets are servers, on this port, as the file says that may change at any time.
    servers: Option<u16>,
    /// Which of them did not answer, and when; and what ends the connections that they have.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
    open: Mutex<HashMap<SocketAddr, Stop>>,
}

impl Targets {
    fn start(config: &LbConfig, tasks: &Tasks) -> anyhow::Result<Self> {
        let fixed = config.nodes.iter().map(|ip| SocketAddr::from((*ip, config.port))).collect();
        let (sender, addresses) = watch::channel(fixed);
        if config.nodes.is_empty() && !config.servers {
            follow_services(config, sender, tasks)?;
        }
        Ok(Self { servers: config.servers.then_some(config.port), ..Self::of(addresses) })
    }

    fn of(addresses: watch::Receiver<Vec<SocketAddr>>) -> Self {
        let (silent, open) = Default::default();
        Self { addresses, turn: AtomicUsize::new(0), servers: None, silent, open }
    }

    /// All targets, the one whose turn it is first, and those last that were silent a moment ago.
    fn in_turn(&self) -> Vec<SocketAddr> {
        let mut list = match self.servers {
            Some(port) => {
                let servers = Servers::read().unwrap_or_default().0;
                servers.into_iter().map(|server| SocketAddr::from((server.ip, port))).collect()
            }
            None => self.addresses.borrow().clone(),
        };
        if !list.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
            list.rotate_left(turn);
        }
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, since| since.elapsed() < SHUNNED);
        list.sort_by_key(|target| silent.contains_key(target));
        list
    }

    /// A server does not answer. What it had of connections ends, too: nobody need wait for it.
    fn gone(&self, target: SocketAddr) {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(target, Instant::now());
        if let Some(open) = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&target) {
            tracing::info!(%target, "a server does not answer");
            open.cancel();
        }
    }

    /// What ends a new connection to a server when that is found not to answer.
    fn opened(&self, target: SocketAddr) -> Stop {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(target).or_default().clone()
    }
}

/// Keeps the targets equal to the addresses of the Services that have the port.
fn follow_services(
    config: &LbConfig,
    targets: watch::Sender<Vec<SocketAddr>>,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let dir = Path::new(LbConfig::IDENTITY_DIR);
    let read = |name: &str| {
        std::fs::read_to_string(dir.join(name))
            .with_context(|| format!("reading {}", dir.join(name).display()))
    };
    let (ca, certificate, key) = (read("ca.crt")?, read("lb.crt")?, read("lb.key")?);
    let client =
        connect(&Identified { server: &config.server, ca: &ca, certificate: &certificate, key: &key })?;
    let (port, protocol) = (config.port, if config.udp { "UDP" } else { "TCP" });
    let services = Informers::new(client, tasks).cache::<Service>();
    let known = services.clone();
    services.on_change(move |_| {
        let services = known.list();
        let mut all: Vec<SocketAddr> =
            services.iter().flat_map(|service| addresses(service, port, protocol)).collect();
        all.sort_unstable();
        all.dedup();
        targets.send_if_modified(|old| {
            let changed = *old != all;
            *old = all;
            changed
        });
    });
    Ok(())
}

/// The external addresses of a LoadBalancer Service, if it has this port.
fn addresses(service: &Service, port: u16, protocol: &str) -> Vec<SocketAddr> {
    let spec = service.spec.as_ref();
    let has_port =
        spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().any(|there| {
            there.port == i32::from(port) && there.protocol.as_deref().unwrap_or("TCP") == protocol
        });
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ips = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ips.filter(|_| has_port)
        .filter_map(|ingress| ingress.ip.as_ref()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

fn serve_tcp(listener: TcpListener, targets: Arc<Targets>, tasks: &Tasks) {
    let stop = tasks.stop();
    let spawner = tasks.clone();
    tasks.spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((client, _)) = accepted else {
                // Out of descriptors: those that end make room.
                tokio::task::yield_now().await;
                continue;
            };
            let (targets, stop) = (targets.clone(), stop.clone());
            spawner.spawn(async move {
                let carrying = async {
                    match targets.servers {
                        Some(_) => carry_to_server(client, &targets).await,
                        None => carry(client, &targets).await,
                    }
                };
                stop.run_until_cancelled(carrying).await;
            });
        }
    });
}

/// Carries one connection; where no target answers it is closed.
async fn carry(mut client: TcpStream, targets: &Targets) {
    for target in targets.in_turn() {
        let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, TcpStream::connect(target)).await else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // An end that breaks off ends the other one as well.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    tracing::debug!("no target answers");
}

/// Carries one connection to a server that answers: the next one is asked as well when one takes its time.
async fn carry_to_server(mut client: TcpStream, targets: &Targets) {
    let Ok(words) = first_words(&mut client).await else { return };
    let words = &words;
    let mut asking = FuturesUnordered::new();
    let mut left = targets.in_turn().into_iter();
    let (target, mut server, answer) = loop {
        if let Some(target) = left.next() {
            asking.push(async move { (target, tokio::time::timeout(SILENT, ask(target, words)).await) });
        } else if asking.is_empty() {
            return tracing::debug!("no server answers");
        }
        let patience = if left.len() > 0 { NEXT } else { SILENT };
        match tokio::time::timeout(patience, asking.next()).await {
            Ok(Some((target, Ok(Ok((server, answer)))))) => break (target, server, answer),
            Ok(Some((target, _))) => targets.gone(target),
            Ok(None) | Err(_) => {}
        }
    };
    let _ = client.set_nodelay(true);
    let carried = async {
        client.write_all(&answer).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    // Those that were asked and have not answered: found to be gone, or only slow.
    let others = async {
        while let Some((target, outcome)) = asking.next().await {
            if !matches!(outcome, Ok(Ok(_))) {
                targets.gone(target);
            }
        }
    };
    let stop = targets.opened(target);
    // Whatever ends it, there is nobody to tell.
    let _ = tokio::join!(stop.run_until_cancelled(carried), others);
}

/// The first record of TLS that a client sends, whole: a server answers nothing to a part of it. What is no TLS is taken as it comes.
async fn first_words(client: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    const HANDSHAKE: u8 = 22;
    let mut words = Vec::with_capacity(FIRST_WORDS);
    loop {
        if client.read_buf(&mut words).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let whole = match words.as_slice() {
            [HANDSHAKE, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
            [HANDSHAKE, ..] => 5,
            _ => 0,
        };
        if words.len() >= whole.min(FIRST_WORDS) {
            return Ok(words);
        }
    }
}

/// Says a client's first words to a server; returns the connection and what it answered. One that hangs up has not answered.
async fn ask(target: SocketAddr, words: &[u8]) -> std::io::Result<(TcpStream, Vec<u8>)> {
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    server.write_all(words).await?;
    let mut answer = vec![0; FIRST_WORDS];
    match server.read(&mut answer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        length => {
            answer.truncate(length);
            Ok((server, answer))
        }
    }
}

/// Each client keeps a socket of its own towards one target, so that answers find their way back.
fn serve_udp(socket: Arc<UdpSocket>, targets: Arc<Targets>, tasks: &Tasks) {
    let stop = tasks.stop();
    let spawner = tasks.clone();
    tasks.spawn(async move {
        let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut buffer = vec![0; DATAGRAM];
        while let Some(received) = stop.run_until_cancelled(socket.recv_from(&mut buffer)).await {
            let Ok((length, client)) = received else { continue };
            let datagram = buffer[..length].to_vec();
            flows.retain(|_, flow| !flow.is_closed());
            let flow = flows.entry(client).or_insert_with(|| {
                let (sender, receiver) = mpsc::channel(64);
                let (socket, targets, stop) = (socket.clone(), targets.clone(), stop.clone());
                spawner.spawn(async move {
                    stop.run_until_cancelled(carry_flow(socket, client, &targets, receiver)).await;
                });
                sender
            });
            // Datagrams may get lost; a full queue loses the newest.
            let _ = flow.try_send(datagram);
        }
    });
}

async fn carry_flow(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    targets: &Targets,
    mut from_client: mpsc::Receiver<Vec<u8>>,
) {
    let Some(target) = targets.in_turn().into_iter().next() else { return };
    let Ok(server) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return };
    if server.connect(target).await.is_err() {
        return;
    }
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let step = async {
            tokio::select! {
                datagram = from_client.recv() => server.send(&datagram?).await.ok().map(drop),
                answer = server.recv(&mut buffer) => socket.send_to(&buffer[..answer.ok()?], client).await.ok().map(drop),
            }
        };
        if !matches!(tokio::time::timeout(UDP_IDLE, step).await, Ok(Some(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(list: Vec<SocketAddr>) -> Arc<Targets> {
        let (_, addresses) = watch::channel(list);
        Arc::new(Targets::of(addresses))
    }

    #[test]
    fn only_services_with_the_port_are_targets() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "x"}]}},
        }))
        .expect("a Service");
        let list = |port, protocol| {
            addresses(&service, port, protocol).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list(80, "TCP"), ["10.0.0.1:80"]);
        assert_eq!(list(53, "UDP"), ["10.0.0.1:53"]);
        assert!(list(80, "UDP").is_empty() && list(81, "TCP").is_empty());
    }

    #[tokio::test]
    async fn a_target_that_is_gone_is_passed_over() {
        let tasks = Tasks::new();
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
        let there = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let targets = fixed(vec![gone, there.local_addr().expect("an address")]);
        let front = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = front.local_addr().expect("an address");
        serve_tcp(front, targets, &tasks);
        let echo = async {
            let (mut connection, _) = there.accept().await.expect("a connection");
            let mut text = [0; 4];
            connection.read_exact(&mut text).await.expect("read");
            connection.write_all(&text).await.expect("written");
        };
        let ask = async {
            let mut connection = TcpStream::connect(address).await.expect("connected");
            connection.write_all(b"ping").await.expect("written");
            let mut text = [0; 4];
            connection.read_exact(&mut text).await.expect("read");
            assert_eq!(&text, b"ping");
        };
        futures::join!(echo, ask);
        tasks.drain(Duration::from_secs(5)).await.expect("ended");
    }

    #[tokio::test]
    async fn a_handshake_is_passed_on_whole() {
        let hello = [&[22, 3, 1, 0, 4][..], b"abcd"].concat();
        let check = async |parts: &[&[u8]], expect: Option<&[u8]>| {
            let (mut client, mut end) = tokio::io::duplex(64);
            let send = async {
                for part in parts {
                    client.write_all(part).await.expect("written");
                    tokio::task::yield_now().await;
                }
                drop(client);
            };
            let (words, ()) = futures::join!(first_words(&mut end), send);
            assert_eq!(words.ok().as_deref(), expect, "{parts:?}");
        };
        check(&[&hello[..]], Some(&hello[..])).await;
        check(&[&hello[..2], &hello[2..7], &hello[7..]], Some(&hello[..])).await;
        check(&[&hello[..7]], None).await;
        check(&[b"GET / HTTP/1.1"], Some(b"GET / HTTP/1.1")).await;
        check(&[], None).await;
    }

    /// Echoes what it is told on every connection.
    async fn echo(listener: TcpListener) {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut text = [0; 4];
            if connection.read_exact(&mut text).await.is_ok() {
                connection.write_all(&text).await.expect("written");
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_passed_over() {
        let tasks = Tasks::new();
        // Connections are taken by the kernel; nobody reads them, as in a container that is paused.
        let paused = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let there = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let list = [&paused, &there].map(|listener| listener.local_addr().expect("an address"));
        tasks.spawn_until_stop(echo(there));
        let (_sender, addresses) = watch::channel(list.to_vec());
        // The port is for servers of the file, of which there is none here: the list is asked.
        let targets = Arc::new(Targets::of(addresses));
        let front = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = front.local_addr().expect("an address");
        let carrying = targets.clone();
        tasks.spawn_until_stop(async move {
            while let Ok((client, _)) = front.accept().await {
                carry_to_server(client, &carrying).await;
            }
        });
        for _ in 0..2 {
            let mut connection = TcpStream::connect(address).await.expect("connected");
            connection.write_all(b"ping").await.expect("written");
            let mut text = [0; 4];
            connection.read_exact(&mut text).await.expect("answered");
            assert_eq!(&text, b"ping");
        }
        assert_eq!(targets.in_turn()[0], list[1], "the silent one is asked last");
        tasks.drain(Duration::from_secs(5)).await.expect("ended");
    }

    #[tokio::test]
    async fn datagrams_find_their_way_back() {
        let tasks = Tasks::new();
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let front = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = front.local_addr().expect("an address");
        serve_udp(Arc::new(front), fixed(vec![server.local_addr().expect("an address")]), &tasks);
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        client.send_to(b"ping", address).await.expect("sent");
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).await.expect("received");
        server.send_to(&buffer[..length], from).await.expect("sent");
        let (length, from) = client.recv_from(&mut buffer).await.expect("received");
        assert_eq!((&buffer[..length], from), (&b"ping"[..], address));
        tasks.drain(Duration::from_secs(5)).await.expect("ended");
    }
}
