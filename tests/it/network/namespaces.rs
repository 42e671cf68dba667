//! Network namespaces that stand for a node, its Pods and the world outside; all gone when the test ends, however it
//! ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Whether such tests can run here: root and iptables. In CI they must.
pub fn available() -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if ![["iptables", "--version"], ["ip", "-V"], ["nft", "--version"]]
        .iter()
        .all(|command| tool(command))
    {
        "iptables, nft or ip is missing"
    } else {
        return true;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "network namespaces are needed in CI: {why}");
    // Past the test harness, which keeps what passing tests print.
    let name = thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "DID NOT RUN {name}: {why}");
    false
}

#[allow(clippy::disallowed_types)] // tests set the stage with the system's own tools
fn tool(command: &[&str]) -> bool {
    std::process::Command::new(command[0])
        .args(&command[1..])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs a command line and fails the test when it fails.
#[allow(clippy::disallowed_types)] // tests set the stage with the system's own tools
pub fn sh(line: &str) -> String {
    let output = std::process::Command::new("sh").args(["-c", line]).output().expect("sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `test` on a thread in a fresh network namespace of its own: the node. Threads and processes that it starts are
/// there too.
pub fn on_node(test: impl FnOnce() + Send + 'static) {
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A namespace connected to the node by a pair of interfaces.
pub struct Place {
    pub name: String,
    pub ip: Ipv4Addr,
}

impl Place {
    /// A Pod at `ip`, wired as the ptp plugin does: the node has the gateway's address and a route to the Pod.
    pub fn pod(ip: &str) -> Self {
        let (place, inside) = Self::wired(ip, "veth");
        let (name, host) = (&place.name, &inside);
        sh(&format!("ip addr add 10.42.0.1/32 dev {host} && ip route add {ip}/32 dev {host}"));
        sh(&format!(
            "ip -n {name} addr add {ip}/32 dev eth0 && ip -n {name} route add 10.42.0.1 dev eth0 scope link && \
             ip -n {name} route add default via 10.42.0.1"
        ));
        place
    }

    /// The world outside: the other machine on the network of the node's eth0, which gets `node_ip`/24.
    pub fn outside(ip: &str, node_ip: &str) -> Self {
        let (place, host) = Self::wired(ip, "out");
        sh(&format!("ip link set {host} down && ip link set {host} name eth0 && ip link set eth0 up"));
        sh(&format!("ip addr add {node_ip}/24 dev eth0 && ip route add default via {ip}"));
        sh(&format!("ip -n {} addr add {ip}/24 dev eth0", place.name));
        place
    }

    fn wired(ip: &str, kind: &str) -> (Self, String) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("minik-it-{}-{number}", std::process::id());
        let host = format!("{kind}{number}");
        sh(&format!("ip netns add {name}"));
        let place = Self { name, ip: ip.parse().expect("address") };
        let name = &place.name;
        sh(&format!("ip link add {host} type veth peer name eth0 netns {name} && ip link set {host} up"));
        sh(&format!("ip -n {name} link set lo up && ip -n {name} link set eth0 up"));
        (place, host)
    }

    /// Runs something on a thread in this namespace. Sockets made there stay there.
    pub fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let thread = thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("entered");
            act()
        });
        thread.join().expect("no panic inside")
    }

    /// Serves on `port` (TCP and UDP): every client is told who answered and whom it saw, `<ip> <client>`.
    pub fn serve(&self, port: u16) {
        let ip = self.ip;
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let (tcp, udp) =
            self.inside(move || (TcpListener::bind(any).expect("TCP"), UdpSocket::bind(any).expect("UDP")));
        thread::spawn(move || {
            for client in tcp.incoming() {
                let Ok(mut client) = client else { return };
                let Ok(peer) = client.peer_addr() else { continue };
                let _ = write!(client, "{ip} {}", peer.ip());
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{ip} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// What a server says to a client here.
    pub fn ask(&self, to: &str) -> Result<String, String> {
        let to = to.to_owned();
        self.inside(move || ask(&to))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        tool(&["ip", "netns", "del", &self.name]);
    }
}

/// What a server says to a client in the caller's namespace, or the kind of error.
pub fn ask(to: &str) -> Result<String, String> {
    let patience = Duration::from_secs(4);
    let kind = |error: std::io::Error| format!("{:?}", error.kind());
    let address: SocketAddr = to.parse().expect("address and port");
    let mut server = TcpStream::connect_timeout(&address, patience).map_err(kind)?;
    server.set_read_timeout(Some(patience)).map_err(kind)?;
    let mut said = String::new();
    server.read_to_string(&mut said).map_err(kind)?;
    Ok(said)
}

/// The same over UDP, from a socket that stays.
pub fn ask_udp(socket: &UdpSocket, to: &str) -> Result<String, String> {
    let kind = |error: std::io::Error| format!("{:?}", error.kind());
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(kind)?;
    socket.send_to(b"?", to).map_err(kind)?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).map_err(kind)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
