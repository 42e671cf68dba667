//! Says where a packet goes under a set of iptables rules, with which probability. It reads the very text that goes to
//! iptables-restore, and stops at any word that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Where a packet comes from, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From a process on the node: OUTPUT.
    Node,
    /// From an interface: PREROUTING.
    Wire,
}

/// The first packet of a connection.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: From,
    pub source: Ipv4Addr,
    pub to: Ipv4Addr,
    pub port: u16,
    pub protocol: &'static str,
}

/// A packet on its way through the rules.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) packet: Packet,
    pub(super) mark: u32,
    pub(super) translated: bool,
}

/// What a rule says to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Reject,
    Masquerade,
    /// The rule was no decision: the next one follows.
    Next,
    /// Back to the calling chain.
    Return,
}

/// Where a packet may end up, and how likely each is.
pub(super) type Ends = Vec<(f64, Verdict, State)>;

/// One rule: its words, comments taken out.
type Rule = Vec<String>;

/// Rules as the kernel would have them.
#[derive(Debug, Default)]
pub struct Tracer {
    chains: BTreeMap<(String, String), Vec<Rule>>,
    /// The node's own addresses.
    local: BTreeSet<Ipv4Addr>,
    /// `recent` lists that know the packet's source.
    pub recent: BTreeSet<String>,
}

impl Tracer {
    /// A kernel without rules, on a node with these addresses.
    pub fn of(local: BTreeSet<Ipv4Addr>) -> Self {
        Self { local, ..Self::default() }
    }

    /// Reads a batch for iptables-restore.
    pub fn apply(&mut self, batch: &str) {
        let mut table = String::new();
        for line in batch.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().expect("a name").to_owned();
                self.chains.insert((table.clone(), name), Vec::new());
            } else if line != "COMMIT" {
                let mut words = words(line).into_iter();
                let how = words.next().expect("a command");
                let chain = words.next().expect("a chain");
                if how == "-X" {
                    let used = self.chains.iter().any(|(key, rules)| {
                        key.0 == table && rules.iter().flatten().any(|word| *word == chain)
                    });
                    assert!(!used, "{chain} is in use");
                    assert_eq!(self.chains.remove(&(table.clone(), chain)), Some(Vec::new()));
                    continue;
                }
                let rules = self.chains.entry((table.clone(), chain)).or_default();
                let rule = words.collect();
                match how.as_str() {
                    "-A" => rules.push(rule),
                    "-I" => rules.insert(0, rule),
                    other => panic!("no such command here: {other}"),
                }
            }
        }
    }

    /// The fates of a packet and their probabilities: `10.42.0.7:80`, `… as node` where its source becomes the
    /// node's, `refused`, `dropped`, and `untouched` (with its destination) otherwise.
    pub fn trace(&self, packet: &Packet) -> BTreeMap<String, f64> {
        let state = State { packet: packet.clone(), mark: 0, translated: false };
        let entry = match packet.from {
            From::Node => "OUTPUT",
            From::Wire => "PREROUTING",
        };
        let mut fates = BTreeMap::new();
        for (chance, _, state) in self.walk("nat", entry, state) {
            let hook = match packet.from {
                From::Node => "OUTPUT",
                From::Wire if self.local.contains(&state.packet.to) => "INPUT",
                From::Wire => "FORWARD",
            };
            for (filtered, verdict, state) in self.walk("filter", hook, state) {
                for (left, fate) in self.fate(verdict, state) {
                    *fates.entry(fate).or_default() += chance * filtered * left;
                }
            }
        }
        fates
    }

    fn fate(&self, verdict: Verdict, state: State) -> Vec<(f64, String)> {
        match verdict {
            Verdict::Drop => vec![(1.0, "dropped".into())],
            Verdict::Reject => vec![(1.0, "refused".into())],
            _ => {
                let what = if state.translated { "" } else { "untouched " };
                let to = format!("{what}{}:{}", state.packet.to, state.packet.port);
                let ends = self.walk("nat", "POSTROUTING", state);
                let name = |verdict| match verdict {
                    Verdict::Masquerade => format!("{to} as node"),
                    _ => to.clone(),
                };
                ends.into_iter().map(|(chance, verdict, _)| (chance, name(verdict))).collect()
            }
        }
    }

    fn walk(&self, table: &str, chain: &str, state: State) -> Ends {
        let key = (table.to_owned(), chain.to_owned());
        let builtin = ["INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"].contains(&chain);
        let none = Vec::new();
        let rules = match self.chains.get(&key) {
            Some(rules) => rules,
            None if builtin => &none,
            None => panic!("no chain {chain} in {table}"),
        };
        let mut ends = Vec::new();
        let mut going = vec![(1.0, state)];
        for rule in rules {
            let mut next = Vec::new();
            for (chance, state) in going {
                let hit = self.matches(rule, &state);
                if hit < 1.0 {
                    next.push((chance * (1.0 - hit), state.clone()));
                }
                if hit > 0.0 {
                    for (of, verdict, state) in self.target(table, rule, state) {
                        match verdict {
                            Verdict::Next => next.push((chance * hit * of, state)),
                            end => ends.push((chance * hit * of, end, state)),
                        }
                    }
                }
            }
            going = next;
        }
        ends.extend(going.into_iter().map(|(chance, state)| (chance, Verdict::Next, state)));
        // For the caller, a chain that was left is a rule that decided nothing.
        let for_caller = |verdict| if verdict == Verdict::Return { Verdict::Next } else { verdict };
        ends.into_iter().map(|(chance, verdict, state)| (chance, for_caller(verdict), state)).collect()
    }

    fn target(&self, table: &str, rule: &Rule, mut state: State) -> Ends {
        let Some(at) = rule.iter().position(|word| word == "-j") else {
            return vec![(1.0, Verdict::Next, state)];
        };
        let number =
            |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).expect("hexadecimal");
        let argument = rule.get(at + 2).map(String::as_str);
        let verdict = match (rule[at + 1].as_str(), argument) {
            ("RETURN", None) => Verdict::Return,
            ("ACCEPT", None) => Verdict::Accept,
            ("DROP", None) => Verdict::Drop,
            ("REJECT", None) => Verdict::Reject,
            ("MASQUERADE", Some("--random-fully")) => Verdict::Masquerade,
            ("MARK", Some("--or-mark")) => {
                state.mark |= number(&rule[at + 3]);
                Verdict::Next
            }
            ("MARK", Some("--xor-mark")) => {
                state.mark ^= number(&rule[at + 3]);
                Verdict::Next
            }
            ("DNAT", Some("--to-destination")) => {
                let (ip, port) = rule[at + 3].split_once(':').expect("address and port");
                state.packet.to = ip.parse().expect("address");
                state.packet.port = port.parse().expect("port");
                state.translated = true;
                Verdict::Accept
            }
            (chain, None) => return self.walk(table, chain, state),
            (target, argument) => panic!("no such target here: {target} {argument:?}"),
        };
        vec![(1.0, verdict, state)]
    }

    /// The probability with which a rule matches: 0, 1, or what `statistic` says.
    fn matches(&self, rule: &Rule, state: &State) -> f64 {
        let packet = &state.packet;
        let mut words = rule.iter().map(String::as_str);
        let mut not = false;
        let mut chance = 1.0;
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} has no value"));
            let holds = match word {
                "!" => {
                    not = true;
                    continue;
                }
                "-j" => break,
                "-m" | "--mode" | "--seconds" => {
                    value();
                    continue;
                }
                "--reap" => continue,
                "-p" => value() == packet.protocol,
                "-s" => network(value()).contains(&packet.source),
                "-d" => network(value()).contains(&packet.to),
                "--dport" => value() == packet.port.to_string(),
                "--src-type" => value() == "LOCAL" && self.local.contains(&packet.source),
                "--dst-type" => value() == "LOCAL" && self.local.contains(&packet.to),
                "--mark" => marked(value(), state.mark),
                "--ctstate" => value().split(',').any(|s| s == "NEW" || (s == "DNAT" && state.translated)),
                "--probability" => {
                    chance *= value().parse::<f64>().expect("a number");
                    continue;
                }
                "--name" => {
                    let list = value();
                    if words.clone().next() == Some("--rcheck") { self.recent.contains(list) } else { true }
                }
                "--rcheck" | "--set" => continue,
                other => panic!("no such match here: {other} in {rule:?}"),
            };
            if holds == not {
                return 0.0;
            }
            not = false;
        }
        chance
    }
}

fn network(text: &str) -> Ipv4Net {
    text.parse().unwrap_or_else(|_| panic!("{text} is no network"))
}

fn marked(text: &str, mark: u32) -> bool {
    let number = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).expect("hexadecimal");
    let (value, mask) = text.split_once('/').expect("value and mask");
    mark & number(mask) == number(value)
}

/// The words of a line; quotes hold words together, and comments are left out.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut quoted = line.split('"');
    while let Some(plain) = quoted.next() {
        all.extend(plain.split_whitespace().map(str::to_owned));
        all.extend(quoted.next().map(str::to_owned));
    }
    let mut kept = Vec::new();
    let mut all = all.into_iter();
    while let Some(word) = all.next() {
        if word == "--comment" {
            all.next();
        } else {
            kept.push(word);
        }
    }
    kept
}
