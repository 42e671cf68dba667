//! Changes a cluster that is there: its stored specification is edited, and the difference is carried out.
//!
//! ```text
//! record --edit--> record' --desired()--> + observed --diff()--> steps --execute--> nodes Ready --> settled
//!                                                                   |                  |
//!                                                                   +-- failed: what was made goes, the record comes back
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde::Serialize;

use super::create::explain;
use super::delete::remove_volumes;
use super::diff::{Observed, Step, changed_files, diff};
use super::docker::Docker;
use super::execute::{Undo, execute};
use super::lock::lock;
use super::observe::observe;
use super::plan::{ContainerPlan, Desired, LB, desired, role_name};
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::ClusterName;
use super::wait::{self, Waited, in_phase, until};
use super::{Access, ClusterError, access_of, identity, inside, labels, node_number, registries};
use config::{JoinToken, Role, kubeconfig};
use rt::{Clock, Stop, SystemClock};

/// How a change is made.
pub struct ChangeOptions {
    pub timeout: Duration,
    /// Wait until the nodes that were made or started are Ready.
    pub wait: bool,
    /// Take back what was made when a phase fails.
    pub rollback: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Replace containers that were made from something else; otherwise they are only started.
    pub replace: bool,
    /// Kubeconfig files in which the cluster's entry is renewed, if it is there.
    pub kubeconfig: Option<Vec<PathBuf>>,
}

impl Default for ChangeOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            wait: true,
            rollback: true,
            dry_run: false,
            replace: true,
            kubeconfig: None,
        }
    }
}

/// What a change did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    pub cluster: String,
    pub steps: Vec<String>,
}

/// Edits a cluster's specification and makes the cluster follow it. Fails when the cluster is not there, the edited
/// specification is wrong, or a step or the wait for the nodes fails; then what was made is removed again.
pub async fn change(
    docker: &Docker,
    name: &ClusterName,
    options: &ChangeOptions,
    progress: &dyn Progress,
    stop: &Stop,
    edit: impl FnOnce(&mut ClusterRecord) -> Result<(), ClusterError>,
) -> Result<Changed, ClusterError> {
    let _lock = lock(name)?;
    let observed = observe(docker, name).await?;
    let before = ClusterRecord::read(docker, name.as_str(), &observed.containers).await?;
    let mut record = before.clone();
    edit(&mut record)?;
    record.spec.validate()?;
    record.carried.validate()?;
    let plan = desired(&record);
    let mut steps = diff(&plan, &observed);
    if !options.replace {
        keep_revisions(&mut steps, &observed);
    }
    let files = changed_files(&desired(&before), &plan, &observed, &steps);
    steps.extend(files);
    let said: Vec<String> = steps.iter().map(ToString::to_string).collect();
    let changed = Changed { cluster: name.to_string(), steps: said };
    if options.dry_run || (steps.is_empty() && record == before) {
        return Ok(changed);
    }
    let phases = Phases::new(progress);
    let undo = Undo::default();
    if record != before {
        record.store(docker).await?;
    }
    let work = Work {
        docker,
        options,
        before: &before,
        record: &record,
        plan: &plan,
        observed: &observed,
        steps: &mut steps,
    };
    match carry_out(work, &undo, &phases, stop).await {
        Ok(()) => {
            undo.settle(docker).await?;
            Ok(changed)
        }
        Err(error) => {
            if options.rollback {
                roll_back(docker, &before, &undo, &phases).await;
            }
            Err(error)
        }
    }
}

/// What there is to do, in one hand.
struct Work<'a> {
    docker: &'a Docker,
    options: &'a ChangeOptions,
    before: &'a ClusterRecord,
    record: &'a ClusterRecord,
    plan: &'a Desired,
    observed: &'a Observed,
    steps: &'a mut Vec<Step>,
}

async fn carry_out(
    work: Work<'_>,
    undo: &Undo,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(), ClusterError> {
    // While they still run: those that stay must agree, and sooner than they would miss anybody.
    until(stop, leave_etcd(&work)).await?;
    let Work { docker, options, before, record, plan, observed, steps } = work;
    let name = &record.spec.name;
    let dropped = dropped_nodes(&desired(before), plan);
    let gone: BTreeSet<String> =
        removed_nodes(steps, observed).chain(dropped.iter().map(|node| node.hostname.clone())).collect();
    equip(docker, steps, record, observed).await?;
    let since = SystemClock.now();
    let (mut joining, others): (Vec<Step>, Vec<Step>) =
        steps.drain(..).partition(|step| joins(step, record.spec.several));
    let done = async {
        execute(docker, &others, undo).await.map_err(|error| explain(error, &record.spec))?;
        // The server is up by now, if there is one: it makes the token that new nodes join with.
        let server = labels::node(name, record.spec.first_server());
        let bound = hand_token(docker, (name, &server), &mut joining, options.timeout);
        until(stop, bound).await?;
        // One that was there before and has lost everything comes with another key.
        let anew: BTreeSet<String> = joining.iter().filter_map(made_anew).collect();
        forget_nodes(docker, name, &anew, phases).await?;
        execute(docker, &joining, undo).await.map_err(|error| explain(error, &record.spec))
    };
    let done = phases.run("containers", done).await.map_err(in_phase("containers"));
    steps.extend(others.into_iter().chain(joining));
    done?;
    for step in steps.iter() {
        if let Step::CreateNetwork(network) = step {
            registries::attach(docker, &network.name).await?;
        }
    }
    // Not sooner: a kubelet that still ran would register its node again.
    forget_nodes(docker, name, &gone, phases).await?;
    // Those of a container go with it; somebody may have removed the container alone.
    let volumes = dropped.iter().flat_map(|node| &node.volumes).filter(|volume| !volume.shared);
    remove_volumes(
        docker,
        volumes.map(|volume| &volume.name).filter(|name| observed.volumes.contains(*name)),
    )
    .await?;
    let touched: Vec<String> = steps.iter().filter_map(|step| started_node(step, plan)).collect();
    if options.wait && !touched.is_empty() {
        let access = access_of(docker, name.as_str()).await?;
        let waited = Waited { cluster: name, nodes: touched, since, timeout: options.timeout, fresh: true };
        wait::ready(docker, &waited, &access, phases, stop).await?;
        renew_kubeconfig(docker, name, options).await?;
    }
    Ok(())
}

/// A server that starts may have renewed the administrator's certificate.
async fn renew_kubeconfig(
    docker: &Docker,
    name: &ClusterName,
    options: &ChangeOptions,
) -> Result<(), ClusterError> {
    let Some(files) = &options.kubeconfig else { return Ok(()) };
    let entry = access_of(docker, name.as_str()).await?.entry();
    kubeconfig::renew(files, &entry)?;
    Ok(())
}

/// Containers made from something else are left as they are; they are only started.
fn keep_revisions(steps: &mut Vec<Step>, observed: &Observed) {
    let running = |id: &str| observed.containers.iter().any(|c| c.id == id && c.running);
    let kept = std::mem::take(steps).into_iter().filter_map(|step| match step {
        Step::Replace { id, .. } if running(&id) => None,
        Step::Replace { id, plan } => Some(Step::Start { id, name: plan.name }),
        other => Some(other),
    });
    *steps = kept.collect();
}

/// The names that nodes whose containers go have in the cluster.
fn removed_nodes(steps: &[Step], observed: &Observed) -> impl Iterator<Item = String> {
    steps.iter().filter_map(move |step| {
        let Step::Remove { id, name, .. } = step else { return None };
        let container = observed.containers.iter().find(|container| container.id == *id)?;
        container.labels.get(labels::NODE).filter(|_| !name.ends_with(labels::BEFORE)).cloned()
    })
}

/// The nodes that are wanted no more, whether their containers are there or not.
fn dropped_nodes(before: &Desired, after: &Desired) -> Vec<ContainerPlan> {
    let stays = |node: &&ContainerPlan| after.nodes().any(|after| after.name == node.name);
    before.nodes().filter(|node| !stays(node)).cloned().collect()
}

/// The node that a step starts.
fn started_node(step: &Step, plan: &Desired) -> Option<String> {
    let name = match step {
        Step::Remove { .. } | Step::CreateNetwork(_) | Step::Files { .. } => return None,
        Step::Create { plan, .. } | Step::Replace { plan, .. } => &plan.name,
        Step::Start { name, .. } => name,
    };
    plan.nodes().find(|node| node.name == *name).map(|node| node.hostname.clone())
}

/// Takes nodes out of the cluster's own books: their Pods are made elsewhere, and their names are free for others.
async fn forget_nodes(
    docker: &Docker,
    name: &ClusterName,
    gone: &BTreeSet<String>,
    phases: &Phases<'_>,
) -> Result<(), ClusterError> {
    if gone.is_empty() {
        return Ok(());
    }
    let access: Access = access_of(docker, name.as_str()).await?;
    let nodes: Api<Node> = Api::all(wait::client(&access)?);
    for node in gone {
        match nodes.delete(node, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => phases.warn(&format!("node {node} is still in the cluster's list: {error}")),
        }
    }
    Ok(())
}

/// Gives load balancers that are made a fresh identity, servers what all servers have in common, and nodes what they pull from.
async fn equip(
    docker: &Docker,
    steps: &mut [Step],
    record: &ClusterRecord,
    observed: &Observed,
) -> Result<(), ClusterError> {
    let servers = identity::servers(&observed.containers);
    let mut made: Vec<&mut ContainerPlan> = steps
        .iter_mut()
        .filter_map(|step| match step {
            Step::Create { plan, .. } | Step::Replace { plan, .. } => Some(plan),
            _ => None,
        })
        .collect();
    if made.iter().any(|plan| plan.reads_services()) {
        let authority = identity::authority_of(docker, &servers).await?;
        for plan in made.iter_mut().filter(|plan| plan.reads_services()) {
            plan.files.extend(identity::lb_files(&authority)?);
        }
    }
    let server = role_name(Role::Server);
    if record.spec.several && made.iter().any(|plan| plan.role == server) {
        let common = identity::common_files(docker, &servers).await?;
        let (path, text) = record.file();
        for plan in made.iter_mut().filter(|plan| plan.role == server) {
            plan.files.extend(common.iter().cloned());
            plan.files.push((path.clone(), text.clone().into_bytes(), 0o600));
        }
    }
    if made.iter().any(|plan| plan.role != LB) {
        let trusted = registries::trusted(docker).await?;
        made.iter_mut().filter(|plan| plan.role != LB).for_each(|plan| plan.files.extend(trusted.clone()));
    }
    Ok(())
}

/// Puts servers that go out of the cluster's etcd, at one that stays; their containers may be gone already. Fails when none that
/// stays runs, or too few of them answer.
async fn leave_etcd(work: &Work<'_>) -> Result<(), ClusterError> {
    let Work { docker, record, before, observed, .. } = work;
    let cluster = &record.spec.name;
    let stays = |number: u32| record.spec.servers().any(|server| server.number == number);
    for leaving in before.spec.servers().filter(|server| before.spec.runs_etcd() && !stays(server.number)) {
        let node = labels::node(cluster, leaving.number);
        let ip = record.drawn.subnet.node(leaving.number).to_string();
        let servers = identity::servers(&observed.containers);
        let at = servers
            .iter()
            .find(|server| server.running && node_number(cluster, &server.name).is_some_and(stays));
        let Some(at) = at else {
            let why = "no server that stays runs: start one first (minik node start)".to_owned();
            return Err(ClusterError::Fault { node, why });
        };
        let left = inside::ask::<bool>(docker, &at.name, &["etcd", "remove", &ip]).await;
        left.map_err(|why| ClusterError::Fault {
            node,
            why: format!("the others' etcd does not let it go: {why}"),
        })?;
    }
    Ok(())
}

/// Whether a step makes a node that joins the others: an agent, or a further server that has nothing yet.
fn joins(step: &Step, several: bool) -> bool {
    let Step::Create { plan, new_volumes } = step else { return false };
    let server = several && plan.role == role_name(Role::Server) && !new_volumes.is_empty();
    server || plan.role == role_name(Role::Agent)
}

/// The node that a step makes out of nothing.
fn made_anew(step: &Step) -> Option<String> {
    let Step::Create { plan, new_volumes } = step else { return None };
    (!new_volumes.is_empty()).then(|| plan.hostname.clone())
}

/// Gives nodes that are made a join token of their own, which the API server is told of. Fails when that does not answer
/// within `bound`.
async fn hand_token(
    docker: &Docker,
    (name, server): (&ClusterName, &str),
    joining: &mut [Step],
    bound: Duration,
) -> Result<(), ClusterError> {
    if joining.is_empty() {
        return Ok(());
    }
    let client = wait::client(&access_of(docker, name.as_str()).await?)?;
    let start = Instant::now();
    if tokio::time::timeout(bound, wait::api_ready(&client)).await.is_err() {
        let why = "the API server does not answer: no node can join without it".to_owned();
        return Err(wait::not_ready(docker, start, vec![(server.to_owned(), why)]).await);
    }
    let token = JoinToken::draw();
    let expires = SystemClock.now().checked_add(JoinToken::LIFETIME).unwrap_or(Timestamp::MAX);
    let object = serde_json::from_value(token.object(expires, "Added nodes of this cluster join with it."))
        .expect("a token's Secret is one");
    let secrets: Api<Secret> = Api::namespaced(client, JoinToken::NAMESPACE);
    let made = secrets.create(&PostParams::default(), &object).await;
    made.map_err(|error| ClusterError::Client(format!("making a join token: {error}")))?;
    for step in joining {
        if let Step::Create { plan, .. } = step {
            plan.files.extend(identity::agent_files(&token));
        }
    }
    Ok(())
}

async fn roll_back(docker: &Docker, before: &ClusterRecord, undo: &Undo, phases: &Phases<'_>) {
    let removed = phases.run("rolling back", async {
        undo.roll_back(docker, before.spec.name.as_str()).await?;
        before.store(docker).await
    });
    if let Err(error) = removed.await {
        phases.warn(&format!("could not take everything back: {error}"));
    }
}
