//! A plan as one table of nftables.
//!
//! ```text
//! forward: self? --> sender's chain (egress-pods) --> receiver's chain (ingress-pods)
//! input:   sender's chain                          : what Pods send to their node, names they ask for included
//! ```
//!
//! A chain per set of policies says what is allowed (return) and drops the rest. Pods that come and go change sets only.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::plan::{Isolation, Match, Plan, Ports};
use sys::nftables::Table;

const FAMILY: &str = "ip";
/// The table's name.
pub(super) const TABLE: &str = "minik-policy";
const VERDICTS: &str = "type ipv4_addr : verdict;";
const ADDRESSES: &str = "type ipv4_addr;";
const BEGUN: &str = "ct state { established, related } accept";

/// Which end of a connection is isolated.
#[derive(Clone, Copy)]
struct Side {
    prefix: &'static str,
    /// How rules write the other end's address.
    peer: &'static str,
}

const RECEIVER: Side = Side { prefix: "ingress", peer: "ip saddr" };
const SENDER: Side = Side { prefix: "egress", peer: "ip daddr" };

/// The table that makes `plan` true; empty of rules where no Pod is isolated.
pub fn table(plan: &Plan) -> Table {
    let mut table = Table::new(FAMILY, TABLE);
    let isolated: BTreeSet<Ipv4Addr> = plan.ingress.keys().chain(plan.egress.keys()).copied().collect();
    let to_itself = table.set("self", "type ipv4_addr . ipv4_addr;");
    to_itself.extend(isolated.iter().map(|ip| (format!("{ip} . {ip}"), String::new())));
    for side in [SENDER, RECEIVER] {
        table.map(&format!("{}-pods", side.prefix), VERDICTS);
    }
    if isolated.is_empty() {
        return table;
    }
    // After Services have been translated: policies speak of Pods.
    table.base(
        "forward",
        "type filter hook forward priority 0; policy accept;",
        &[
            BEGUN,
            "ip saddr . ip daddr @self accept",
            "ip saddr vmap @egress-pods",
            "ip daddr vmap @ingress-pods",
        ],
    );
    let to_node = &[BEGUN, "ip saddr vmap @egress-pods"];
    table.base("input", "type filter hook input priority 0; policy accept;", to_node);
    for (side, pods, isolations) in
        [(RECEIVER, &plan.ingress, &plan.receivers), (SENDER, &plan.egress, &plan.senders)]
    {
        for (ip, policies) in pods {
            let chain = chain_name(side, policies);
            table
                .map(&format!("{}-pods", side.prefix), VERDICTS)
                .insert(ip.to_string(), format!("jump {chain}"));
        }
        for (policies, isolation) in isolations {
            write(&mut table, side, &chain_name(side, policies), isolation);
        }
    }
    table
}

/// The policies' names where they fit, and what tells them apart where they do not.
fn chain_name(side: Side, policies: &BTreeSet<String>) -> String {
    let all: Vec<&str> = policies.iter().map(String::as_str).collect();
    let all = all.join("__");
    let sum = ring::digest::digest(&ring::digest::SHA256, all.as_bytes());
    let shown: String = all.chars().take(100).collect();
    format!("{}-{}-{shown}", side.prefix, hex::encode(&sum.as_ref()[..4]))
}

fn write(table: &mut Table, side: Side, chain: &str, isolation: &Isolation) {
    table.chain(chain);
    for (at, (peer, ports)) in isolation.allowed.iter().enumerate() {
        let from = match peer {
            Match::Everybody => String::new(),
            Match::Pods(pods) => {
                let name = format!("{chain}-{at}");
                let elements = pods.iter().map(|ip| (ip.to_string(), String::new()));
                table.set(&name, ADDRESSES).extend(elements);
                format!("{} @{name} ", side.peer)
            }
            Match::Block { within, except } if except.is_empty() => format!("{} {within} ", side.peer),
            Match::Block { within, except } => {
                let except = ipnet::Ipv4Net::aggregate(except);
                let except: Vec<String> = except.iter().map(ToString::to_string).collect();
                format!("{} {within} {} != {{ {} }} ", side.peer, side.peer, except.join(", "))
            }
        };
        let to = match ports {
            Ports::All => String::new(),
            Ports::Protocol(protocol) => format!("meta l4proto {} ", protocol.lower()),
            Ports::Range(protocol, first, last) if first == last => {
                format!("{} dport {first} ", protocol.lower())
            }
            Ports::Range(protocol, first, last) => format!("{} dport {first}-{last} ", protocol.lower()),
            Ports::Of(protocol, receivers) => {
                let name = format!("{chain}-{at}-ports");
                let elements = receivers.iter().map(|(ip, port)| (format!("{ip} . {port}"), String::new()));
                table.set(&name, "type ipv4_addr . inet_service;").extend(elements);
                format!("meta l4proto {} ip daddr . th dport @{name} ", protocol.lower())
            }
        };
        table.rule(chain, format!("{from}{to}return"));
    }
    table.rule(chain, "drop");
}
