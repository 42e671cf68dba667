//! Names outside the cluster: asked of the servers that the node itself uses, with a small cache.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::read_system_conf;
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, Record, RecordType};

/// Answers that are kept: enough for a node's Pods, little enough for an idle agent.
const CACHE_ENTRIES: u64 = 1024;
const TIMEOUT: Duration = Duration::from_secs(2);

/// The node's own resolver configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("upstream name servers: {0}")]
pub struct UpstreamError(#[from] NetError);

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authority: Option<Record>,
}

impl Reply {
    fn failed(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authority: None }
    }
}

/// The servers to ask, if there are any.
#[derive(Clone)]
pub struct Upstream {
    resolver: Option<TokioResolver>,
}

impl Upstream {
    /// The servers of /etc/resolv.conf, except `own`: asking ourselves would go in circles.
    pub fn of_node(own: IpAddr) -> Result<Self, UpstreamError> {
        let (config, _) = read_system_conf()?;
        let (_, _, servers) = config.into_parts();
        let others = servers.into_iter().filter(|server| server.ip != own).collect();
        Self::servers(ResolverConfig::from_name_servers(others))
    }

    /// No servers: names outside the cluster cannot be resolved.
    pub fn none() -> Self {
        Self { resolver: None }
    }

    /// Exactly these servers.
    pub fn servers(config: ResolverConfig) -> Result<Self, UpstreamError> {
        if config.name_servers().is_empty() {
            return Ok(Self::none());
        }
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ndots = 0;
        options.attempts = 2;
        options.timeout = TIMEOUT;
        options.cache_size = CACHE_ENTRIES;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.edns0 = true;
        Ok(Self { resolver: Some(builder.build()?) })
    }

    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        let Some(resolver) = &self.resolver else { return Reply::failed(ResponseCode::ServFail) };
        let mut name = name.clone();
        name.set_fqdn(true);
        match resolver.lookup(name.clone(), kind).await {
            Ok(found) => {
                Reply { code: ResponseCode::NoError, answers: found.answers().to_vec(), authority: None }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Reply {
                code: none.response_code,
                answers: Vec::new(),
                authority: none.soa.map(|soa| soa.into_record_of_rdata()),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Reply::failed(code),
            Err(error) => {
                tracing::debug!(%name, %kind, %error, "upstream lookup failed");
                Reply::failed(ResponseCode::ServFail)
            }
        }
    }
}
