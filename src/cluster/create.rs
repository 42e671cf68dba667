use std::fs::{File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;

use super::docker::{Docker, DockerError};
use super::plan::{ClusterPlan, NodePlan, Observed, bounding_set, capabilities, plan};
use super::progress::{Phases, Progress};
use super::proxy_env::ProxyEnv;
use super::spec::ClusterSpec;
use super::subnet::{Subnet, host_routes};
use super::wait::{self, Readiness};
use super::{Access, ClusterError, delete, identity, labels, node_image};
use crate::config::Role;
use crate::config::kubeconfig;
use crate::pki::AuthorityFiles;
use crate::rt::{Clock, Stop, SystemClock};

/// How often creating starts over because somebody else took the subnet or the port in between.
const ATTEMPTS: usize = 5;

/// What `create` does beside the specification.
pub struct CreateOptions {
    pub spec: ClusterSpec,
    /// Kubeconfig files to put the cluster into, by kubectl's order; `None`: leave them alone.
    pub kubeconfig: Option<Vec<PathBuf>>,
    /// Whether the new context becomes the current one.
    pub switch: bool,
    /// Wait until the nodes are Ready.
    pub wait: bool,
}

/// A cluster that was made.
pub struct Created {
    pub plan: ClusterPlan,
    pub access: Access,
    pub kubeconfig: Option<PathBuf>,
    pub phases: Vec<(String, Duration)>,
}

/// Makes a cluster. Whatever fails, and when `stop` is cancelled, everything made is removed again, unless the
/// specification says otherwise.
pub async fn create(
    docker: &Docker,
    options: &CreateOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Created, ClusterError> {
    let spec = &options.spec;
    let _lock = lock(spec)?;
    refuse_existing(docker, spec).await?;
    let phases = Phases::new(progress);
    let image = until(stop, async {
        let ensure = node_image::ensure(docker, spec.image.as_deref(), &phases);
        phases.run("node image", async { Ok(ensure.await?) }).await
    });
    let image = image.await.map_err(in_phase("node image"))?;
    let made = make(docker, options, &image, &phases, stop).await;
    match made {
        Ok((plan, access, kubeconfig)) => Ok(Created { plan, access, kubeconfig, phases: phases.times() }),
        Err(error) => {
            if spec.rollback && !matches!(error.root(), ClusterError::Exists(_)) {
                roll_back(docker, options, &phases).await;
            }
            Err(error)
        }
    }
}

/// The phases after the image: from the first thing that a failure has to remove again.
async fn make(
    docker: &Docker,
    options: &CreateOptions,
    image: &str,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(ClusterPlan, Access, Option<PathBuf>), ClusterError> {
    let spec = &options.spec;
    let (plan, access, since) = phases
        .run("nodes", start_nodes(docker, spec, image, phases, stop))
        .await
        .map_err(in_phase("nodes"))?;
    if options.wait {
        wait_ready(docker, spec, (&plan, since), &access, phases, stop).await?;
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

/// Keeps a second `create` of the same name away while this one runs: each would take the other's containers for
/// its own when it fails. Where no lock file can be made Docker's own check of names has to do.
fn lock(spec: &ClusterSpec) -> Result<Option<File>, ClusterError> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join(format!("minik-{}.lock", spec.name));
    let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(path) else {
        return Ok(None);
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(ClusterError::BeingMade(spec.name.to_string())),
        _ => Ok(Some(file)),
    }
}

/// A name that is in use is refused before anything is made.
async fn refuse_existing(docker: &Docker, spec: &ClusterSpec) -> Result<(), ClusterError> {
    let network = labels::network(&spec.name);
    let server = labels::node(&spec.name, 0);
    let (containers, owner, server_taken) = futures::try_join!(
        docker.containers(Some(spec.name.as_str())),
        docker.network_owner(&network),
        docker.container_exists(&server),
    )?;
    match owner {
        Some(None) => Err(ClusterError::NetworkTaken(network)),
        Some(Some(_)) => Err(ClusterError::Exists(spec.name.to_string())),
        None if !containers.is_empty() || server_taken => Err(ClusterError::Exists(spec.name.to_string())),
        None => Ok(()),
    }
}

/// Network and containers, all started; starts over with other addresses when they were taken in between.
async fn start_nodes(
    docker: &Docker,
    spec: &ClusterSpec,
    image: &str,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(ClusterPlan, Access, Timestamp), ClusterError> {
    let identity = AuthorityFiles::generate(spec.name.as_str())?;
    let ca_hash = identity.authority.spki_hash()?;
    let token = join_token();
    let mut all_capabilities = false;
    let mut attempt = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ClusterError::Interrupted);
        }
        let seen = observe(docker, image, attempt, &token, &ca_hash, all_capabilities).await?;
        let plan = plan(spec, &seen);
        let access = Access::new(spec.name.as_str(), &plan.api_url, &identity);
        let archive = identity::server_archive(&identity)
            .map_err(|source| ClusterError::File { path: "identity".into(), source })?;
        let since = SystemClock.now();
        let error = match start_attempt(docker, &plan, archive).await {
            Ok(()) => return Ok((plan, access, since)),
            Err(error) => error,
        };
        attempt += 1;
        let again = error.is_address_conflict()
            || error.is_port_conflict()
            || (error.is_capability_refused() && !all_capabilities);
        all_capabilities |= error.is_capability_refused();
        if !again || attempt >= ATTEMPTS {
            return Err(match error {
                DockerError::Conflict(why) if why.contains("already in use by container") => {
                    ClusterError::Exists(spec.name.to_string())
                }
                other => other.into(),
            });
        }
        phases.detail(&format!("{error}: trying again"));
        delete::remove_all(docker, spec.name.as_str()).await?;
    }
}

/// Everything the plan depends on, looked at and drawn.
async fn observe(
    docker: &Docker,
    image: &str,
    attempt: usize,
    token: &str,
    ca_hash: &str,
    capability_refused: bool,
) -> Result<Observed, ClusterError> {
    let (mut taken, mtu) = docker.networks_in_use().await?;
    let (api_bind, api_host) = docker.publish_at();
    let proc = |path: &str| std::fs::read_to_string(path).ok().filter(|_| docker.is_local());
    taken.extend(proc("/proc/net/route").iter().flat_map(|text| host_routes(text)));
    let subnet = Subnet::choose(&taken, attempt).ok_or(ClusterError::NoFreeSubnet)?;
    let mut capabilities = capabilities(proc("/proc/self/status").and_then(|text| bounding_set(&text)));
    if capability_refused {
        // Our own bounding set does not speak for an engine elsewhere: the one often missing is left out.
        capabilities.retain(|name| name != "SYS_RESOURCE");
    }
    Ok(Observed {
        image: image.to_owned(),
        subnet,
        mtu,
        api_bind,
        api_host,
        api_port: free_port()?,
        token: token.to_owned(),
        ca_hash: ca_hash.to_owned(),
        proxy: ProxyEnv::read(|name| std::env::var(name).ok()),
        capabilities,
    })
}

/// A port nobody listens on at this moment. It is chosen here and not by Docker, which would choose another one each
/// time the container starts.
fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(ClusterError::NoFreePort)
}

async fn start_attempt(
    docker: &Docker,
    plan: &ClusterPlan,
    archive: bytes::Bytes,
) -> Result<(), DockerError> {
    docker.create_network(&plan.network).await?;
    // All are waited for, also after one failed: nothing may come into being behind the back of a roll-back.
    let results = join_all(plan.nodes.iter().map(|node| start_node(docker, node, archive.clone()))).await;
    results.into_iter().collect()
}

async fn start_node(docker: &Docker, node: &NodePlan, archive: bytes::Bytes) -> Result<(), DockerError> {
    docker.create_node(node).await?;
    if node.role == Role::Server {
        docker.put_archive(&node.name, "/", archive).await?;
    }
    docker.start_container(&node.name).await
}

/// Waits for the API server, then for the nodes; a container that dies ends the wait at once.
async fn wait_ready(
    docker: &Docker,
    spec: &ClusterSpec,
    (plan, since): (&ClusterPlan, Timestamp),
    access: &Access,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(), ClusterError> {
    let start = Instant::now();
    let client = wait::client(access)?;
    let cluster = spec.name.as_str();
    let death = wait::any_death(docker, cluster, since);
    let mut death = std::pin::pin!(death);

    let api = phases.run("control plane", async {
        tokio::select! {
            result = wait::api_ready(&client) => result,
            error = &mut death => Err(error),
            () = stop.cancelled() => Err(ClusterError::Interrupted),
            () = tokio::time::sleep(spec.timeout) => {
                let server = plan.nodes.first().map(|node| node.name.clone()).unwrap_or_default();
                let why = "the API server does not answer".to_owned();
                Err(wait::not_ready(docker, start, vec![(server, why)]).await)
            }
        }
    });
    api.await.map_err(in_phase("control plane"))?;

    let mut readiness = Readiness::of(plan.nodes.iter().map(|node| node.name.clone()));
    let ready = phases.run("nodes ready", async {
        let left = spec.timeout.saturating_sub(start.elapsed());
        let bounded = tokio::select! {
            result = wait::nodes_ready(&client, &mut readiness, |text| phases.detail(text)) => Some(result),
            error = &mut death => Some(Err(error)),
            () = stop.cancelled() => Some(Err(ClusterError::Interrupted)),
            () = tokio::time::sleep(left) => None,
        };
        match bounded {
            Some(result) => result,
            None => {
                let waiting = readiness.waiting().map(|(n, why)| (n.to_owned(), why.to_owned())).collect();
                Err(wait::not_ready(docker, start, waiting).await)
            }
        }
    });
    ready.await.map_err(in_phase("nodes ready"))
}

async fn roll_back(docker: &Docker, options: &CreateOptions, phases: &Phases<'_>) {
    let name = options.spec.name.as_str();
    let removed = phases.run("rolling back", async {
        if let Some(files) = &options.kubeconfig {
            kubeconfig::remove(files, &labels::context(name))?;
        }
        delete::remove_all(docker, name).await
    });
    if let Err(error) = removed.await {
        phases.warn(&format!("could not remove everything again: {error}"));
    }
}

/// Runs work that may simply be dropped, until it is done or `stop` is cancelled.
async fn until<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    stop.run_until_cancelled(work).await.unwrap_or(Err(ClusterError::Interrupted))
}

fn in_phase(phase: &'static str) -> impl Fn(ClusterError) -> ClusterError {
    move |cause| match cause {
        // These speak for themselves.
        ClusterError::Interrupted | ClusterError::Exists(_) => cause,
        cause => ClusterError::Phase { phase: phase.to_owned(), cause: Box::new(cause) },
    }
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
}
