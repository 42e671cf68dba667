//! The one transaction that leads from what a table is known to hold to what it shall hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::table::{Chain, Set, Table};

/// Elements are written so many to a line.
const PER_LINE: usize = 100;

/// What a table holds: hashes of chains, and elements. Nothing is known of a fresh one, which is then replaced whole.
#[derive(Clone, Debug, Default)]
pub struct Known(Option<Held>);

#[derive(Clone, Debug, Default)]
struct Held {
    chains: BTreeMap<String, u64>,
    sets: BTreeMap<String, (bool, Option<BTreeMap<String, String>>)>,
}

impl Known {
    /// Exactly this table is there, or this part of one of which nothing else is spoken.
    pub fn of(table: &Table) -> Self {
        let chains = table.chains.iter().map(|(name, chain)| (name.clone(), hash(chain))).collect();
        let sets = table.sets.iter().map(|(name, set)| (name.clone(), (set.is_map, set.elements.clone())));
        Self(Some(Held { chains, sets: sets.collect() }))
    }

    /// The batch that makes `table` so, empty where it is so already, and what is known once it is applied.
    pub fn batch(&self, table: &Table) -> (String, Self) {
        let mut writer = Writer { table, text: String::new() };
        match &self.0 {
            Some(held) => writer.step(held),
            None => {
                let at = format!("table {} {}", table.family, table.name);
                let _ = write!(writer.text, "add {at}\ndelete {at}\nadd {at}\n");
                writer.step(&Held::default());
            }
        }
        (writer.text, Self::of(table))
    }
}

fn hash(chain: &Chain) -> u64 {
    let mut hasher = DefaultHasher::new();
    chain.rules.hash(&mut hasher);
    hasher.finish()
}

struct Writer<'a> {
    table: &'a Table,
    text: String,
}

impl Writer<'_> {
    fn line(&mut self, verb: &str, what: &str, name: &str, rest: &str) {
        let (family, table) = (self.table.family, self.table.name);
        let space = if rest.is_empty() { "" } else { " " };
        let _ = writeln!(self.text, "{verb} {what} {family} {table} {name}{space}{rest}");
    }

    /// What refers to something comes after it is made and goes before it is gone.
    fn step(&mut self, held: &Held) {
        let table = self.table;
        for (name, set) in table.sets.iter().filter(|(name, _)| !held.sets.contains_key(*name)) {
            let kind = if set.is_map { "map" } else { "set" };
            self.line("add", kind, name, &format!("{{ {} }}", set.definition));
        }
        for (name, chain) in table.chains.iter().filter(|(name, _)| !held.chains.contains_key(*name)) {
            let hook = chain.hook.map(|hook| format!("{{ {hook} }}")).unwrap_or_default();
            self.line("add", "chain", name, &hook);
        }
        for (name, known) in &held.sets {
            self.remove_elements(name, known.1.as_ref(), table.sets.get(name));
        }
        let gone = || held.chains.keys().filter(|name| !table.chains.contains_key(*name));
        for name in gone() {
            self.line("flush", "chain", name, "");
        }
        for (name, chain) in &table.chains {
            let known = held.chains.get(name);
            if known == Some(&hash(chain)) {
                continue;
            }
            if known.is_some() {
                self.line("flush", "chain", name, "");
            }
            for rule in &chain.rules {
                self.line("add", "rule", name, rule);
            }
        }
        for (name, set) in &table.sets {
            self.add_elements(name, set, held.sets.get(name).and_then(|(_, elements)| elements.as_ref()));
        }
        for name in gone() {
            self.line("delete", "chain", name, "");
        }
        for (name, (is_map, _)) in held.sets.iter().filter(|(name, _)| !table.sets.contains_key(*name)) {
            self.line("delete", if *is_map { "map" } else { "set" }, name, "");
        }
    }

    /// Elements that go, or whose value changes; those of a set that goes as well, as they may refer to chains.
    fn remove_elements(&mut self, name: &str, known: Option<&BTreeMap<String, String>>, set: Option<&Set>) {
        let wanted = set.and_then(|set| set.elements.as_ref());
        let gone: Vec<String> = known
            .into_iter()
            .flatten()
            .filter(|(key, value)| wanted.and_then(|wanted| wanted.get(*key)) != Some(value))
            .map(|(key, value)| element(key, value))
            .collect();
        self.elements("delete", name, &gone);
    }

    fn add_elements(&mut self, name: &str, set: &Set, known: Option<&BTreeMap<String, String>>) {
        let new: Vec<String> = set
            .elements
            .iter()
            .flatten()
            .filter(|(key, value)| known.and_then(|known| known.get(*key)) != Some(value))
            .map(|(key, value)| element(key, value))
            .collect();
        self.elements("add", name, &new);
    }

    fn elements(&mut self, verb: &str, name: &str, elements: &[String]) {
        for some in elements.chunks(PER_LINE) {
            self.line(verb, "element", name, &format!("{{ {} }}", some.join(", ")));
        }
    }
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} : {value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, &str)], chains: &[(&str, &[&str])]) -> Table {
        let mut table = Table::new("ip", "t");
        let map = table.map("m", "type ipv4_addr : verdict;");
        map.extend(entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        for (chain, rules) in chains {
            table.chain(chain);
            rules.iter().for_each(|rule| table.rule(chain, *rule));
        }
        table
    }

    #[test]
    fn the_first_replaces_and_the_next_write_only_what_changed() {
        let first = table(&[("10.0.0.1", "goto a")], &[("a", &["accept"]), ("b", &["drop"])]);
        let (batch, known) = Known::default().batch(&first);
        let expect = "add table ip t\ndelete table ip t\nadd table ip t\n\
            add map ip t m { type ipv4_addr : verdict; }\nadd chain ip t a\nadd chain ip t b\n\
            add rule ip t a accept\nadd rule ip t b drop\nadd element ip t m { 10.0.0.1 : goto a }\n";
        assert_eq!(batch, expect);
        assert_eq!(known.batch(&first).0, "");

        let second = table(&[("10.0.0.1", "goto c")], &[("b", &["accept"]), ("c", &["drop"])]);
        let (batch, known) = known.batch(&second);
        let expect = "add chain ip t c\ndelete element ip t m { 10.0.0.1 : goto a }\nflush chain ip t a\n\
            flush chain ip t b\nadd rule ip t b accept\nadd rule ip t c drop\n\
            add element ip t m { 10.0.0.1 : goto c }\ndelete chain ip t a\n";
        assert_eq!(batch, expect);

        let mut third = second;
        third.sets.clear();
        third.dynamic_set("seen", "type ipv4_addr; flags dynamic,timeout; timeout 5s;");
        let expect = "add set ip t seen { type ipv4_addr; flags dynamic,timeout; timeout 5s; }\n\
            delete element ip t m { 10.0.0.1 : goto c }\ndelete map ip t m\n";
        assert_eq!(known.batch(&third).0, expect);
    }
}
