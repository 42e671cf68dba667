//! Waits for what only the cluster itself can tell: its API answers, its nodes are Ready.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::docker::Docker;
use super::progress::Phases;
use super::spec::ClusterName;
use super::{Access, ClusterError, labels};
use client::{Identified, connect};
use rt::Stop;

/// Pause between two attempts to reach an API server that is starting: nothing tells the host when it listens.
const RETRY: Duration = Duration::from_millis(15);
/// How many of a container's last lines an error shows.
const LOG_LINES: usize = 20;

/// What is waited for.
pub(super) struct Waited<'a> {
    pub(super) cluster: &'a ClusterName,
    /// Names of the nodes that must become Ready.
    pub(super) nodes: Vec<String>,
    /// From when on a container's death counts.
    pub(super) since: Timestamp,
    pub(super) timeout: Duration,
    /// The nodes were there before: what they said before `since` does not count.
    pub(super) fresh: bool,
}

/// Waits for the API server, then for the nodes; a container that dies ends the wait at once. Fails with the phase, and
/// with the last lines of the node to blame.
pub(super) async fn ready(
    docker: &Docker,
    waited: &Waited<'_>,
    access: &Access,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(), ClusterError> {
    let start = Instant::now();
    let client = client(access)?;
    let death = any_death(docker, waited.cluster.as_str(), waited.since);
    let mut death = std::pin::pin!(death);

    let api = phases.run("control plane", async {
        tokio::select! {
            result = api_ready(&client) => result,
            error = &mut death => Err(error),
            () = stop.cancelled() => Err(ClusterError::Interrupted),
            () = tokio::time::sleep(waited.timeout) => {
                let why = "the API server does not answer".to_owned();
                Err(not_ready(docker, start, vec![(labels::node(waited.cluster, 0), why)]).await)
            }
        }
    });
    api.await.map_err(in_phase("control plane"))?;

    let not_before = waited.fresh.then_some(waited.since);
    let mut readiness = Readiness::of(waited.nodes.iter().cloned(), not_before);
    let ready = phases.run("nodes ready", async {
        let left = waited.timeout.saturating_sub(start.elapsed());
        let bounded = tokio::select! {
            result = nodes_ready(&client, &mut readiness, |text| phases.detail(text)) => Some(result),
            error = &mut death => Some(Err(error)),
            () = stop.cancelled() => Some(Err(ClusterError::Interrupted)),
            () = tokio::time::sleep(left) => None,
        };
        match bounded {
            Some(result) => result,
            None => {
                let waiting = readiness.waiting().map(|(n, why)| (n.to_owned(), why.to_owned())).collect();
                Err(not_ready(docker, start, waiting).await)
            }
        }
    });
    ready.await.map_err(in_phase("nodes ready"))
}

/// Runs work that may simply be dropped, until it is done or `stop` is cancelled.
pub(super) async fn until<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    stop.run_until_cancelled(work).await.unwrap_or(Err(ClusterError::Interrupted))
}

/// Says in which phase something failed.
pub(super) fn in_phase(phase: &'static str) -> impl Fn(ClusterError) -> ClusterError {
    move |cause| match cause {
        // These speak for themselves.
        ClusterError::Interrupted | ClusterError::Exists(_) => cause,
        cause => ClusterError::Phase { phase: phase.to_owned(), cause: Box::new(cause) },
    }
}

/// A client with the administrator's identity. Fails when the access that was read is unusable.
pub fn client(access: &Access) -> Result<Client, ClusterError> {
    let Access { server, ca, certificate, key, .. } = access;
    connect(&Identified { server, ca, certificate, key })
        .map_err(|error| ClusterError::Client(error.to_string()))
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
pub(super) struct Readiness {
    nodes: BTreeMap<String, Option<String>>,
    /// What a node said before does not count.
    not_before: Option<Timestamp>,
}

impl Readiness {
    fn of(names: impl IntoIterator<Item = String>, not_before: Option<Timestamp>) -> Self {
        let nodes = names.into_iter().map(|name| (name, Some("has not registered".to_owned()))).collect();
        Self { nodes, not_before }
    }

    /// Takes a node's state in; returns whether the node became Ready by it.
    fn observe(&mut self, node: &Node) -> bool {
        let Some(state) = node.metadata.name.as_ref().and_then(|name| self.nodes.get_mut(name)) else {
            return false;
        };
        let was = state.is_none();
        *state = why_not_ready(node, self.not_before);
        !was && state.is_none()
    }

    fn ready(&self) -> usize {
        self.nodes.values().filter(|why| why.is_none()).count()
    }

    fn all(&self) -> bool {
        self.ready() == self.nodes.len()
    }

    /// The nodes that are not Ready, and why.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nodes.iter().filter_map(|(name, why)| Some((name.as_str(), why.as_deref()?)))
    }
}

/// A node is Ready when it says so: its own DNS lookup and Service connection are part of that.
fn why_not_ready(node: &Node, not_before: Option<Timestamp>) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready {
        None => Some("has no Ready condition".to_owned()),
        // Heartbeats are written in whole seconds.
        Some(ready)
            if not_before.is_some_and(|since| {
                ready.last_heartbeat_time.as_ref().is_none_or(|at| at.0.as_second() < since.as_second())
            }) =>
        {
            Some("has not reported since it was started".to_owned())
        }
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
    let total = readiness.nodes.len();
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

/// Ends only with an error: when a container of the cluster dies, or the engine stops telling. One that has given way to another
/// of its name was meant to end.
pub(super) async fn any_death(docker: &Docker, cluster: &str, since: Timestamp) -> ClusterError {
    let mut deaths = std::pin::pin!(docker.deaths(cluster, since));
    loop {
        let death = match deaths.next().await {
            Some(Ok(death)) => death,
            Some(Err(error)) => return error.into(),
            None => return ClusterError::Client("Docker's event stream ended".to_owned()),
        };
        match docker.is_called(&death.id, &death.container).await {
            Ok(false) => {}
            Ok(true) => {
                let log = docker.last_lines(&death.container, LOG_LINES).await.unwrap_or_default();
                return ClusterError::NodeDied { node: death.container, exit_code: death.exit_code, log };
            }
            Err(error) => return error.into(),
        }
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
        let mut readiness = Readiness::of(["a".to_owned(), "b".to_owned()], None);
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

    #[test]
    fn what_a_node_said_before_it_was_started_does_not_count() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let mut said = node("a", "True");
        let mut readiness = Readiness::of(["a".to_owned()], Some(at(100)));
        for (second, ready) in [(99, false), (100, true), (101, true)] {
            let conditions =
                said.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("there");
            conditions[0].last_heartbeat_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
            readiness.observe(&said);
            assert_eq!(readiness.all(), ready, "{second}");
        }
    }
}
