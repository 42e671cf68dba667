//! Requests through the Ingress proxy against Debian's nginx as a proxy, in pairs, both before one more nginx.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minik::edge::ingress::ports;
use minik::edge::proxy::{Certificates, Forwarder, Found, Names, Services, serve, stand_in};
use minik::edge::secrets::Look;
use minik::rt::Tasks;
use serde_json::json;
use tokio::sync::watch;

const ROUNDS: usize = 5;
const CONNECTIONS: &str = "32";

pub fn all() -> Result<()> {
    if !super::has("wrk") || !super::has("nginx") || !super::has("openssl") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let nginx = Nginx::start(folder.path())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let tasks = Tasks::new();
    let ours = runtime.block_on(ours(nginx.backend, &tasks))?;
    for (scheme, ours, theirs) in [("http", ours[0], nginx.proxy), ("https", ours[1], nginx.encrypted)] {
        let (mut rates, mut tails) = (Vec::new(), Vec::new());
        let mut last = [(0.0, 0.0); 2];
        for _ in 0..ROUNDS {
            last = [wrk(scheme, ours)?, wrk(scheme, theirs)?];
            rates.push(last[0].0 / last[1].0);
            tails.push(last[0].1 / last[1].1);
        }
        rates.sort_by(f64::total_cmp);
        tails.sort_by(f64::total_cmp);
        let middle = ROUNDS / 2;
        println!(
            "{scheme}: requests/s {:.2} of nginx's, p99 {:.2} of nginx's (goals: at least 1, at most 1); last {:.0}/s, \
             p99 {:.2} ms against {:.0}/s, {:.2} ms",
            rates[middle], tails[middle], last[0].0, last[0].1, last[1].0, last[1].1
        );
    }
    let _ = runtime.block_on(tasks.drain(Duration::from_secs(5)));
    Ok(())
}

/// The proxy's two ports.
async fn ours(backend: SocketAddr, tasks: &Tasks) -> Result<[SocketAddr; 2]> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let class = json!({ "metadata": { "name": "minik" }, "spec": { "controller": "minik.dev/ingress" } });
    let service = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let ingress = json!({ "metadata": { "name": "i", "namespace": "shop" },
        "spec": { "ingressClassName": "minik", "defaultBackend": service } });
    let certificates = Certificates { stand_in: Some(stand_in()?), ..Certificates::default() };
    let (ingress, class) =
        (Arc::new(serde_json::from_value(ingress)?), Arc::new(serde_json::from_value(class)?));
    let served = ports(&[ingress], &[class], &mut Look::default(), certificates);
    let (changed, changes) = watch::channel(0);
    let find = move |_: &_| Some(Found { endpoints: vec![backend], ..Found::default() });
    let forwarder = Arc::new(Forwarder::new(Services::new(find, changes), Names::none(), tasks.clone()));
    let mut addresses = Vec::new();
    for port in [served.http, served.https] {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        addresses.push(listener.local_addr()?);
        let (replace, port) = watch::channel(port);
        let (forwarder, own) = (forwarder.clone(), tasks.clone());
        tasks.spawn_until_stop(async move {
            serve(listener, port, forwarder, &own).await;
            drop(replace);
        });
    }
    tasks.spawn_until_stop(async move { changed.closed().await });
    addresses.try_into().map_err(|_| anyhow::anyhow!("two ports"))
}

/// Debian's nginx: what answers, and a proxy before it.
struct Nginx {
    child: Child,
    backend: SocketAddr,
    proxy: SocketAddr,
    encrypted: SocketAddr,
}

impl Nginx {
    fn start(folder: &std::path::Path) -> Result<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let (backend, proxy, encrypted) = (free()?, free()?, free()?);
        let at = |name: &str| folder.join(name).display().to_string();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=bench", "-keyout", &at("key.pem"), "-out", &at("cert.pem")])
            .output()?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        let text = format!(
            "worker_processes auto;\ndaemon off;\npid {pid};\nerror_log {log};\nevents {{ worker_connections 4096; }}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {tmp};\nproxy_temp_path {tmp};\nfastcgi_temp_path {tmp};\nuwsgi_temp_path \
             {tmp};\nscgi_temp_path {tmp};\nserver {{ listen {backend}; location / {{ return 200 'hello\\n'; }} }}\nserver {{ \
             listen {proxy}; listen {encrypted} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; location / {{ \
             proxy_pass http://{backend}; }} }}\n}}\n",
            pid = at("pid"),
            log = at("error.log"),
            tmp = at("tmp"),
            cert = at("cert.pem"),
            key = at("key.pem"),
        );
        std::fs::write(at("nginx.conf"), text)?;
        let arguments = ["-c", &at("nginx.conf"), "-e", &at("error.log")];
        let child = Command::new("nginx").args(arguments).stdout(Stdio::null()).spawn().context("nginx")?;
        let nginx = Self { child, backend, proxy, encrypted };
        let bound = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(encrypted).is_err() {
            let log = std::fs::read_to_string(at("error.log")).unwrap_or_default();
            ensure!(Instant::now() < bound, "nginx does not answer: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it when it is asked to end.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// Requests per second, and the 99th percentile in milliseconds.
fn wrk(scheme: &str, at: SocketAddr) -> Result<(f64, f64)> {
    let url = format!("{scheme}://{at}/");
    let output = Command::new("wrk").args(["-t2", "-c", CONNECTIONS, "-d3s", "--latency", &url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "wrk: {text}");
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let rate = after("Requests/sec:").and_then(|rate| rate.parse().ok()).with_context(|| text.clone())?;
    let tail = after("99%").and_then(millis).with_context(|| text.clone())?;
    Ok((rate, tail))
}

/// `1.23ms`, `456.00us`, `1.20s`.
fn millis(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..unit].parse().ok()?;
    Some(match &text[unit..] {
        "us" => value / 1e3,
        "ms" => value,
        "s" => value * 1e3,
        _ => return None,
    })
}
