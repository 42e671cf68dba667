//! Chains and rules in iptables' own words.

use std::collections::BTreeMap;

/// The chains of one table, each with its rules in order; a rule is iptables' text without `-A CHAIN`.
pub(super) type Chains = BTreeMap<String, Vec<String>>;

/// A table of the kernel's packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Filter,
    Nat,
}

impl Table {
    /// Both, in the order in which they are written.
    pub(super) const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// The name in iptables' own words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// All chains that the proxy has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    filter: Chains,
    nat: Chains,
}

impl Rules {
    /// The chains of a table.
    pub(super) fn table(&self, table: Table) -> &Chains {
        match table {
            Table::Filter => &self.filter,
            Table::Nat => &self.nat,
        }
    }

    fn table_mut(&mut self, table: Table) -> &mut Chains {
        match table {
            Table::Filter => &mut self.filter,
            Table::Nat => &mut self.nat,
        }
    }

    /// Appends a rule.
    pub(super) fn push(&mut self, table: Table, chain: &str, rule: String) {
        let chains = self.table_mut(table);
        match chains.get_mut(chain) {
            Some(rules) => rules.push(rule),
            None => {
                chains.insert(chain.to_owned(), vec![rule]);
            }
        }
    }

    /// The rules of the chains that are named.
    pub(super) fn shared<'a>(
        &'a self,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = (Table, &'static str, String)> + 'a {
        Table::ALL.into_iter().flat_map(move |table| {
            let named = names.iter().filter_map(move |name| Some((*name, self.table(table).get(*name)?)));
            named.flat_map(move |(name, rules)| rules.iter().map(move |rule| (table, name, rule.clone())))
        })
    }

    /// All chains but those that are named.
    pub(super) fn others(
        &self,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = (Table, &String, &Vec<String>)> {
        Table::ALL.into_iter().flat_map(move |table| {
            let chains = self.table(table).iter().filter(move |(name, _)| !names.contains(&name.as_str()));
            chains.map(move |(name, rules)| (table, name, rules))
        })
    }

    /// Makes sure that a chain is there, rules or not.
    pub(super) fn chain(&mut self, table: Table, chain: &str) {
        self.table_mut(table).entry(chain.to_owned()).or_default();
    }
}
