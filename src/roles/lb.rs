//! The load balancer: carries one host port into the cluster, over TCP or UDP.
//!
//! ```text
//! host port (published by Docker) -> listen -> one of the targets, in turn; the next one when it does not answer
//! targets: fixed nodes, or the addresses of the LoadBalancer Services that have this port (watched)
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use client::informer::Informers;
use client::{Identified, connect};
use config::LbConfig;
use rt::Tasks;

/// Open connections get this long to end after the stop signal.
const DRAIN: Duration = Duration::from_secs(1);
/// A target that does not answer within this is passed over.
const CONNECT: Duration = Duration::from_secs(3);
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
}

impl Targets {
    fn start(config: &LbConfig, tasks: &Tasks) -> anyhow::Result<Self> {
        let fixed = config.nodes.iter().map(|ip| SocketAddr::from((*ip, config.port))).collect();
        let (sender, addresses) = watch::channel(fixed);
        if config.nodes.is_empty() {
            follow_services(config, sender, tasks)?;
        }
        Ok(Self { addresses, turn: AtomicUsize::new(0) })
    }

    /// All targets, the one whose turn it is first.
    fn in_turn(&self) -> Vec<SocketAddr> {
        let mut list = self.addresses.borrow().clone();
        if !list.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
            list.rotate_left(turn);
        }
        list
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
                stop.run_until_cancelled(carry(client, &targets)).await;
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn fixed(list: Vec<SocketAddr>) -> Arc<Targets> {
        let (_, addresses) = watch::channel(list);
        Arc::new(Targets { addresses, turn: AtomicUsize::new(0) })
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
