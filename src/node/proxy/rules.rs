use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::node::network::ServiceKey;

/// The chains of one table, each with its rules in order; a rule is iptables' text without `-A CHAIN`.
pub type Chains = BTreeMap<String, Vec<String>>;

/// A table of the kernel's packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Filter,
    Nat,
}

impl Table {
    /// Both, in the order in which they are written.
    pub const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// The name in iptables' own words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// What answers on a Service's healthCheckNodePort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: ServiceKey,
    pub local_endpoints: usize,
}

/// Where UDP packets of a Service arrive: an address with a port, or a port on every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    Address(Ipv4Addr, u16),
    NodePort(u16),
}

/// All that the proxy makes true on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub filter: Chains,
    pub nat: Chains,
    /// By healthCheckNodePort.
    pub health: BTreeMap<u16, HealthCheck>,
    /// UDP entries and their endpoints: the kernel goes on sending known flows to endpoints that are gone, so their
    /// connection tracking entries are deleted when they go.
    pub udp: BTreeMap<Flow, BTreeSet<Ipv4Addr>>,
}

impl Rules {
    /// The chains of a table.
    pub fn table(&self, table: Table) -> &Chains {
        match table {
            Table::Filter => &self.filter,
            Table::Nat => &self.nat,
        }
    }

    pub(super) fn push(&mut self, table: Table, chain: &str, rule: String) {
        let chains = match table {
            Table::Filter => &mut self.filter,
            Table::Nat => &mut self.nat,
        };
        match chains.get_mut(chain) {
            Some(rules) => rules.push(rule),
            None => {
                chains.insert(chain.to_owned(), vec![rule]);
            }
        }
    }

    pub(super) fn chain(&mut self, table: Table, chain: &str) {
        let chains = match table {
            Table::Filter => &mut self.filter,
            Table::Nat => &mut self.nat,
        };
        chains.entry(chain.to_owned()).or_default();
    }
}
