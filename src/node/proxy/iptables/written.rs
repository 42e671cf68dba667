//! What the kernel holds of each Service, and the batch that leads from there to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::JUMPS;
use super::chains::{Rules, Table};
use super::text::{SHARED, service, shared};
use crate::network::{Changed, ServiceKey};
use crate::proxy::plan::{Plan, ServicePort};

/// Chains that come and go with Services: found without a plan for them, they are left over.
const PER_SERVICE: &[&str] = &["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-"];

/// What the kernel is known to hold.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Chains and a hash of their rules; None where the chain is there with rules nobody knows.
    pub chains: BTreeMap<(Table, String), Option<u64>>,
    /// The jumps that are in place, as positions in `JUMPS`.
    pub jumps: BTreeSet<usize>,
}

/// What was written over what was found.
#[derive(Debug)]
pub(super) struct Written {
    known: Known,
    /// Pods' addresses and ClusterIPs; None while nothing was written.
    ranges: Option<(Ipv4Net, Option<Ipv4Net>)>,
    ports: BTreeMap<ServiceKey, Arc<[ServicePort]>>,
}

fn hash(rules: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}

/// The text of one table.
#[derive(Default)]
struct Text {
    chains: String,
    body: String,
}

impl Written {
    /// Nothing was written yet.
    pub(super) fn over(known: Known) -> Self {
        Self { known, ranges: None, ports: BTreeMap::new() }
    }

    /// The batch that makes the chains as `plan` has them, empty where they are so already. Of Services it looks at what
    /// changed; a change of what the shared chains say of one writes those again, as kube-proxy does.
    pub(super) fn batch(&mut self, plan: &Plan, changed: &Changed) -> String {
        let ranges = (plan.pods, plan.cluster_ips);
        let first = self.ranges != Some(ranges);
        let mut texts = [Text::default(), Text::default()];
        let mut again = first;
        let mut gone = BTreeSet::new();
        for key in self.concerned(plan, changed, first) {
            let of = |ports: Option<&Arc<[ServicePort]>>| {
                ports.map(|ports| service(plan.pods, ports)).unwrap_or_default()
            };
            let (old, new) = (of(self.ports.get(&key)), of(plan.services.get(&key)));
            again |= !old.shared(SHARED).eq(new.shared(SHARED));
            for (table, chain, rules) in new.others(SHARED) {
                self.write(&mut texts, table, chain, rules);
            }
            let kept = |table: Table, chain: &String| new.table(table).contains_key(chain);
            let all = old.others(SHARED).map(|(table, chain, _)| (table, chain));
            gone.extend(
                all.filter(|(table, chain)| !kept(*table, chain)).map(|(t, chain)| (t, chain.clone())),
            );
            match plan.services.get(&key) {
                Some(ports) => self.ports.insert(key, ports.clone()),
                None => self.ports.remove(&key),
            };
        }
        if again {
            self.write_shared(&mut texts, &shared(plan));
        }
        if first {
            gone.extend(self.leftovers(plan));
            self.ranges = Some(ranges);
        }
        for (table, chain) in gone {
            // Emptied first: a chain can only be deleted when nothing leads to it, leftovers among themselves included.
            let text = &mut texts[table as usize];
            let _ = writeln!(text.chains, ":{chain} - [0:0]");
            let _ = writeln!(text.body, "-X {chain}");
            self.known.chains.remove(&(table, chain));
        }
        self.finish(texts)
    }

    /// The Services whose ports differ from what was written.
    fn concerned(&self, plan: &Plan, changed: &Changed, first: bool) -> BTreeSet<ServiceKey> {
        let differs = |key: &&ServiceKey| first || self.ports.get(*key) != plan.services.get(*key);
        match changed {
            Changed::Of(keys) if !first => keys.iter().filter(differs).cloned().collect(),
            _ => self.ports.keys().chain(plan.services.keys()).filter(differs).cloned().collect(),
        }
    }

    fn write(&mut self, texts: &mut [Text; 2], table: Table, chain: &String, rules: &[String]) {
        let sum = Some(hash(rules));
        let known = self.known.chains.insert((table, chain.clone()), sum);
        if known == Some(sum) {
            return;
        }
        let text = &mut texts[table as usize];
        let _ = writeln!(text.chains, ":{chain} - [0:0]");
        for rule in rules {
            let _ = writeln!(text.body, "-A {chain} {rule}");
        }
    }

    fn write_shared(&mut self, texts: &mut [Text; 2], rules: &Rules) {
        for table in Table::ALL {
            for (chain, rules) in rules.table(table) {
                self.write(texts, table, chain, rules);
            }
        }
    }

    /// Chains of Services that are no more. Others' chains (the kubelet's canary, say) are not ours to delete.
    fn leftovers(&self, plan: &Plan) -> Vec<(Table, String)> {
        let mut wanted = BTreeSet::new();
        for ports in plan.services.values() {
            wanted.extend(
                service(plan.pods, ports).others(SHARED).map(|(table, chain, _)| (table, chain.clone())),
            );
        }
        let per_service = |chain: &String| PER_SERVICE.iter().any(|prefix| chain.starts_with(prefix));
        let found = self.known.chains.keys();
        found.filter(|key| per_service(&key.1) && !wanted.contains(*key)).cloned().collect()
    }

    fn finish(&mut self, texts: [Text; 2]) -> String {
        let mut batch = String::new();
        for (table, mut text) in Table::ALL.into_iter().zip(texts) {
            let jumps = (0..JUMPS.len()).rev().filter(|at| JUMPS[*at].table == table);
            for at in jumps {
                if !self.known.jumps.insert(at) {
                    continue;
                }
                let jump = &JUMPS[at];
                let matching = if jump.matching.is_empty() { "" } else { " " };
                let _ = writeln!(text.body, "-I {}{matching}{} -j {}", jump.from, jump.matching, jump.to);
            }
            if !text.chains.is_empty() || !text.body.is_empty() {
                let _ = write!(batch, "*{}\n{}{}COMMIT\n", table.name(), text.chains, text.body);
            }
        }
        batch
    }
}
