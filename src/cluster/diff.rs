//! What has to be done so that what exists becomes what should exist. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::docker::Container;
use super::labels;
use super::plan::{ContainerPlan, Desired, LB, NetworkPlan, PutFile};

/// What Docker has of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub network: bool,
    pub containers: Vec<Container>,
    pub volumes: BTreeSet<String>,
}

/// One thing to do. Steps of a kind do not depend on each other; kinds are done in this order.
#[derive(Clone, Debug)]
pub enum Step {
    /// A container that should not be there goes, with its volumes.
    Remove {
        id: String,
        name: String,
        volumes: Vec<String>,
    },
    CreateNetwork(NetworkPlan),
    /// A container made from something else gives way to a new one on the same volumes.
    Replace {
        id: String,
        plan: ContainerPlan,
    },
    /// `new_volumes`: those that come into being with it.
    Create {
        plan: ContainerPlan,
        new_volumes: Vec<String>,
    },
    /// A container that stays gets other files; those that it had come back if that fails.
    Files {
        id: String,
        name: String,
        files: Vec<PutFile>,
        before: Vec<PutFile>,
    },
    /// A container that should run does not.
    Start {
        id: String,
        name: String,
    },
}

impl Step {
    /// The container the step is about.
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::CreateNetwork(_) => None,
            Self::Remove { name, .. } | Self::Start { name, .. } | Self::Files { name, .. } => Some(name),
            Self::Create { plan, .. } | Self::Replace { plan, .. } => Some(&plan.name),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove { name, .. } => write!(f, "remove {name}"),
            Self::CreateNetwork(plan) => write!(f, "create network {}", plan.name),
            Self::Create { plan, .. } => write!(f, "create {}", plan.name),
            Self::Replace { plan, .. } => write!(f, "replace {}", plan.name),
            Self::Files { name, .. } => write!(f, "write files of {name}"),
            Self::Start { name, .. } => write!(f, "start {name}"),
        }
    }
}

/// The steps from what exists to what should exist.
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let there: BTreeMap<&str, &Container> =
        observed.containers.iter().map(|c| (c.name.as_str(), c)).collect();
    let wanted: BTreeSet<&str> = desired.containers.iter().map(|plan| plan.name.as_str()).collect();
    let mut steps: Vec<Step> = observed
        .containers
        .iter()
        .filter(|container| !wanted.contains(container.name.as_str()))
        .map(|container| remove(container, observed))
        .collect();
    if let Some(network) = desired.network.as_ref().filter(|_| !observed.network) {
        steps.push(Step::CreateNetwork(network.clone()));
    }
    let (mut create, mut replace, mut start) = (Vec::new(), Vec::new(), Vec::new());
    for plan in &desired.containers {
        match there.get(plan.name.as_str()) {
            None => {
                create.push(Step::Create { plan: plan.clone(), new_volumes: new_volumes(plan, observed) })
            }
            Some(container) if differs(plan, container) => {
                replace.push(Step::Replace { id: container.id.clone(), plan: plan.clone() });
            }
            Some(container) if !container.running => {
                start.push(Step::Start { id: container.id.clone(), name: container.name.clone() });
            }
            Some(_) => {}
        }
    }
    steps.extend(replace.into_iter().chain(create).chain(start));
    steps
}

/// The files that those containers get which stay as they are, where a record's change means other files.
pub fn changed_files(before: &Desired, after: &Desired, observed: &Observed, steps: &[Step]) -> Vec<Step> {
    let made = |name: &str| {
        let makes = |step: &&Step| matches!(step, Step::Create { .. } | Step::Replace { .. });
        steps.iter().filter(makes).any(|step| step.container() == Some(name))
    };
    let mut found = Vec::new();
    for plan in after.containers.iter().filter(|plan| !made(&plan.name)) {
        let old = before.containers.iter().find(|old| old.name == plan.name);
        let there = observed.containers.iter().find(|container| container.name == plan.name);
        if let (Some(old), Some(there)) = (old, there)
            && old.files != plan.files
        {
            // What is no longer said is said to be empty: a file cannot be taken away from a container that is stopped.
            let gone = old.files.iter().filter(|(path, ..)| !plan.files.iter().any(|(new, ..)| new == path));
            let emptied = gone.map(|(path, _, mode)| (path.clone(), Vec::new(), *mode));
            found.push(Step::Files {
                id: there.id.clone(),
                name: there.name.clone(),
                files: plan.files.iter().cloned().chain(emptied).collect(),
                before: old.files.clone(),
            });
        }
    }
    found
}

fn differs(plan: &ContainerPlan, container: &Container) -> bool {
    plan.labels.get(labels::REVISION) != container.labels.get(labels::REVISION)
}

fn new_volumes(plan: &ContainerPlan, observed: &Observed) -> Vec<String> {
    plan.volumes
        .iter()
        .filter(|volume| !volume.shared)
        .map(|volume| &volume.name)
        .filter(|name| !observed.volumes.contains(*name))
        .cloned()
        .collect()
}

fn remove(container: &Container, observed: &Observed) -> Step {
    Step::Remove {
        id: container.id.clone(),
        name: container.name.clone(),
        volumes: own_volumes(container, &observed.volumes).cloned().collect(),
    }
}

/// The volumes that go with a container.
pub(super) fn own_volumes<'a>(
    container: &'a Container,
    volumes: impl IntoIterator<Item = &'a String>,
) -> impl Iterator<Item = &'a String> {
    volumes.into_iter().filter(move |volume| is_own_volume(container, volume))
}

/// Whether a volume is a container's own: it carries its name.
pub(super) fn is_own_volume(container: &Container, volume: &str) -> bool {
    let part = volume.strip_prefix(&container.name).and_then(|rest| rest.strip_prefix('-'));
    part.is_some_and(|part| !part.contains('-')) && !is_load_balancer(container)
}

/// Whether a container carries host ports and is no node.
pub fn is_load_balancer(container: &Container) -> bool {
    container.labels.get(labels::ROLE).is_some_and(|role| role == LB)
}

#[cfg(test)]
mod tests {
    use super::super::plan::desired;
    use super::super::record::{ClusterRecord, test_drawn};
    use super::super::spec::ClusterSpec;
    use super::*;

    fn record(nodes: u32, ports: &[&str]) -> ClusterRecord {
        let mut spec = ClusterSpec::new("t".parse().expect("good name"), nodes).expect("good");
        spec.ports = ports.iter().map(|port| port.parse().expect("good")).collect();
        ClusterRecord::new(spec, test_drawn())
    }

    /// What is there once everything of a record was made.
    fn made(record: &ClusterRecord) -> Observed {
        let desired = desired(record);
        let containers = desired.containers.iter().map(|plan| Container {
            id: format!("id-{}", plan.name),
            name: plan.name.clone(),
            image: plan.image.clone(),
            running: true,
            created: 0,
            labels: plan.labels.clone(),
            state: "running".to_owned(),
            networks: Vec::new(),
        });
        Observed {
            network: true,
            volumes: desired
                .containers
                .iter()
                .flat_map(|c| &c.volumes)
                .filter(|v| !v.shared)
                .map(|v| v.name.clone())
                .collect(),
            containers: containers.collect(),
        }
    }

    #[track_caller]
    fn check(wanted: &ClusterRecord, there: &Observed, expect: &[&str]) {
        let steps: Vec<String> = diff(&desired(wanted), there).iter().map(ToString::to_string).collect();
        assert_eq!(steps, expect);
    }

    #[test]
    fn from_nothing_everything_is_made() {
        let expect = [
            "create network minik-t",
            "create minik-t-server-0",
            "create minik-t-agent-0",
            "create minik-t-lb-80-tcp",
        ];
        check(&record(2, &["80:80"]), &Observed::default(), &expect);
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let record = record(3, &["80:80"]);
        check(&record, &made(&record), &[]);
    }

    #[test]
    fn another_node_is_all_that_is_made() {
        check(&record(3, &[]), &made(&record(2, &[])), &["create minik-t-agent-1"]);
    }

    #[test]
    fn a_node_too_many_goes_with_its_volumes() {
        let there = made(&record(3, &[]));
        let steps = diff(&desired(&record(2, &[])), &there);
        let [Step::Remove { name, volumes, .. }] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(name, "minik-t-agent-1");
        assert_eq!(
            *volumes,
            ["minik-t-agent-1-containerd", "minik-t-agent-1-kubelet", "minik-t-agent-1-state"]
        );
    }

    #[test]
    fn a_changed_node_is_replaced_and_no_other() {
        let mut larger = record(3, &[]);
        larger.spec.nodes[2].memory = Some("1Gi".parse().expect("good"));
        check(&larger, &made(&record(3, &[])), &["replace minik-t-agent-1"]);
    }

    #[test]
    fn a_port_more_and_a_port_less_touch_no_other() {
        check(
            &record(1, &["80:80", "82:82"]),
            &made(&record(1, &["80:80", "81:81"])),
            &["remove minik-t-lb-81-tcp", "create minik-t-lb-82-tcp"],
        );
    }

    #[test]
    fn what_is_missing_comes_back_on_its_own_volumes() {
        let record = record(2, &[]);
        let mut there = made(&record);
        there.containers.remove(1);
        there.containers[0].running = false;
        let steps = diff(&desired(&record), &there);
        let [Step::Create { new_volumes, .. }, Step::Start { name, .. }] = steps.as_slice() else {
            panic!("{steps:?}")
        };
        assert!(new_volumes.is_empty(), "{new_volumes:?}");
        assert_eq!(name, "minik-t-server-0");
    }
}
