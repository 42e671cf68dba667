//! The graph of owners and dependents.

use std::collections::{HashMap, HashSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// How many uids of owners that are gone are remembered.
const ABSENT: usize = 4096;

/// What the graph keeps of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Item {
    /// Its place in the list of kinds.
    pub kind: usize,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Item {
    pub(super) fn of(kind: usize, meta: ObjectMeta) -> Self {
        Self {
            kind,
            uid: meta.uid.unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            version: meta.resource_version.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|name| name == finalizer)
    }

    /// Deleted in the foreground: it stays until its dependents are gone.
    fn waits(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Its owners but those.
    pub(super) fn owners_without(&self, uids: &[String]) -> Vec<&OwnerReference> {
        self.owners.iter().filter(|owner| !uids.contains(&owner.uid)).collect()
    }

    fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }
}

/// uids that are known to be of no object, the latest ones.
#[derive(Debug, Default)]
pub(super) struct Absent {
    set: HashSet<String>,
    order: VecDeque<String>,
}

impl Absent {
    pub(super) fn insert(&mut self, uid: String) {
        if self.set.insert(uid.clone()) {
            self.order.push_back(uid);
            if self.order.len() > ABSENT
                && let Some(oldest) = self.order.pop_front()
            {
                self.set.remove(&oldest);
            }
        }
    }

    fn contains(&self, uid: &str) -> bool {
        self.set.contains(uid)
    }
}

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    Nothing,
    Delete(PropagationPolicy),
    /// Some owners are gone, others are not: only the references go.
    Detach(Vec<String>),
    /// It waits for these.
    DeleteDependents(Vec<String>),
    /// These lose it as their owner, then it is let go.
    Orphan(Vec<Item>),
    /// Nothing that blocks it is left.
    Release,
}

/// Who owns whom.
#[derive(Debug, Default)]
pub(super) struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, HashSet<String>>,
    pub absent: Absent,
}

impl Graph {
    fn unlink(&mut self, item: &Item) {
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&item.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &Item> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.items.get(uid))
    }

    /// Takes over an object; returns the uids to look at.
    pub(super) fn put(&mut self, item: Item) -> Vec<String> {
        let uid = item.uid.clone();
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let old = self.items.insert(uid.clone(), item.clone());
        let mut look = Vec::new();
        if let Some(old) = old.filter(|old| old.owners != item.owners) {
            let lost: Vec<OwnerReference> = old
                .owners
                .iter()
                .filter(|owner| item.owners.iter().all(|other| other.uid != owner.uid))
                .cloned()
                .collect();
            look.extend(lost.iter().map(|owner| owner.uid.clone()));
            self.unlink(&Item { owners: lost, ..old });
        }
        if !item.owners.is_empty() || item.deleting {
            look.push(uid.clone());
        }
        // A blocking reference that changed may be what an owner waits for.
        look.extend(
            item.owners
                .iter()
                .filter(|o| self.items.get(&o.uid).is_some_and(Item::waits))
                .map(|o| o.uid.clone()),
        );
        if item.waits() {
            look.extend(self.dependents(&uid).map(|dependent| dependent.uid.clone()));
        }
        look
    }

    /// An object is gone; returns the uids to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut look: Vec<String> = self.dependents(uid).map(|dependent| dependent.uid.clone()).collect();
        if let Some(item) = self.items.remove(uid) {
            look.extend(item.owners.iter().map(|owner| owner.uid.clone()));
            self.unlink(&item);
        }
        self.absent.insert(uid.to_owned());
        look
    }

    /// Takes over a complete list of one kind; returns the uids to look at.
    pub(super) fn replace(&mut self, kind: usize, items: Vec<Item>) -> Vec<String> {
        let listed: HashSet<&str> = items.iter().map(|item| item.uid.as_str()).collect();
        let gone =
            self.items.values().filter(|item| item.kind == kind && !listed.contains(item.uid.as_str()));
        let gone: Vec<String> = gone.map(|item| item.uid.clone()).collect();
        let mut look: Vec<String> = gone.iter().flat_map(|uid| self.remove(uid)).collect();
        look.extend(items.into_iter().flat_map(|item| self.put(item)));
        look
    }

    /// An object, and those of its owners of which nothing is known.
    pub(super) fn look(&self, uid: &str) -> Option<(Item, Vec<OwnerReference>)> {
        let item = self.items.get(uid)?;
        let known =
            |owner: &&OwnerReference| self.items.contains_key(&owner.uid) || self.absent.contains(&owner.uid);
        let unknown = item.owners.iter().filter(|owner| !known(owner)).cloned().collect();
        Some((item.clone(), unknown))
    }

    /// Whether an object waits, over whatever chain of dependents, for another one to go.
    fn waits_for(&self, uid: &str, other: &str) -> bool {
        let (mut seen, mut next) = (HashSet::new(), vec![uid]);
        while let Some(at) = next.pop() {
            if at == other {
                return true;
            }
            if seen.insert(at) && self.items.get(at).is_some_and(Item::waits) {
                let blocking = self.dependents(at).filter(|dependent| dependent.blocks(at));
                next.extend(blocking.map(|dependent| dependent.uid.as_str()));
            }
        }
        false
    }

    /// Decides about one object, once its owners are known to be there or absent.
    pub(super) fn plan(&self, uid: &str) -> Plan {
        let Some(item) = self.items.get(uid) else { return Plan::Nothing };
        if item.deleting && item.has(ORPHAN) {
            return Plan::Orphan(self.dependents(uid).cloned().collect());
        }
        if item.waits() {
            let mut blocking = self.dependents(uid).filter(|dependent| dependent.blocks(uid));
            // Owners in a ring would wait for each other for ever: what waits for this one itself does not hold it.
            let held = blocking.any(|dependent| !self.waits_for(&dependent.uid, uid));
            if !held {
                return Plan::Release;
            }
            let fresh = self.dependents(uid).filter(|dependent| !dependent.deleting);
            return Plan::DeleteDependents(fresh.map(|dependent| dependent.uid.clone()).collect());
        }
        if item.deleting || item.owners.is_empty() {
            return Plan::Nothing;
        }
        let gone = |owner: &&OwnerReference| {
            self.absent.contains(&owner.uid) && !self.items.contains_key(&owner.uid)
        };
        let waiting = |owner: &&OwnerReference| self.items.get(&owner.uid).is_some_and(Item::waits);
        let lost = item.owners.iter().filter(|owner| gone(owner) || waiting(owner)).count();
        if lost < item.owners.len() {
            let lost = item.owners.iter().filter(|owner| gone(owner) || waiting(owner));
            let lost: Vec<String> = lost.map(|owner| owner.uid.clone()).collect();
            return if lost.is_empty() { Plan::Nothing } else { Plan::Detach(lost) };
        }
        let policy =
            if item.owners.iter().any(|owner| waiting(&owner)) && self.dependents(uid).next().is_some() {
                PropagationPolicy::Foreground
            } else if item.has(ORPHAN) {
                PropagationPolicy::Orphan
            } else if item.has(FOREGROUND) {
                PropagationPolicy::Foreground
            } else {
                PropagationPolicy::Background
            };
        Plan::Delete(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(uid: &str, owners: &[&str], finalizers: &[&str], deleting: bool) -> Item {
        let owner = |uid: &&str| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(true),
            ..OwnerReference::default()
        };
        Item {
            uid: uid.to_owned(),
            name: uid.to_owned(),
            owners: owners.iter().map(owner).collect(),
            finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
            deleting,
            ..Item::default()
        }
    }

    #[test]
    fn dependents_follow_their_owner() {
        let mut graph = Graph::default();
        graph.put(item("d", &[], &[], false));
        assert_eq!(graph.put(item("rs", &["d"], &[], false)), ["rs"]);
        graph.put(item("pod", &["rs"], &[], false));
        assert_eq!(graph.plan("rs"), Plan::Nothing);
        assert_eq!(graph.remove("d"), ["rs"]);
        assert_eq!(graph.plan("rs"), Plan::Delete(PropagationPolicy::Background));
        assert_eq!(graph.plan("pod"), Plan::Nothing);
        assert_eq!(graph.remove("rs"), ["pod", "d"]);
        assert_eq!(graph.plan("pod"), Plan::Delete(PropagationPolicy::Background));
    }

    #[test]
    fn the_foreground_waits_for_what_blocks() {
        let mut graph = Graph::default();
        graph.put(item("rs", &["d"], &[], false));
        graph.put(item("pod", &["rs"], &[], false));
        assert_eq!(graph.put(item("d", &[], &[FOREGROUND], true)), ["d", "rs"]);
        assert_eq!(graph.plan("d"), Plan::DeleteDependents(vec!["rs".to_owned()]));
        assert_eq!(graph.plan("rs"), Plan::Delete(PropagationPolicy::Foreground));
        graph.put(item("rs", &["d"], &[FOREGROUND], true));
        assert_eq!(graph.plan("pod"), Plan::Delete(PropagationPolicy::Background));
        assert_eq!(graph.remove("pod"), ["rs"]);
        assert_eq!(graph.plan("rs"), Plan::Release);
        assert_eq!(graph.remove("rs"), ["d"]);
        assert_eq!(graph.plan("d"), Plan::Release);
    }

    #[test]
    fn a_ring_of_owners_is_let_go() {
        let mut graph = Graph::default();
        graph.put(item("a", &["c"], &[], false));
        graph.put(item("b", &["a"], &[], false));
        graph.put(item("c", &["b"], &[], false));
        graph.put(item("a", &["c"], &[FOREGROUND], true));
        assert_eq!(graph.plan("a"), Plan::DeleteDependents(vec!["b".to_owned()]));
        assert_eq!(graph.plan("b"), Plan::Delete(PropagationPolicy::Foreground));
        graph.put(item("b", &["a"], &[FOREGROUND], true));
        assert_eq!(graph.plan("c"), Plan::Delete(PropagationPolicy::Foreground));
        graph.put(item("c", &["b"], &[FOREGROUND], true));
        assert_eq!(graph.plan("c"), Plan::Release);
        graph.remove("c");
        assert_eq!(graph.plan("b"), Plan::Release);
        graph.remove("b");
        assert_eq!(graph.plan("a"), Plan::Release);
    }

    #[test]
    fn orphans_stay_and_shared_dependents_are_detached() {
        let mut graph = Graph::default();
        graph.put(item("pod", &["rs"], &[], false));
        graph.put(item("rs", &[], &[ORPHAN], true));
        assert!(matches!(graph.plan("rs"), Plan::Orphan(pods) if pods.len() == 1));
        graph.put(item("a", &[], &[], false));
        graph.put(item("shared", &["a", "b"], &[], false));
        assert_eq!(graph.look("shared").unwrap().1.len(), 1, "b was never seen");
        graph.absent.insert("b".to_owned());
        assert_eq!(graph.plan("shared"), Plan::Detach(vec!["b".to_owned()]));
    }
}
