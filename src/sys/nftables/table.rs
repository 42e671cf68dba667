//! A table as we want it: sets, maps and chains by name.

use std::collections::BTreeMap;

/// A set, or a map where its elements have values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// What stands between the braces of its definition. It never changes for a name.
    pub definition: String,
    /// Elements, with their values in a map; None where packets fill the set and nobody else.
    pub elements: Option<BTreeMap<String, String>>,
    pub is_map: bool,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// What stands between the braces of a base chain's definition.
    pub hook: Option<&'static str>,
    pub rules: Vec<String>,
}

/// A table of ours: nobody else's rules are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub family: &'static str,
    pub name: &'static str,
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
}

impl Table {
    /// An empty table.
    pub fn new(family: &'static str, name: &'static str) -> Self {
        Self { family, name, sets: BTreeMap::new(), chains: BTreeMap::new() }
    }

    /// Adds a base chain with its rules.
    pub fn base(&mut self, name: &str, hook: &'static str, rules: &[&str]) {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        self.chains.insert(name.to_owned(), Chain { hook: Some(hook), rules });
    }

    /// Makes sure that a chain is there, rules or not.
    pub fn chain(&mut self, name: &str) -> &mut Vec<String> {
        &mut self.chains.entry(name.to_owned()).or_default().rules
    }

    /// Appends a rule.
    pub fn rule(&mut self, chain: &str, rule: impl Into<String>) {
        let rule = rule.into();
        match self.chains.get_mut(chain) {
            Some(chain) => chain.rules.push(rule),
            None => self.chain(chain).push(rule),
        }
    }

    /// Makes sure that a set of this definition is there.
    pub fn set(&mut self, name: &str, definition: &str) -> &mut BTreeMap<String, String> {
        self.define(name, definition, false)
    }

    /// Makes sure that a map of this definition is there.
    pub fn map(&mut self, name: &str, definition: &str) -> &mut BTreeMap<String, String> {
        self.define(name, definition, true)
    }

    fn define(&mut self, name: &str, definition: &str, is_map: bool) -> &mut BTreeMap<String, String> {
        let fresh = || Set { definition: definition.to_owned(), elements: None, is_map };
        self.sets.entry(name.to_owned()).or_insert_with(fresh).elements.get_or_insert_default()
    }

    /// Makes sure that a set of this definition is there, which packets fill.
    pub fn dynamic_set(&mut self, name: &str, definition: &str) {
        let fresh = || Set { definition: definition.to_owned(), elements: None, is_map: false };
        self.sets.entry(name.to_owned()).or_insert_with(fresh);
    }
}
