//! What the table holds of each Service, and the batch that leads from there to a plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::text::{self, Claim};
use crate::network::{Changed, ServiceKey};
use crate::proxy::plan::{Plan, ServicePort};
use sys::nftables::{Known, Table};

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    ports: BTreeMap<ServiceKey, Arc<[ServicePort]>>,
    /// Who claims a place in a map, most often one Service.
    claims: HashMap<Claim, Vec<ServiceKey>>,
    /// How many Services lead to an endpoint that may ask for itself.
    hairpins: HashMap<Ipv4Addr, u32>,
    /// Pods' addresses and ClusterIPs, of which fixed rules speak; None while nothing was written.
    ranges: Option<(Ipv4Net, Option<Ipv4Net>)>,
}

impl Written {
    /// The batch that makes the table as `plan` has it, empty where it is so already. What it costs grows with what has
    /// changed and with nothing else.
    pub(super) fn batch(&mut self, plan: &Plan, changed: &Changed) -> String {
        let ranges = (plan.pods, plan.cluster_ips);
        let fresh = self.ranges != Some(ranges);
        if fresh {
            *self = Self::default();
        }
        let mut concerned = self.concerned(plan, changed);
        let rivals = self.rivals(plan, &concerned);
        concerned.extend(rivals);
        let mut before = text::fixed(plan.pods, plan.cluster_ips);
        concerned.iter().for_each(|key| self.write(&mut before, plan.pods, key));
        let touched = self.take_over(plan, &concerned, &mut before);
        let mut after = text::fixed(plan.pods, plan.cluster_ips);
        concerned.iter().for_each(|key| self.write(&mut after, plan.pods, key));
        for address in touched.iter().filter(|address| self.hairpins.contains_key(*address)) {
            text::hairpin(&mut after, *address);
        }
        self.ranges = Some(ranges);
        let known = if fresh { Known::default() } else { Known::of(&before) };
        known.batch(&after).0
    }

    /// The Services whose ports differ from what was written.
    fn concerned(&self, plan: &Plan, changed: &Changed) -> BTreeSet<ServiceKey> {
        let differs = |key: &ServiceKey| self.ports.get(key) != plan.services.get(key);
        let differing =
            |keys: &mut dyn Iterator<Item = &ServiceKey>| keys.filter(|key| differs(key)).cloned().collect();
        match changed {
            Changed::Of(keys) if self.ranges.is_some() => differing(&mut keys.iter()),
            _ => differing(&mut self.ports.keys().chain(plan.services.keys())),
        }
    }

    /// Those with a claim to a place that one of `concerned` has or will have: they may win or lose it.
    fn rivals(&self, plan: &Plan, concerned: &BTreeSet<ServiceKey>) -> BTreeSet<ServiceKey> {
        let of =
            |ports: Option<&Arc<[ServicePort]>>| ports.map(|ports| text::claims(ports)).unwrap_or_default();
        let claims = concerned.iter().flat_map(|key| [of(self.ports.get(key)), of(plan.services.get(key))]);
        let claimants = claims.flatten().filter_map(|claim| self.claims.get(&claim));
        claimants.flatten().filter(|key| !concerned.contains(*key)).cloned().collect()
    }

    /// Writes what there is of a Service.
    fn write(&self, table: &mut Table, pods: Ipv4Net, key: &ServiceKey) {
        let Some(ports) = self.ports.get(key) else { return };
        let wins = |claim: &Claim| self.claims.get(claim).and_then(|keys| keys.iter().min()) == Some(key);
        text::service(table, pods, ports, &wins);
    }

    /// Takes over what the plan has of the Services. Answers the endpoints that may be another Service's hairpins as well;
    /// those that were there are noted in `before`.
    fn take_over(
        &mut self,
        plan: &Plan,
        concerned: &BTreeSet<ServiceKey>,
        before: &mut Table,
    ) -> BTreeSet<Ipv4Addr> {
        let mut touched = BTreeSet::new();
        for key in concerned {
            let old = self.ports.get(key).cloned().unwrap_or_default();
            let new = plan.services.get(key).cloned().unwrap_or_default();
            for claim in text::claims(&old) {
                if let Some(keys) = self.claims.get_mut(&claim) {
                    keys.retain(|claimant| claimant != key);
                    if keys.is_empty() {
                        self.claims.remove(&claim);
                    }
                }
            }
            for claim in text::claims(&new) {
                self.claims.entry(claim).or_default().push(key.clone());
            }
            let (gone, come) = (text::hairpins(&old), text::hairpins(&new));
            for address in gone.symmetric_difference(&come) {
                if touched.insert(*address) && self.hairpins.contains_key(address) {
                    text::hairpin(before, *address);
                }
                let count = self.hairpins.entry(*address).or_default();
                *count = if come.contains(address) { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    self.hairpins.remove(address);
                }
            }
            match plan.services.get(key) {
                Some(ports) => self.ports.insert(key.clone(), ports.clone()),
                None => self.ports.remove(key),
            };
        }
        touched
    }
}
