//! Which tracked UDP flows a change of rules leaves pointing nowhere. UDP has no end of connection: while a client goes
//! on sending, the kernel goes on translating as it first did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::plan::{At, ServicePort};
use crate::network::{Protocol, ServiceKey};
use sys::conntrack::Tracked;

/// Entries of UDP Services and the endpoints behind them.
pub(super) type Flows = BTreeMap<At, BTreeSet<Ipv4Addr>>;

/// The entries of all UDP Services, with whose endpoints they lead to: two Services may claim one.
#[derive(Debug, Default)]
pub(super) struct Entries(BTreeMap<At, BTreeMap<ServiceKey, BTreeSet<Ipv4Addr>>>);

impl Entries {
    /// Takes in what a Service is to be instead of what it was. `before` and `after` are told of every entry that this
    /// may change; what `before` knows already was so earlier.
    pub(super) fn change(
        &mut self,
        key: &ServiceKey,
        old: &[ServicePort],
        new: &[ServicePort],
        (before, after): (&mut Flows, &mut Flows),
    ) {
        let entries = |ports: &[ServicePort]| -> Flows {
            let mut flows = Flows::new();
            for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
                for frontend in &port.frontends {
                    flows
                        .entry(frontend.at)
                        .or_default()
                        .extend(port.all_targets().map(|target| target.address));
                }
            }
            flows
        };
        let (old, mut new) = (entries(old), entries(new));
        let touched: BTreeSet<At> = old.keys().chain(new.keys()).copied().collect();
        for at in touched {
            if let Some(was) = self.endpoints(at) {
                before.entry(at).or_insert(was);
            }
            let claims = self.0.entry(at).or_default();
            claims.remove(key);
            claims.extend(new.remove(&at).map(|endpoints| (key.clone(), endpoints)));
            if claims.is_empty() {
                self.0.remove(&at);
            }
            match self.endpoints(at) {
                Some(is) => after.insert(at, is),
                None => after.remove(&at),
            };
        }
    }

    fn endpoints(&self, at: At) -> Option<BTreeSet<Ipv4Addr>> {
        self.0.get(&at).map(|claims| claims.values().flatten().copied().collect())
    }
}

/// Whether `flow` must be forgotten now that `new` holds instead of `old`: it goes to an endpoint that is no longer one,
/// or it began while there was none and was never translated.
pub(super) fn stale(old: &Flows, new: &Flows, node_ip: Ipv4Addr, flow: &Tracked) -> bool {
    let translated = flow.answered_by != flow.to;
    let address = At::Address(flow.to, flow.port);
    if let Some(endpoints) = new.get(&address) {
        return !endpoints.contains(&flow.answered_by);
    }
    if let Some(endpoints) = old.get(&address) {
        return endpoints.contains(&flow.answered_by);
    }
    // A node port is one only on the node's addresses: the same port elsewhere is somebody else's.
    if flow.to != node_ip && !flow.to.is_loopback() {
        return false;
    }
    let node_port = At::NodePort(flow.port);
    match (new.get(&node_port), old.get(&node_port)) {
        (Some(endpoints), _) => !endpoints.contains(&flow.answered_by),
        (None, Some(endpoints)) => translated && endpoints.contains(&flow.answered_by),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect("address")
    }

    fn flows(at: Option<(At, &[&str])>) -> Flows {
        at.into_iter().map(|(flow, endpoints)| (flow, endpoints.iter().map(|e| ip(e)).collect())).collect()
    }

    #[test]
    fn flows_to_what_is_gone_are_stale() {
        let vip = At::Address(ip("10.43.0.9"), 53);
        let check = |old: Option<&[&str]>, new: Option<&[&str]>, answered_by: &str, expect: bool| {
            let (old, new) = (flows(old.map(|e| (vip, e))), flows(new.map(|e| (vip, e))));
            let flow = Tracked::of(ip("10.42.0.7"), ip("10.43.0.9"), 53, ip(answered_by));
            assert_eq!(stale(&old, &new, ip("172.18.0.3"), &flow), expect, "{old:?} {new:?} {answered_by}");
        };
        check(Some(&["10.42.0.1"]), Some(&["10.42.0.1", "10.42.0.2"]), "10.42.0.1", false);
        check(Some(&["10.42.0.1", "10.42.0.2"]), Some(&["10.42.0.2"]), "10.42.0.1", true);
        check(Some(&[]), Some(&["10.42.0.2"]), "10.43.0.9", true);
        check(Some(&["10.42.0.1"]), None, "10.42.0.1", true);
        check(None, Some(&["10.42.0.2"]), "10.42.0.9", true);
        check(None, None, "10.42.0.1", false);
    }

    #[test]
    fn node_ports_are_the_nodes_only() {
        let port = At::NodePort(30053);
        let (old, new) = (flows(Some((port, &["10.42.0.1"]))), flows(None));
        let check = |to: &str, answered_by: &str, expect: bool| {
            let flow = Tracked::of(ip("10.42.0.7"), ip(to), 30053, ip(answered_by));
            assert_eq!(stale(&old, &new, ip("172.18.0.3"), &flow), expect, "{to} {answered_by}");
        };
        check("172.18.0.3", "10.42.0.1", true);
        check("127.0.0.1", "10.42.0.1", true);
        check("172.18.0.3", "172.18.0.3", false);
        check("203.0.113.1", "203.0.113.1", false);
    }
}
