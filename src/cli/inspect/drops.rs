//! What the kernel tells of packets that it lets nobody have: the trace of first packets, read line by line.

use std::collections::BTreeMap;

use super::flows::{End, Flow};

/// Traces that are followed at a time: an end that was missed keeps nobody's memory for long.
const FOLLOWED: usize = 256;

/// Traces under way, by the kernel's number.
#[derive(Debug, Default)]
pub(super) struct Drops(BTreeMap<String, Flow>);

impl Drops {
    /// Reads a line of `nft monitor trace`, told at `now` (seconds since 1970). Answers a flow once it is clear that its first
    /// packet goes nowhere.
    pub(super) fn read(&mut self, line: &str, names: &BTreeMap<String, String>, now: &str) -> Option<Flow> {
        let rest = line.strip_prefix("trace id ")?;
        let (id, rest) = rest.split_once(" ip ")?;
        let (table, rest) = rest.split_once(' ')?;
        let (chain, said) = rest.split_once(' ')?;
        if let Some(packet) = said.strip_prefix("packet: ") {
            self.packet(id, packet, names, now);
            return None;
        }
        if !said.ends_with("(verdict drop)") {
            return None;
        }
        let flow = self.0.remove(id)?;
        Some(Flow { why: Some(why(table, chain)), ..flow })
    }

    /// The first that is seen of a packet is what it was sent to; later on it may have another destination.
    fn packet(&mut self, id: &str, packet: &str, names: &BTreeMap<String, String>, now: &str) {
        let words: Vec<&str> = packet.split_whitespace().collect();
        let after = |first: &str, second: &str| {
            let at = words.windows(3).find(|three| three[0] == first && three[1] == second);
            at.map(|three| three[2].to_owned())
        };
        let (Some(from), Some(to)) = (after("ip", "saddr"), after("ip", "daddr")) else { return };
        let protocols = ["tcp", "udp", "sctp"];
        let protocol = protocols.into_iter().find(|protocol| after(protocol, "dport").is_some());
        let port = |which: &str| protocol.and_then(|protocol| after(protocol, which));
        let end = |address: String, port| End { name: names.get(&address).cloned(), address, port };
        let target = end(to, port("dport"));
        if let Some(known) = self.0.get_mut(id) {
            known.by = (known.to != target).then_some(target);
            return;
        }
        if self.0.len() >= FOLLOWED {
            self.0.pop_first();
        }
        let flow = Flow {
            time: now.to_owned(),
            event: "DROP".to_owned(),
            protocol: protocol.unwrap_or("ip").to_owned(),
            state: None,
            from: end(from, port("sport")),
            to: target,
            by: None,
            why: None,
        };
        self.0.insert(id.to_owned(), flow);
    }
}

/// What the chain that dropped it stands for.
fn why(table: &str, chain: &str) -> String {
    let policies = |side: &str| {
        let name = chain.strip_prefix(side)?.split_once('-')?.1;
        Some(name.replace("__", ", "))
    };
    match table {
        "minik-policy" => match (policies("ingress-"), policies("egress-")) {
            (Some(names), _) => format!("not allowed in by network policies: {names}"),
            (_, Some(names)) => format!("not allowed out by network policies: {names}"),
            _ => "dropped by network policies".to_owned(),
        },
        "kube-proxy" if chain == "refuse" => "refused: the Service has no ready endpoints".to_owned(),
        "kube-proxy" if chain == "endpoints-check" => {
            "the Service has endpoints, but none on this node (policy Local)".to_owned()
        }
        "kube-proxy" if chain.starts_with("firewall-") => {
            "the client is not in the Service's loadBalancerSourceRanges".to_owned()
        }
        _ => format!("dropped by chain {chain} of table {table}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: &str = "packet: iif \"eth0\" oif \"veth8\" ether saddr 02:42:ac:1f:fa:03 ether daddr 02:42:ac:1f:fa:04 ip saddr \
        10.42.1.2 ip daddr TO ip dscp cs0 ip ttl 63 ip id 38592 ip length 60 tcp sport 48658 tcp dport PORT tcp flags == syn ";

    #[test]
    fn packets_that_go_nowhere_are_told_with_the_reason() {
        let names = BTreeMap::from([("10.43.0.9".to_owned(), "service/shop/web".to_owned())]);
        let check = |table: &str, chain: &str, verdict: &str, expect: Option<&str>| {
            let mut drops = Drops::default();
            let mut read = |line: &str| drops.read(line, &names, "1700000000.5").map(|flow| flow.to_string());
            let packet = |to: &str, port: &str| PACKET.replace("TO", to).replace("PORT", port);
            let first = format!("trace id af53 ip minik-flows-7 prerouting {}", packet("10.43.0.9", "80"));
            assert_eq!(read(&first), None);
            assert_eq!(
                read(&format!("trace id af53 ip {table} forward {}", packet("10.42.0.42", "8080"))),
                None
            );
            assert_eq!(read("trace id af53 ip kube-proxy nat-prerouting policy accept "), None);
            let end = format!("trace id af53 ip {table} {chain} rule drop (verdict {verdict})");
            assert_eq!(read(&end).as_deref(), expect, "{table} {chain}");
            assert_eq!(read(&end), None, "once only");
        };
        let line = "1700000000.5 DROP    tcp  10.42.1.2:48658 -> service/shop/web:80 => 10.42.0.42:8080";
        let told = |why: &str| format!("{line} ({why})");
        let policy = told("not allowed in by network policies: shop/deny, shop/more");
        check("minik-policy", "ingress-74add3d8-shop/deny__shop/more", "drop", Some(&policy));
        let refused = told("refused: the Service has no ready endpoints");
        check("kube-proxy", "refuse", "drop", Some(&refused));
        let other = told("dropped by chain c of table t");
        check("t", "c", "drop", Some(&other));
        check("t", "c", "accept", None);
    }
}
