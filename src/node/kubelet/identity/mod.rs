//! Who this node is to the cluster: how it joins, what certificates it holds, and how it renews them.
//!
//! ```text
//! no certificate --bootstrap token, authority pinned by hash--> CSR --approved, signed--> joined
//! joined --registered--> serving CSR --signed--> serving
//! joined, serving --after 80 % of the lifetime--> new key, new CSR, swapped in place
//! ```

mod request;
mod transport;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use config::NodeConfig;
use pki::{CertificateInfo, Key, PkiError, files};
use rt::{Backoff, Tasks};

pub use request::Purpose;
pub use transport::Held;

/// Why this node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the API server at {server} showed no certificate authority with the hash {expected}")]
    Authority { server: String, expected: String },
    #[error("cannot reach the API server at {server}: {source}")]
    Connect { server: String, source: std::io::Error },
    #[error(transparent)]
    Api(#[from] Box<kube::Error>),
    #[error("waiting for the certificate: {0}")]
    Wait(#[from] kube::runtime::wait::Error),
    #[error("the certificate request was refused: {0}")]
    Refused(String),
    #[error("the certificate request is gone")]
    Gone,
}

impl IdentityError {
    /// Whether the API server knows nobody by what was shown to it.
    fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(error.as_ref(), kube::Error::Api(status) if status.code == 401))
    }
}

impl From<kube::Error> for IdentityError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// This node's identity: a client of the API server and the certificates behind it. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    node: String,
    user: String,
    dir: PathBuf,
    /// The cluster's authority, PEM.
    authority: String,
    client_key: Arc<Held>,
    serving_key: Arc<Held>,
    client: Client,
}

const RETRY: Backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_secs(10) };

/// Joins the cluster, or comes back with the identity from the last run. Keeps trying while the API server is away;
/// ends with an error only when the cluster is the wrong one or refuses.
pub async fn join(config: &NodeConfig, tasks: &Tasks) -> Result<Identity, IdentityError> {
    let dir = Path::new(NodeConfig::STATE_DIR).join("node");
    let mut failures = 0;
    let identity = loop {
        match try_join(config, &dir).await {
            Ok(identity) => break identity,
            Err(error @ (IdentityError::Authority { .. } | IdentityError::Refused(_))) => return Err(error),
            Err(error) => {
                failures += 1;
                match error.is_unauthorized() {
                    true => tracing::warn!(
                        "the join token of this node is not good, or no longer: remove the node from the cluster \
                         (minik node delete) and add another (minik node add)"
                    ),
                    false => tracing::info!(%error, "not joined yet"),
                }
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    };
    let renewing = identity.clone();
    tasks.spawn_until_stop(async move { renewing.renew(Purpose::Client).await });
    Ok(identity)
}

async fn try_join(config: &NodeConfig, dir: &Path) -> Result<Identity, IdentityError> {
    let authority = authority(config, dir).await?;
    let user = format!("system:node:{}", config.node);
    let servers = transport::ServerList::of(config);
    let client_key = Arc::new(Held::default());
    let client =
        transport::client(&servers, &authority, transport::Credentials::Certificate(client_key.clone()))?;
    let shared = Shared {
        node: config.node.clone(),
        user,
        dir: dir.to_owned(),
        authority: authority.clone(),
        client_key,
        serving_key: Arc::default(),
        client,
    };
    let identity = Identity { shared: Arc::new(shared) };
    let handed = Path::new(NodeConfig::JOIN_TOKEN);
    if !identity.reuse(Purpose::Client)? {
        let token = files::read_if_there(handed)?.unwrap_or_else(|| config.token.clone());
        let bootstrap = transport::client(&servers, &authority, transport::Credentials::Token(token))?;
        identity.obtain(&bootstrap, Purpose::Client, &[]).await?;
    }
    // It has served its purpose, or was never needed.
    match fs::remove_file(handed) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(PkiError::File { path: handed.to_owned(), source }.into())
        }
        _ => Ok(identity),
    }
}

/// The cluster's authority: from an earlier run, from the server's own files, or from the server itself, in every
/// case only if its public key has the hash this node was told.
async fn authority(config: &NodeConfig, dir: &Path) -> Result<String, IdentityError> {
    let kept = dir.join("ca.crt");
    for path in [kept.clone(), Path::new(NodeConfig::PKI_DIR).join("ca.crt")] {
        if let Some(pem) = files::read_if_there(&path)?
            && pki::spki_hash_of_pem(&pem)? == config.ca_hash
        {
            return Ok(pem);
        }
    }
    let pem = transport::discover_authority(config).await?;
    make_dir(dir)?;
    files::write_public(&kept, &pem)?;
    Ok(pem)
}

fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.to_owned(), source })
}

impl Identity {
    /// A client of the API server that acts as this node; renewed certificates reach it without a new client.
    pub fn client(&self) -> Client {
        self.shared.client.clone()
    }

    /// The cluster's authority, PEM: who shows a certificate of it may ask this node's kubelet.
    pub fn authority(&self) -> &str {
        &self.shared.authority
    }

    /// The certificate the kubelet's own server shows; empty until [`Identity::serve`] has obtained one.
    pub fn serving(&self) -> Arc<Held> {
        self.shared.serving_key.clone()
    }

    /// Obtains (or reuses) the serving certificate for `hosts` and keeps renewing it. The Node object must say these
    /// addresses already: the signer compares.
    pub async fn serve(&self, hosts: &[String], tasks: &Tasks) -> Result<(), IdentityError> {
        let mut failures = 0;
        let reused = self.reuse(Purpose::Serving)?;
        // A cluster that was made from a snapshot has other addresses than the one that its nodes' certificates are of.
        let vouched = self.held(Purpose::Serving).hosts();
        if !reused || hosts.iter().any(|host| !vouched.contains(host)) {
            while let Err(error) = self.obtain(&self.client(), Purpose::Serving, hosts).await {
                failures += 1;
                tracing::warn!(%error, "no serving certificate yet");
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
        let renewing = self.clone();
        tasks.spawn_until_stop(async move { renewing.renew(Purpose::Serving).await });
        Ok(())
    }

    fn held(&self, purpose: Purpose) -> &Held {
        match purpose {
            Purpose::Client => &self.shared.client_key,
            Purpose::Serving => &self.shared.serving_key,
        }
    }

    fn files(&self, purpose: Purpose) -> (PathBuf, PathBuf) {
        let name = purpose.file_name();
        (self.shared.dir.join(format!("{name}.crt")), self.shared.dir.join(format!("{name}.key")))
    }

    /// Takes up what an earlier run left, if it is still good for a while.
    fn reuse(&self, purpose: Purpose) -> Result<bool, IdentityError> {
        let (certificate, key) = self.files(purpose);
        let (Some(certificate), Some(key)) =
            (files::read_if_there(&certificate)?, files::read_if_there(&key)?)
        else {
            return Ok(false);
        };
        let info = CertificateInfo::from_pem(&certificate)?;
        let left = info.not_after - Timestamp::now().as_second();
        if info.common_name != self.shared.user || left < 600 {
            return Ok(false);
        }
        self.held(purpose).set(certified(&certificate, &key)?, info.not_after);
        Ok(true)
    }

    async fn obtain(&self, client: &Client, purpose: Purpose, hosts: &[String]) -> Result<(), IdentityError> {
        let key = Key::generate()?;
        let csr = key.request(&self.shared.user, Some("system:nodes"), hosts)?;
        let certificate = request::sign(client, &self.shared.node, purpose, &csr).await?;
        let (certificate_path, key_path) = self.files(purpose);
        make_dir(&self.shared.dir)?;
        files::write_private(&key_path, &key.pem())?;
        files::write_public(&certificate_path, &certificate)?;
        let info = CertificateInfo::from_pem(&certificate)?;
        self.held(purpose).set(certified(&certificate, &key.pem())?, info.not_after);
        tracing::info!(?purpose, "obtained a certificate");
        Ok(())
    }

    /// Renews when four fifths of what was left at the last look have passed, for as long as the node lives.
    async fn renew(&self, purpose: Purpose) {
        let mut failures = 0;
        loop {
            let left = self.held(purpose).not_after() - Timestamp::now().as_second();
            let due = Duration::from_secs(u64::try_from(left * 4 / 5).unwrap_or(0));
            tokio::time::sleep(due.max(RETRY.delay(failures))).await;
            let hosts = self.held(purpose).hosts();
            failures = match self.obtain(&self.client(), purpose, &hosts).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::warn!(%error, ?purpose, "the certificate is not renewed yet");
                    failures + 1
                }
            };
        }
    }
}

/// Certificate chain and key, ready for TLS.
fn certified(certificates: &str, key: &str) -> Result<Arc<CertifiedKey>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(certificates.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::Certificate(error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| PkiError::Key(error.to_string()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
