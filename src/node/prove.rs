//! Proof that this node's network does what Pods need of it: a name is resolved and a Service answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::net::TcpStream;
use tokio::sync::watch;

use rt::Backoff;

const RETRY: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_secs(2) };
/// How long one name or one connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What did not work.
#[derive(Debug, thiserror::Error)]
enum Unproven {
    #[error("{name} was not resolved at {server}: {source}")]
    Lookup { name: String, server: Ipv4Addr, source: NetError },
    #[error("{name} has no address at {server}")]
    NoAddress { name: String, server: Ipv4Addr },
    #[error("no connection to {to}: {source}")]
    Connect { to: SocketAddr, source: std::io::Error },
}

/// Returns once `kubernetes.default.svc.<domain>` has been resolved at `dns_ip` and a connection to its ClusterIP,
/// port 443, has been made through the Service rules. Until then it tries again after every change of rules
/// (`applied`), and with a back-off in between.
pub async fn prove(dns_ip: Ipv4Addr, cluster_domain: &str, mut applied: watch::Receiver<u64>) {
    let mut failures = 0;
    loop {
        applied.borrow_and_update();
        match attempt(dns_ip, cluster_domain).await {
            Ok(()) => return,
            Err(error) => tracing::info!(%error, failures, "network not proven yet"),
        }
        failures += 1;
        tokio::select! {
            Ok(()) = applied.changed() => {}
            () = tokio::time::sleep(RETRY.delay(failures)) => {}
        }
    }
}

async fn attempt(dns_ip: Ipv4Addr, cluster_domain: &str) -> Result<(), Unproven> {
    let name = format!("kubernetes.default.svc.{}.", cluster_domain.trim_end_matches('.'));
    let lookup = |source| Unproven::Lookup { name: name.clone(), server: dns_ip, source };
    let server = NameServerConfig::udp(IpAddr::V4(dns_ip));
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = PATIENCE;
    options.attempts = 1;
    let resolver = builder.build().map_err(lookup)?;
    let found = resolver.ipv4_lookup(name.as_str()).await.map_err(lookup)?;
    let ip = found.answers().iter().find_map(|record| match record.data {
        RData::A(ip) => Some(ip.0),
        _ => None,
    });
    let Some(ip) = ip else { return Err(Unproven::NoAddress { name, server: dns_ip }) };

    let to = SocketAddr::new(IpAddr::V4(ip), 443);
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected.map(drop).map_err(|source| Unproven::Connect { to, source })
}
