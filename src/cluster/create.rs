//! Makes a cluster from nothing, and takes back what it made when a phase fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::diff::{Observed, diff};
use super::docker::{Docker, DockerError, EngineInfo};
use super::execute::{Undo, execute};
use super::lock::lock;
use super::observe::{Draw, draw, engine, observe};
use super::plan::{Desired, LB, PutFile, desired, role_name};
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::{ClusterName, ClusterSpec};
use super::wait::{self, Waited, in_phase, until};
use super::{
    Access, Carried, ClusterError, RegistryInfo, access_of, backups, identity, labels, manifests, node_image,
    registries,
};
use config::backup::Restore;
use config::{JoinToken, Role, kubeconfig};
use pki::AuthorityFiles;
use rt::{Clock, Stop, SystemClock};
use sys::foreground;

/// How often creating starts over because somebody else took the subnet or the port in between.
const ATTEMPTS: usize = 5;

/// How long an engine may be away before what was made is left to it.
const ENGINE_RESTART: Duration = Duration::from_secs(120);

/// What `create` does beside the specification.
pub struct CreateOptions {
    pub spec: ClusterSpec,
    /// Bound for the time from the first container to the last Ready node.
    pub timeout: Duration,
    /// Remove everything again when a phase fails.
    pub rollback: bool,
    /// Kubeconfig files to put the cluster into, by kubectl's order; `None`: leave them alone.
    pub kubeconfig: Option<Vec<PathBuf>>,
    /// Whether the new context becomes the current one.
    pub switch: bool,
    /// Wait until the nodes are Ready.
    pub wait: bool,
    /// When anybody may remove the cluster.
    pub expires: Option<Timestamp>,
    /// This program is minik itself, and removes what is half made even if it is killed: by a second one of it.
    pub survived: bool,
    /// Files and secrets for its nodes.
    pub carried: Carried,
    /// Objects to apply once it is ready: whole YAML texts, and what to call each in an error.
    pub manifests: Vec<(String, String)>,
    /// What it begins with.
    pub restored: Option<Restored>,
}

/// The state of another cluster.
pub struct Restored {
    /// The cluster after which its nodes are called: as objects know them.
    pub named_after: ClusterName,
    /// The file of a store.
    pub store: Vec<u8>,
}

impl CreateOptions {
    /// The usual: two minutes, rolled back when it fails, no kubeconfig touched.
    pub fn new(spec: ClusterSpec) -> Self {
        Self {
            spec,
            timeout: Duration::from_secs(120),
            rollback: true,
            kubeconfig: None,
            switch: true,
            wait: true,
            expires: None,
            survived: false,
            carried: Carried::default(),
            manifests: Vec::new(),
            restored: None,
        }
    }
}

/// A cluster that was made.
pub struct Created {
    pub plan: Desired,
    pub access: Access,
    pub kubeconfig: Option<PathBuf>,
    pub phases: Vec<(String, Duration)>,
}

/// Makes a cluster. Whatever fails, and when `stop` is cancelled, everything made is removed again, unless the
/// options say otherwise.
pub async fn create(
    docker: &Docker,
    options: &CreateOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Created, ClusterError> {
    let spec = &options.spec;
    spec.validate()?;
    options.carried.validate()?;
    let objects = manifests::read(&options.manifests)?;
    let _lock = lock(&spec.name)?;
    let (observed, engine) = futures::try_join!(refuse_existing(docker, spec), engine(docker))?;
    let phases = Phases::new(progress);
    let image = phases.run("node image", node_image::ensure(docker, spec.image.as_deref(), &phases, stop));
    let image = image.await.map_err(|error| in_phase("node image")(error.into()))?;
    let undo = Undo::default();
    // Not sooner: what is there by now is this command's own.
    let heir = match options.survived && options.rollback {
        true => Some(foreground::heir(&["cluster", "delete", spec.name.as_str(), "--after-input-ends"])?),
        false => None,
    };
    let found = Found { image: &image, engine: &engine, observed };
    let made = make(docker, (options, &objects), (found, &undo), &phases, stop).await;
    let result = match made {
        Ok((plan, access, kubeconfig)) => Ok(Created { plan, access, kubeconfig, phases: phases.times() }),
        Err(error) => {
            if options.rollback {
                roll_back(docker, options, &undo, &phases).await;
            }
            Err(error)
        }
    };
    if let Some(heir) = heir {
        heir.dismiss().await.map_err(|error| ClusterError::Client(error.to_string()))?;
    }
    result
}

/// The phases after the image: from the first thing that a failure has to remove again.
async fn make(
    docker: &Docker,
    (options, objects): (&CreateOptions, &[Value]),
    (found, undo): (Found<'_>, &Undo),
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(Desired, Access, Option<PathBuf>), ClusterError> {
    let started = start_nodes(docker, options, (found, undo), phases, stop);
    let Started { plan, access, since, registries } =
        phases.run("nodes", started).await.map_err(in_phase("nodes"))?;
    if options.wait {
        let nodes = plan.nodes().map(|node| node.hostname.clone()).collect();
        // What is restored says of nodes how they were.
        let fresh = options.restored.is_some();
        let waited = Waited { cluster: &options.spec.name, nodes, since, timeout: options.timeout, fresh };
        wait::ready(docker, &waited, &access, phases, stop).await?;
        let cluster = options.spec.name.as_str();
        if let Err(error) = registries::announce_first(docker, cluster, &registries).await {
            phases.warn(&format!("the cluster does not tell its tools of the registry: {error}"));
        }
    }
    if !objects.is_empty() {
        let applied = wait::until(stop, manifests::apply(&access, objects, options.timeout));
        phases.run("manifests", applied).await.map_err(in_phase("manifests"))?;
    }
    let path = match &options.kubeconfig {
        None => None,
        Some(files) => {
            let merge = async { Ok(kubeconfig::merge(files, &access.entry(), options.switch)?) };
            Some(phases.run("kubeconfig", merge).await.map_err(in_phase("kubeconfig"))?)
        }
    };
    Ok((plan, access, path))
}

/// Containers that run, and whatever is known of them by then.
struct Started {
    plan: Desired,
    access: Access,
    /// From when on a container's death counts.
    since: Timestamp,
    /// Those that are in the cluster's network.
    registries: Vec<RegistryInfo>,
}

/// What was there before anything was made.
struct Found<'a> {
    image: &'a str,
    engine: &'a EngineInfo,
    /// Volumes that an earlier cluster of this name left, at most.
    observed: Observed,
}

/// A name that is in use is refused before anything is made. Returns what else there is of that name.
pub(super) async fn refuse_existing(docker: &Docker, spec: &ClusterSpec) -> Result<Observed, ClusterError> {
    let server = labels::node(&spec.name, spec.first_server());
    let (observed, server) = futures::join!(observe(docker, &spec.name), docker.container_owner(&server));
    let observed = observed?;
    match observed.network || !observed.containers.is_empty() || server?.is_some() {
        true => Err(ClusterError::Exists(spec.name.to_string())),
        false => Ok(observed),
    }
}

/// Network and containers, all started; starts over with other addresses when they were taken in between.
async fn start_nodes(
    docker: &Docker,
    options: &CreateOptions,
    (found, undo): (Found<'_>, &Undo),
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<Started, ClusterError> {
    let spec = &options.spec;
    let authority = AuthorityFiles::generate(spec.name.as_str())?;
    let ca_hash = authority.authority.spki_hash()?;
    let token = JoinToken::draw().to_string();
    let trusted = registries::trusted(docker).await?;
    let mut capability_refused = false;
    let mut attempt = 0;
    let Found { image, engine, mut observed } = found;
    loop {
        let with = Draw { image, engine, token: &token, ca_hash: &ca_hash, attempt, capability_refused };
        let mut drawn = until(stop, draw(docker, spec, &with)).await?;
        drawn.named_after = options.restored.as_ref().map(|restored| restored.named_after.clone());
        let mut record = ClusterRecord::new(spec.clone(), drawn);
        record.carried = options.carried.clone();
        let mut plan = desired(&record);
        equip(&mut plan, options, (&record, &trusted), &authority)?;
        let since = SystemClock.now();
        let error = match execute(docker, &diff(&plan, &observed), undo).await {
            Ok(()) => {
                let registries = match &plan.network {
                    Some(network) => registries::attach(docker, &network.name).await?,
                    None => Vec::new(),
                };
                let access = Access::new(spec.name.as_str(), &plan.api_url, &authority);
                return Ok(Started { plan, access, since, registries });
            }
            Err(error) => error,
        };
        attempt += 1;
        let again = error.is_address_conflict()
            || (error.is_port_conflict() && spec.api_port.is_none() && spec.ports.is_empty())
            || (error.is_capability_refused() && !capability_refused);
        capability_refused |= error.is_capability_refused();
        if !again || attempt >= ATTEMPTS {
            return Err(explain(error, spec));
        }
        phases.detail(&format!("{error}: trying again"));
        undo.roll_back(docker, spec.name.as_str()).await?;
        observed = observe(docker, &spec.name).await?;
    }
}

/// Puts into the containers' plans what they need before they start: the record and the authority for the server, an
/// identity for those that read Services.
fn equip(
    plan: &mut Desired,
    options: &CreateOptions,
    (record, trusted): (&ClusterRecord, &[PutFile]),
    authority: &AuthorityFiles,
) -> Result<(), ClusterError> {
    for container in &mut plan.containers {
        if let Some(expires) = options.expires {
            container.labels.insert(labels::EXPIRES.to_owned(), expires.as_second().to_string());
        }
        if container.reads_services() {
            container.files.extend(identity::lb_files(&authority.authority)?);
        }
        if container.role == LB {
            continue;
        }
        container.files.extend(trusted.iter().cloned());
        if container.role == role_name(Role::Server) {
            let (path, text) = record.file();
            container.files.extend(identity::server_files(authority));
            container.files.push((path, text.into_bytes(), 0o600));
            let how = Restore { after: 0, other_cluster: true };
            match &options.restored {
                // This server starts alone, and the others ask to be let in.
                Some(restored)
                    if container.name == labels::node(&record.spec.name, record.spec.first_server()) =>
                {
                    container.files.extend(backups::files(restored.store.clone(), how));
                }
                None if record.spec.runs_etcd() => container.files.push(identity::founder_file()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Makes a cluster over volumes that hold what another one was. Its addresses and its port are its own; host ports are
/// those asked for, as the other one's may be in use.
pub(super) async fn from_volumes(
    docker: &Docker,
    options: &CreateOptions,
    before: &ClusterRecord,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(Desired, Access, Option<PathBuf>), ClusterError> {
    let spec = options.spec.made_like(&before.spec);
    let drawn = &before.drawn;
    let (image, token, ca_hash) = (drawn.image.as_str(), drawn.token.as_str(), drawn.ca_hash.as_str());
    let engine = engine(docker).await?;
    let with = Draw { image, engine: &engine, token, ca_hash, attempt: 0, capability_refused: false };
    let mut fresh = until(stop, draw(docker, &spec, &with)).await?;
    fresh.named_after = Some(before.nodes_named_after().clone());
    fresh.capabilities.clone_from(&drawn.capabilities);
    let mut record = ClusterRecord::new(spec, fresh);
    record.carried = before.carried.clone();
    let mut plan = desired(&record);
    let trusted = registries::trusted(docker).await?;
    for container in &mut plan.containers {
        container.files.extend(trusted.iter().cloned());
        if container.role == role_name(Role::Server) {
            let (path, text) = record.file();
            container.files.push((path, text.into_bytes(), 0o600));
        }
    }
    let name = record.spec.name.as_str();
    let observed = observe(docker, &record.spec.name).await?;
    let since = SystemClock.now();
    let started = async {
        let done = execute(docker, &diff(&plan, &observed), &Undo::default()).await;
        done.map_err(|error| explain(error, &record.spec))?;
        match &plan.network {
            Some(network) => registries::attach(docker, &network.name).await.map(drop),
            None => Ok(()),
        }
    };
    phases.run("nodes", started).await.map_err(in_phase("nodes"))?;
    let access = access_of(docker, name).await?;
    let nodes = plan.nodes().map(|node| node.hostname.clone()).collect();
    let cluster = &record.spec.name;
    let waited = Waited { cluster, nodes, since, timeout: options.timeout, fresh: true };
    wait::ready(docker, &waited, &access, phases, stop).await?;
    let path = match &options.kubeconfig {
        Some(files) => Some(kubeconfig::merge(files, &access.entry(), options.switch)?),
        None => None,
    };
    Ok((plan, access, path))
}

/// What Docker said about a port or a name, as a person can act on it.
pub(super) fn explain(error: DockerError, spec: &ClusterSpec) -> ClusterError {
    let text = error.to_string();
    let asked = spec.api_port.into_iter().chain(spec.ports.iter().map(|mapping| mapping.host_port));
    if error.is_port_conflict()
        && let Some(port) = asked.into_iter().find(|port| text.contains(&format!(":{port}")))
    {
        return ClusterError::PortTaken(port);
    }
    match &error {
        DockerError::Conflict(why) if why.contains("already in use by container") => {
            match why.split('"').nth(1).map(|name| name.trim_start_matches('/')) {
                Some(name) => ClusterError::ContainerTaken(name.to_owned()),
                None => error.into(),
            }
        }
        _ => error.into(),
    }
}

async fn roll_back(docker: &Docker, options: &CreateOptions, undo: &Undo, phases: &Phases<'_>) {
    let start = Instant::now();
    let name = options.spec.name.as_str();
    let removed = phases.run("rolling back", async {
        if let Some(files) = &options.kubeconfig {
            kubeconfig::remove(files, &labels::context(name))?;
        }
        if !docker.is_back(ENGINE_RESTART).await {
            phases.detail("Docker does not come back");
        }
        undo.roll_back(docker, name).await
    });
    if let Err(error) = removed.await {
        phases
            .warn(&format!("could not remove everything again: {error}; later: minik cluster delete {name}"));
    }
    tracing::debug!(took = ?start.elapsed(), "rolled back");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_refusals_are_told_apart() {
        let mut spec = ClusterSpec::new("a".parse().expect("good name"), 1).expect("good");
        spec.ports = vec!["8080:80".parse().expect("good")];
        let port = DockerError::Refused {
            status: 500,
            message: "driver failed: Bind for 127.0.0.1:8080 failed: port is already allocated".to_owned(),
        };
        assert!(matches!(explain(port, &spec), ClusterError::PortTaken(8080)));
        let name = DockerError::Conflict(
            "Conflict. The container name \"/minik-a-agent-0\" is already in use by container \"12\"."
                .to_owned(),
        );
        assert!(
            matches!(explain(name, &spec), ClusterError::ContainerTaken(name) if name == "minik-a-agent-0")
        );
    }
}
