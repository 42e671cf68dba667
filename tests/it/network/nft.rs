//! Says where a packet goes under a table of nftables, with which probability. It reads the very text that goes to `nft`,
//! and stops at any word that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::tracer::{Ends, From, Packet, State, Verdict};

#[derive(Debug)]
struct Base {
    hook: String,
    priority: i32,
    chain: String,
}

/// A table as the kernel would have it.
#[derive(Debug, Default)]
pub struct Nft {
    chains: BTreeMap<String, Vec<String>>,
    bases: Vec<Base>,
    maps: BTreeMap<String, BTreeMap<String, String>>,
    /// The node's own addresses.
    local: BTreeSet<Ipv4Addr>,
    /// Sets filled by packets that know the packet's source.
    pub recent: BTreeSet<String>,
}

impl Nft {
    /// A kernel without a table, on a node with these addresses.
    pub fn of(local: BTreeSet<Ipv4Addr>) -> Self {
        Self { local, ..Self::default() }
    }

    /// Reads a batch: the one that makes a table, or one that changes it.
    pub fn apply(&mut self, batch: &str) {
        for line in batch.lines() {
            let mut words = line.splitn(6, ' ');
            let (verb, what) = (words.next().expect("a verb"), words.next().expect("what"));
            let (_family, _table) = (words.next().expect("a family"), words.next().expect("a table"));
            let Some(name) = words.next().map(str::to_owned) else {
                if verb == "delete" {
                    (self.chains, self.bases, self.maps) = Default::default();
                }
                continue;
            };
            let rest = words.next().unwrap_or_default();
            match (verb, what) {
                ("add", "chain") => self.chain(name, inside(rest)),
                ("add", "rule") => self.chains.get_mut(&name).expect("the chain is there").push(rest.into()),
                ("add", "set" | "map") => {
                    assert!(self.maps.insert(name, BTreeMap::new()).is_none(), "{line}")
                }
                ("add" | "delete", "element") => {
                    let map = self.maps.get_mut(&name).expect("the map is there");
                    for element in inside(rest).split(", ") {
                        let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
                        let old = if verb == "add" {
                            map.insert(key.into(), value.into())
                        } else {
                            map.remove(key)
                        };
                        let expect = (verb == "delete").then_some(value);
                        assert_eq!(old.as_deref(), expect, "{verb} {key} of {name}");
                    }
                }
                ("flush", "chain") => self.chains.get_mut(&name).expect("the chain is there").clear(),
                ("delete", "chain") => {
                    assert_eq!(self.chains.remove(&name), Some(Vec::new()), "{line}");
                    let texts =
                        self.chains.values().flatten().chain(self.maps.values().flat_map(BTreeMap::values));
                    let mut words = texts.flat_map(|text| text.split([' ', ',']));
                    assert!(!words.any(|word| word == name), "{name} is in use");
                }
                ("delete", "set" | "map") => assert!(self.maps.remove(&name).is_some(), "{line}"),
                other => panic!("no such command here: {other:?}"),
            }
        }
        self.bases.sort_by_key(|base| base.priority);
    }

    fn chain(&mut self, name: String, hook: &str) {
        if let Some((_, rest)) = hook.split_once(" hook ") {
            let (hook, rest) = rest.split_once(" priority ").expect("a priority");
            let priority = rest.split(';').next().expect("a number").parse().expect("a number");
            self.bases.push(Base { hook: hook.into(), priority, chain: name.clone() });
        }
        self.chains.insert(name, Vec::new());
    }

    /// The fates of a packet and their probabilities, in the words of the other tracer.
    pub fn trace(&self, packet: &Packet) -> BTreeMap<String, f64> {
        let mut going = vec![(1.0, State { packet: packet.clone(), mark: 0, translated: false })];
        let mut fates = BTreeMap::new();
        let first = if packet.from == From::Node { "output" } else { "prerouting" };
        going = self.hook(first, going, &mut fates);
        if packet.from == From::Wire {
            let (here, through) =
                going.into_iter().partition(|(_, state)| self.local.contains(&state.packet.to));
            going = self.hook("input", here, &mut fates);
            going.extend(self.hook("forward", through, &mut fates));
        }
        self.hook("postrouting", going, &mut fates);
        fates
    }

    /// Through all chains of a hook: those that end there are fates, all others go on.
    fn hook(
        &self,
        hook: &str,
        going: Vec<(f64, State)>,
        fates: &mut BTreeMap<String, f64>,
    ) -> Vec<(f64, State)> {
        let mut going: Vec<(f64, bool, State)> = going.into_iter().map(|(p, s)| (p, false, s)).collect();
        for base in self.bases.iter().filter(|base| base.hook == hook) {
            let mut next = Vec::new();
            for (chance, masked, state) in going {
                for (of, verdict, state) in self.walk(&base.chain, state) {
                    match verdict {
                        Verdict::Drop => *fates.entry("dropped".into()).or_default() += chance * of,
                        Verdict::Reject => *fates.entry("refused".into()).or_default() += chance * of,
                        Verdict::Masquerade => next.push((chance * of, true, state)),
                        _ => next.push((chance * of, masked, state)),
                    }
                }
            }
            going = next;
        }
        if hook == "postrouting" {
            for (chance, masked, state) in &going {
                let what = if state.translated { "" } else { "untouched " };
                let as_node = if *masked { " as node" } else { "" };
                let fate = format!("{what}{}:{}{as_node}", state.packet.to, state.packet.port);
                *fates.entry(fate).or_default() += chance;
            }
        }
        going.into_iter().map(|(chance, _, state)| (chance, state)).collect()
    }

    fn walk(&self, chain: &str, state: State) -> Ends {
        let rules = self.chains.get(chain).unwrap_or_else(|| panic!("no chain {chain}"));
        let mut ends = Vec::new();
        let mut going = vec![(1.0, state)];
        for rule in rules {
            let mut next = Vec::new();
            for (chance, state) in going {
                for (of, verdict, state) in self.rule(rule, state) {
                    match verdict {
                        Verdict::Next => next.push((chance * of, state)),
                        end => ends.push((chance * of, end, state)),
                    }
                }
            }
            going = next;
        }
        ends.extend(going.into_iter().map(|(chance, state)| (chance, Verdict::Next, state)));
        let for_caller = |verdict| if verdict == Verdict::Return { Verdict::Next } else { verdict };
        ends.into_iter().map(|(chance, verdict, state)| (chance, for_caller(verdict), state)).collect()
    }

    /// `goto x`, `jump x`, `drop`, …
    fn verdict(&self, text: &str, state: State) -> Ends {
        if let Some(chain) = text.strip_prefix("goto ") {
            let over = |verdict| if verdict == Verdict::Next { Verdict::Return } else { verdict };
            return self
                .walk(chain, state)
                .into_iter()
                .map(|(p, verdict, s)| (p, over(verdict), s))
                .collect();
        }
        if let Some(chain) = text.strip_prefix("jump ") {
            return self.walk(chain, state);
        }
        let verdict = match text {
            "drop" => Verdict::Drop,
            "accept" => Verdict::Accept,
            "return" => Verdict::Return,
            "masquerade fully-random" => Verdict::Masquerade,
            _ if text.starts_with("reject") => Verdict::Reject,
            other => panic!("no such verdict here: {other}"),
        };
        vec![(1.0, verdict, state)]
    }

    fn rule(&self, rule: &str, mut state: State) -> Ends {
        let mut rest = rule;
        let nothing = |state| vec![(1.0, Verdict::Next, state)];
        while !rest.is_empty() {
            let packet = &state.packet;
            let key = format!("{} . {}", packet.protocol, packet.port);
            if let Some(map) = rest.strip_prefix("ip daddr . meta l4proto . th dport vmap @") {
                return self.look_up(map, &format!("{} . {key}", packet.to), state);
            } else if let Some(map) = rest.strip_prefix("meta l4proto . th dport vmap @") {
                return self.look_up(map, &key, state);
            } else if let Some(after) = rest.strip_prefix("numgen random mod ") {
                let (count, verdicts) = after.split_once(" vmap ").expect("verdicts");
                let share = 1.0 / count.parse::<f64>().expect("a number");
                let each = inside(verdicts).split(", ").map(|v| v.split_once(" : ").expect("a verdict").1);
                let ends = each.flat_map(|verdict| self.verdict(verdict, state.clone()));
                return ends.map(|(chance, verdict, state)| (chance * share, verdict, state)).collect();
            } else if let Some(to) = rest.strip_prefix("dnat to ") {
                let (ip, port) = to.split_once(':').expect("address and port");
                state.packet.to = ip.parse().expect("address");
                state.packet.port = port.parse().expect("port");
                state.translated = true;
                return vec![(1.0, Verdict::Accept, state)];
            } else if let Some(by) = rest.strip_prefix("dnat ip to ") {
                return self.spread(by, &state);
            } else if let Some(set) = rest.strip_prefix("update @") {
                assert!(set.ends_with(" { ip saddr }") && self.maps.contains_key(&set[..set.len() - 13]));
                return nothing(state);
            } else if let Some(sum) = rest.strip_prefix("meta mark set meta mark ") {
                let bits = hexadecimal(&sum[2..]);
                state.mark = if sum.starts_with('|') { state.mark | bits } else { state.mark ^ bits };
                return nothing(state);
            }
            let Some((holds, after)) = self.matches(rest, &state) else { break };
            if !holds {
                return nothing(state);
            }
            rest = after.trim_start();
        }
        if rest.is_empty() { nothing(state) } else { self.verdict(rest, state) }
    }

    /// To one of those that a map has for the packet's destination and a number, which chance gives.
    fn spread(&self, by: &str, state: &State) -> Ends {
        let packet = &state.packet;
        let port = format!("{} . {}", packet.protocol, packet.port);
        let (of, map) = by.split_once(" map @").expect("a map");
        let (key, count) = of.split_once(" . numgen random mod ").expect("chance");
        let key = match key {
            "ip daddr . meta l4proto . th dport" => format!("{} . {port}", packet.to),
            "meta l4proto . th dport" => port,
            other => panic!("no such key here: {other}"),
        };
        let count: u32 = count.parse().expect("a number");
        let map = self.maps.get(map).unwrap_or_else(|| panic!("no map {map}"));
        let to = |number| {
            let to = map
                .get(&format!("{key} . {number}"))
                .unwrap_or_else(|| panic!("no endpoint {number} of {key}"));
            let (ip, port) = to.split_once(" . ").expect("address and port");
            let mut state = state.clone();
            state.packet.to = ip.parse().expect("address");
            state.packet.port = port.parse().expect("port");
            state.translated = true;
            (1.0 / f64::from(count), Verdict::Accept, state)
        };
        (0..count).map(to).collect()
    }

    fn look_up(&self, map: &str, key: &str, state: State) -> Ends {
        match self.maps.get(map).unwrap_or_else(|| panic!("no map {map}")).get(key) {
            Some(verdict) => self.verdict(verdict, state),
            None => vec![(1.0, Verdict::Next, state)],
        }
    }

    /// Whether the condition at the start of `text` holds, and what follows it; None where it is none.
    fn matches<'a>(&self, text: &'a str, state: &State) -> Option<(bool, &'a str)> {
        let packet = &state.packet;
        let fixed = [
            ("ct state new", true),
            ("ct state invalid", false),
            ("ct state != { established, related }", true),
            ("ct status & dnat == 0", !state.translated),
            ("ct status dnat", state.translated),
            ("meta l4proto { tcp, udp, sctp }", true),
            ("meta mark & 0x4000 == 0x4000", state.mark & 0x4000 != 0),
            ("fib daddr type local", self.local.contains(&packet.to)),
            ("fib daddr type != local", !self.local.contains(&packet.to)),
            ("fib saddr type local", self.local.contains(&packet.source)),
        ];
        if let Some((words, holds)) = fixed.iter().find(|(words, _)| text.starts_with(words)) {
            return Some((*holds, &text[words.len()..]));
        }
        if let Some(set) = text.strip_prefix("ip saddr . ip daddr @") {
            let (set, after) = set.split_at(word(set));
            let pair = format!("{} . {}", packet.source, packet.to);
            return Some((self.maps[set].contains_key(&pair), after));
        }
        for (words, address) in [("ip saddr ", packet.source), ("ip daddr ", packet.to)] {
            let Some(rest) = text.strip_prefix(words) else { continue };
            let (not, rest) = rest.strip_prefix("!= ").map_or((false, rest), |rest| (true, rest));
            let end = if rest.starts_with('{') { rest.find('}').expect("closed") + 1 } else { word(rest) };
            let (what, after) = rest.split_at(end);
            let holds = match what.strip_prefix('@') {
                Some(set) => self.recent.contains(set),
                None => inside(what).split(", ").any(|one| network(one).contains(&address)),
            };
            return Some((holds != not, after));
        }
        for protocol in ["tcp", "udp", "sctp"] {
            if let Some(rest) = text.strip_prefix(&format!("{protocol} dport ")) {
                let (port, after) = rest.split_at(word(rest));
                return Some((packet.protocol == protocol && port == packet.port.to_string(), after));
            }
            if let Some(after) = text.strip_prefix(&format!("meta l4proto {protocol}")) {
                return Some((packet.protocol == protocol, after));
            }
        }
        None
    }
}

fn word(text: &str) -> usize {
    text.find(' ').unwrap_or(text.len())
}

fn inside(text: &str) -> &str {
    text.trim_start_matches("{ ").trim_end_matches(" }")
}

fn network(text: &str) -> Ipv4Net {
    text.parse().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from)).expect("a network")
}

fn hexadecimal(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}
