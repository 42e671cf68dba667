//! Changes a cluster that is there: its stored specification is edited, and the difference is carried out.
//!
//! ```text
//! record --edit--> record' --desired()--> + observed --diff()--> steps --execute--> nodes Ready --> settled
//!                                                                   |                  |
//!                                                                   +-- failed: what was made goes, the record comes back
//! ```

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use serde::Serialize;

use super::create::explain;
use super::diff::{Step, diff};
use super::docker::Docker;
use super::execute::{Undo, execute};
use super::lock::lock;
use super::observe::observe;
use super::plan::{Desired, LB, desired};
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::{ClusterName, ClusterSpec};
use super::wait::{self, Waited, in_phase};
use super::{Access, ClusterError, access_of, identity, labels};
use crate::config::kubeconfig;
use crate::rt::{Clock, Stop, SystemClock};

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
    edit: impl FnOnce(&mut ClusterSpec) -> Result<(), ClusterError>,
) -> Result<Changed, ClusterError> {
    let _lock = lock(name)?;
    let observed = observe(docker, name).await?;
    let before = ClusterRecord::read(docker, name.as_str(), &observed.containers).await?;
    let mut record = before.clone();
    edit(&mut record.spec)?;
    record.spec.validate()?;
    let plan = desired(&record);
    let mut steps = diff(&plan, &observed);
    if !options.replace {
        keep_revisions(&mut steps, &observed);
    }
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
    let work = Work { docker, options, record: &record, plan: &plan, steps: &mut steps };
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
    record: &'a ClusterRecord,
    plan: &'a Desired,
    steps: &'a mut Vec<Step>,
}

async fn carry_out(
    work: Work<'_>,
    undo: &Undo,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<(), ClusterError> {
    let Work { docker, options, record, plan, steps } = work;
    let name = &record.spec.name;
    let gone: Vec<String> = removed_nodes(steps);
    equip(docker, steps, record).await?;
    let since = SystemClock.now();
    let done = async { execute(docker, steps, undo).await.map_err(|error| explain(error, &record.spec)) };
    phases.run("containers", done).await.map_err(in_phase("containers"))?;
    if !gone.is_empty() {
        // Not sooner: a kubelet that still ran would register its node again.
        forget_nodes(docker, name, &gone, phases).await?;
    }
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
fn keep_revisions(steps: &mut Vec<Step>, observed: &super::diff::Observed) {
    let running = |id: &str| observed.containers.iter().any(|c| c.id == id && c.running);
    let kept = std::mem::take(steps).into_iter().filter_map(|step| match step {
        Step::Replace { id, .. } if running(&id) => None,
        Step::Replace { id, plan } => Some(Step::Start { id, name: plan.name }),
        other => Some(other),
    });
    *steps = kept.collect();
}

fn removed_nodes(steps: &[Step]) -> Vec<String> {
    let is_node = |name: &&String| !name.contains("-lb-") && !name.ends_with(labels::BEFORE);
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Remove { name, .. } => Some(name),
            _ => None,
        })
        .filter(is_node)
        .cloned()
        .collect()
}

/// The node that a step starts.
fn started_node(step: &Step, plan: &Desired) -> Option<String> {
    let name = match step {
        Step::Remove { .. } | Step::CreateNetwork(_) => return None,
        Step::Create { plan, .. } | Step::Replace { plan, .. } => &plan.name,
        Step::Start { name, .. } => name,
    };
    plan.nodes().any(|node| node.name == *name).then(|| name.clone())
}

/// Takes nodes out of the cluster's own books: their Pods are made elsewhere, and their names are free for others.
async fn forget_nodes(
    docker: &Docker,
    name: &ClusterName,
    gone: &[String],
    phases: &Phases<'_>,
) -> Result<(), ClusterError> {
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

/// Gives load balancers that are made, or start again, a fresh identity.
async fn equip(docker: &Docker, steps: &mut [Step], record: &ClusterRecord) -> Result<(), ClusterError> {
    let wanted = steps.iter().any(|step| match step {
        Step::Create { plan, .. } | Step::Replace { plan, .. } => plan.role == LB,
        _ => false,
    });
    if !wanted {
        return Ok(());
    }
    let authority = identity::authority_of(docker, &labels::node(&record.spec.name, 0)).await?;
    for step in steps {
        if let Step::Create { plan, .. } | Step::Replace { plan, .. } = step
            && plan.role == LB
        {
            plan.files = identity::lb_files(&authority)?;
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
