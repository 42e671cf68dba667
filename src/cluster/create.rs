//! Makes a cluster from nothing, and takes back what it made when a phase fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::diff::diff;
use super::docker::{Docker, DockerError};
use super::execute::{Undo, execute};
use super::lock::lock;
use super::observe::{Draw, draw, observe};
use super::plan::{Desired, LB, desired, role_name};
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::ClusterSpec;
use super::wait::{self, Waited, in_phase, until};
use super::{Access, ClusterError, identity, labels, node_image};
use crate::config::Role;
use crate::config::kubeconfig;
use crate::pki::AuthorityFiles;
use crate::rt::{Clock, Stop, SystemClock};

/// How often creating starts over because somebody else took the subnet or the port in between.
const ATTEMPTS: usize = 5;

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
    let _lock = lock(&spec.name)?;
    refuse_existing(docker, spec).await?;
    let phases = Phases::new(progress);
    let image = phases.run("node image", node_image::ensure(docker, spec.image.as_deref(), &phases, stop));
    let image = image.await.map_err(|error| in_phase("node image")(error.into()))?;
    let undo = Undo::default();
    let made = make(docker, options, (&image, &undo), &phases, stop).await;
    match made {
        Ok((plan, access, kubeconfig)) => Ok(Created { plan, access, kubeconfig, phases: phases.times() }),
        Err(error) => {
            if options.rollback {
                roll_back(docker, options, &undo, &phases).await;
            }
            Err(error)
        }
    }
}

/// The phases after the image: from the first thing that a failure has to remove again.
async fn make(
    docker: &Docker,
    options: &CreateOptions,
    (image, undo): (&str, &Undo),
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(Desired, Access, Option<PathBuf>), ClusterError> {
    let started = start_nodes(docker, options, (image, undo), phases, stop);
    let (plan, access, since) = phases.run("nodes", started).await.map_err(in_phase("nodes"))?;
    if options.wait {
        let nodes = plan.nodes().map(|node| node.name.clone()).collect();
        let waited =
            Waited { cluster: &options.spec.name, nodes, since, timeout: options.timeout, fresh: false };
        wait::ready(docker, &waited, &access, phases, stop).await?;
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

/// A name that is in use is refused before anything is made.
async fn refuse_existing(docker: &Docker, spec: &ClusterSpec) -> Result<(), ClusterError> {
    let server = labels::node(&spec.name, 0);
    let (observed, server) = futures::join!(observe(docker, &spec.name), docker.container_owner(&server));
    let observed = observed?;
    match observed.network || !observed.containers.is_empty() || server?.is_some() {
        true => Err(ClusterError::Exists(spec.name.to_string())),
        false => Ok(()),
    }
}

/// Network and containers, all started; starts over with other addresses when they were taken in between.
async fn start_nodes(
    docker: &Docker,
    options: &CreateOptions,
    (image, undo): (&str, &Undo),
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(Desired, Access, Timestamp), ClusterError> {
    let spec = &options.spec;
    let authority = AuthorityFiles::generate(spec.name.as_str())?;
    let ca_hash = authority.authority.spki_hash()?;
    let token = join_token();
    let mut capability_refused = false;
    let mut attempt = 0;
    loop {
        let with = Draw { image, token: &token, ca_hash: &ca_hash, attempt, capability_refused };
        let drawn = until(stop, draw(docker, spec, &with)).await?;
        let record = ClusterRecord::new(spec.clone(), drawn);
        let mut plan = desired(&record);
        equip(&mut plan, options, &record, &authority)?;
        // Volumes of an earlier cluster of this name are not this one's.
        let observed = observe(docker, &spec.name).await?;
        let since = SystemClock.now();
        let error = match execute(docker, &diff(&plan, &observed), undo).await {
            Ok(()) => {
                let access = Access::new(spec.name.as_str(), &plan.api_url, &authority);
                return Ok((plan, access, since));
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
    }
}

/// Puts into the containers' plans what they need before they start: the record and the authority for the server, an
/// identity for those that read Services.
fn equip(
    plan: &mut Desired,
    options: &CreateOptions,
    record: &ClusterRecord,
    authority: &AuthorityFiles,
) -> Result<(), ClusterError> {
    for container in &mut plan.containers {
        if let Some(expires) = options.expires {
            container.labels.insert(labels::EXPIRES.to_owned(), expires.as_second().to_string());
        }
        if container.role == role_name(Role::Server) {
            let (path, text) = record.file();
            container.files = identity::server_files(authority);
            container.files.push((path, text, 0o600));
        } else if container.role == LB {
            container.files = identity::lb_files(&authority.authority)?;
        }
    }
    Ok(())
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
        undo.roll_back(docker, name).await
    });
    if let Err(error) = removed.await {
        phases.warn(&format!("could not remove everything again: {error}"));
    }
    tracing::debug!(took = ?start.elapsed(), "rolled back");
}

/// A bootstrap token, `<6>.<16>` of lower-case letters and digits, as kubeadm writes them.
fn join_token() -> String {
    use rand::RngExt;
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    let mut draw = |length: usize| -> String {
        (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
    };
    format!("{}.{}", draw(6), draw(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_bootstrap_form() {
        let token = join_token();
        let (id, secret) = token.split_once('.').expect("a dot");
        assert_eq!((id.len(), secret.len()), (6, 16));
        assert!(token.chars().all(|c| c == '.' || c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert_ne!(join_token(), token);
    }

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
