use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::docker::Docker;
use super::{Access, ClusterError};

/// Pause between two attempts to reach an API server that is starting: nothing tells the host when it listens.
const RETRY: Duration = Duration::from_millis(15);
/// How many of a container's last lines an error shows.
const LOG_LINES: usize = 20;

/// A client with the administrator's identity. Fails when the access that was read is unusable.
pub fn client(access: &Access) -> Result<Client, ClusterError> {
    let fail = |error: &dyn std::fmt::Display| ClusterError::Client(error.to_string());
    let url: http::Uri = access.server.parse().map_err(|error: http::uri::InvalidUri| fail(&error))?;
    let mut config = kube::Config::new(url);
    let ca = pem_to_der(&access.ca).ok_or_else(|| fail(&"the authority's certificate is unreadable"))?;
    config.root_cert = Some(vec![ca]);
    config.auth_info.client_certificate_data = Some(STANDARD.encode(&access.certificate));
    config.auth_info.client_key_data = Some(STANDARD.encode(&access.key).into());
    // The host's proxy settings are not for a port of this machine.
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| fail(&error))
}

fn pem_to_der(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

/// Waits until the API server answers that it is ready.
pub(super) async fn api_ready(client: &Client) -> Result<(), ClusterError> {
    loop {
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .map_err(|error| ClusterError::Client(error.to_string()))?;
        match tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => tracing::debug!(%error, "API server not ready yet"),
            Err(_) => tracing::debug!("API server did not answer in time"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What is known about the nodes that are waited for: `None`, or why not Ready.
#[derive(Debug)]
pub(super) struct Readiness(BTreeMap<String, Option<String>>);

impl Readiness {
    pub(super) fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| (name, Some("has not registered".to_owned()))).collect())
    }

    /// Takes a node's state in; answers whether the node became Ready by it.
    fn observe(&mut self, node: &Node) -> bool {
        let Some(state) = node.metadata.name.as_ref().and_then(|name| self.0.get_mut(name)) else {
            return false;
        };
        let was = state.is_none();
        *state = why_not_ready(node);
        !was && state.is_none()
    }

    fn ready(&self) -> usize {
        self.0.values().filter(|why| why.is_none()).count()
    }

    fn all(&self) -> bool {
        self.ready() == self.0.len()
    }

    /// The nodes that are not Ready, and why.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, why)| Some((name.as_str(), why.as_deref()?)))
    }
}

/// A node is Ready when it says so: its own DNS lookup and Service connection are part of that.
fn why_not_ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready {
        None => Some("has no Ready condition".to_owned()),
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(match (&ready.reason, &ready.message) {
            (_, Some(message)) => message.clone(),
            (Some(reason), None) => reason.clone(),
            (None, None) => "is not Ready".to_owned(),
        }),
    }
}

/// Waits, by one watch, until all nodes are Ready.
pub(super) async fn nodes_ready(
    client: &Client,
    readiness: &mut Readiness,
    report: impl Fn(&str),
) -> Result<(), ClusterError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut changes = watcher(nodes, watcher::Config::default()).default_backoff().applied_objects().boxed();
    let total = readiness.0.len();
    loop {
        match changes.try_next().await {
            Ok(Some(node)) => {
                if readiness.observe(&node) {
                    report(&format!("{} of {total} nodes Ready", readiness.ready()));
                }
                if readiness.all() {
                    return Ok(());
                }
            }
            Ok(None) => return Err(ClusterError::Client("the watch on nodes ended".to_owned())),
            // The watcher tries again by itself; what persists runs into the bound of the phase.
            Err(error) => tracing::debug!(%error, "watching nodes"),
        }
    }
}

/// Ends only with an error: when a container of the cluster dies, or the engine stops telling.
pub(super) async fn any_death(docker: &Docker, cluster: &str, since: Timestamp) -> ClusterError {
    let mut deaths = std::pin::pin!(docker.deaths(cluster, since));
    match deaths.next().await {
        Some(Ok(death)) => {
            let log = docker.last_lines(&death.container, LOG_LINES).await.unwrap_or_default();
            ClusterError::NodeDied { node: death.container, exit_code: death.exit_code, log }
        }
        Some(Err(error)) => error.into(),
        None => ClusterError::Client("Docker's event stream ended".to_owned()),
    }
}

/// The error for a bound that passed: what was waited for, and what the first node to blame wrote last.
pub(super) async fn not_ready(
    docker: &Docker,
    since: Instant,
    waiting: Vec<(String, String)>,
) -> ClusterError {
    let log = match waiting.first() {
        Some((node, _)) => docker.last_lines(node, LOG_LINES).await.ok().map(|lines| (node.clone(), lines)),
        None => None,
    };
    let waiting = waiting.into_iter().map(|(node, why)| format!("{node}: {why}")).collect();
    ClusterError::NotReady { after: since.elapsed(), waiting, log }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, status: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": status, "reason": "R", "message": "because"}]},
        }))
        .expect("a node")
    }

    #[test]
    fn all_named_nodes_must_say_ready() {
        let mut readiness = Readiness::of(["a".to_owned(), "b".to_owned()]);
        assert!(readiness.observe(&node("a", "True")));
        assert!(!readiness.observe(&node("a", "True")), "it was Ready before");
        assert!(!readiness.observe(&node("stranger", "True")));
        assert!(!readiness.all());
        assert_eq!(readiness.waiting().collect::<Vec<_>>(), [("b", "has not registered")]);
        readiness.observe(&node("b", "False"));
        assert_eq!(readiness.waiting().collect::<Vec<_>>(), [("b", "because")]);
        readiness.observe(&node("b", "True"));
        assert!(readiness.all());
        readiness.observe(&node("a", "Unknown"));
        assert!(!readiness.all());
    }
}
