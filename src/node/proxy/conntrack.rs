//! Which tracked UDP flows a change of rules leaves pointing nowhere. UDP has no end of connection: while a client goes
//! on sending, the kernel goes on translating as it first did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::rules::Flow;

type Flows = BTreeMap<Flow, BTreeSet<Ipv4Addr>>;

/// Arguments for `conntrack -D`, one list per deletion: flows to endpoints that are gone, and flows that began while
/// there was no endpoint and so were never translated.
pub(super) fn stale(old: &Flows, new: &Flows) -> Vec<Vec<String>> {
    let none = BTreeSet::new();
    let mut stale = Vec::new();
    for (flow, before) in old {
        let gone = before.difference(new.get(flow).unwrap_or(&none));
        stale.extend(gone.map(|ip| arguments(*flow, Some(*ip))));
    }
    for (flow, now) in new {
        if !now.is_empty() && old.get(flow).is_none_or(BTreeSet::is_empty) {
            stale.push(arguments(*flow, None));
        }
    }
    stale
}

fn arguments(flow: Flow, endpoint: Option<Ipv4Addr>) -> Vec<String> {
    let mut arguments = vec!["-p".to_owned(), "udp".to_owned()];
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    match flow {
        Flow::Address(ip, port) => {
            add("--orig-dst", ip.to_string());
            add("--orig-port-dst", port.to_string());
        }
        Flow::NodePort(port) => add("--orig-port-dst", port.to_string()),
    }
    if let Some(ip) = endpoint {
        add("--reply-src", ip.to_string());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(entries: &[(Flow, &[&str])]) -> Flows {
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("address")).collect();
        entries.iter().map(|(flow, endpoints)| (*flow, ips(endpoints))).collect()
    }

    #[test]
    fn flows_to_what_is_gone_are_deleted() {
        let vip = Flow::Address("10.43.0.9".parse().expect("address"), 53);
        let check = |old: &[&str], new: &[&str], expect: &[&str]| {
            let stale = stale(&flows(&[(vip, old)]), &flows(&[(vip, new)]));
            assert_eq!(stale.iter().map(|s| s.join(" ")).collect::<Vec<_>>(), expect);
        };
        let all = "-p udp --orig-dst 10.43.0.9 --orig-port-dst 53";
        check(&["10.42.0.1"], &["10.42.0.1", "10.42.0.2"], &[]);
        check(&["10.42.0.1", "10.42.0.2"], &["10.42.0.2"], &[&format!("{all} --reply-src 10.42.0.1")]);
        check(&[], &["10.42.0.2"], &[all]);
        check(&["10.42.0.1"], &[], &[&format!("{all} --reply-src 10.42.0.1")]);
    }

    #[test]
    fn a_deleted_service_and_node_ports_count_too() {
        let old = flows(&[(Flow::NodePort(30053), &["10.42.0.1"])]);
        let stale = stale(&old, &Flows::new());
        assert_eq!(stale[0].join(" "), "-p udp --orig-port-dst 30053 --reply-src 10.42.0.1");
    }
}
