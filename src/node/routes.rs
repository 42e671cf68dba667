//! One kernel route per peer: its Pods, by way of its address; none for Pods that are nowhere; and the kernel settings that
//! forwarding Pods' traffic needs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::network::{Feed, View};
use rt::{Backoff, Tasks};
use sys::netlink::{Error, Netlink, Route};
use sys::sysctl::{Outcome, set};

const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };

/// What forwarding needs, and what breaks without it. Times of connections are those that kube-proxy sets.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("net.ipv4.ip_forward", "1", "Pods reach nothing beyond their node"),
    ("net.ipv4.conf.all.route_localnet", "1", "node ports do not answer on 127.0.0.1"),
    // The strictest of `all` and the interface's own counts; 2 is the loose check everywhere: answers may leave by
    // another interface than questions came in by.
    ("net.ipv4.conf.all.rp_filter", "2", "answers that take another way back are dropped"),
    // A load balancer's address must not appear as the sender when this node looks for its neighbours.
    ("net.ipv4.conf.all.arp_announce", "2", "neighbours may learn load balancer addresses at the wrong node"),
    (
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        "3600",
        "half-closed connections end after a minute",
    ),
    (
        "net.netfilter.nf_conntrack_tcp_timeout_established",
        "86400",
        "dead connections are remembered for days",
    ),
];

/// Sets what can be set, and says clearly what could not.
pub fn apply_settings() {
    for (setting, wanted, consequence) in SETTINGS {
        if let Outcome::Refused { setting, is, wanted, error } = set(setting, wanted) {
            tracing::warn!(%setting, %is, %wanted, %error, "kernel setting not applied: {consequence}");
        }
    }
}

/// The routes that `node` needs: every other node that has both an address and a Pod network. All other addresses of Pods
/// lead nowhere: who asks a Pod that is gone is told so, instead of waiting for what was sent out by the default route.
fn plan(view: &View, node: &str, pods: Ipv4Net) -> BTreeMap<Ipv4Net, Option<Ipv4Addr>> {
    let peers = view.nodes().filter(|peer| peer.name != node);
    let to_peers = peers.filter_map(|peer| Some((peer.pod_cidr?, Some(peer.internal_ip?))));
    std::iter::once((pods, None)).chain(to_peers).collect()
}

/// Keeps this node's routes as the nodes are, until `tasks` stops. `pods` are the addresses of all Pods there may be.
pub fn run(feed: Feed, node: String, pods: Ipv4Net, netlink: Netlink, tasks: &Tasks) {
    tasks.spawn_until_stop(follow(feed, node, pods, netlink));
}

async fn follow(feed: Feed, node: String, pods: Ipv4Net, netlink: Netlink) {
    let mut changes = feed.nodes();
    if changes.wait_for(|generation| *generation > 0).await.is_err() {
        return;
    }
    let mut failures = 0;
    loop {
        changes.borrow_and_update();
        let wanted = plan(&feed.read(), &node, pods);
        match apply(&netlink, &wanted).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "routes to peers not applied; trying again");
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY.delay(failures)), if failures > 0 => {}
        }
    }
}

/// The kernel's list is the memory: what an earlier process left is seen, and so is a route that went with its link.
async fn apply(netlink: &Netlink, wanted: &BTreeMap<Ipv4Net, Option<Ipv4Addr>>) -> Result<(), Error> {
    let present = netlink.our_routes().await?;
    for route in present.iter().filter(|route| !wanted.contains_key(&route.to)) {
        netlink.remove_route(*route).await?;
        tracing::info!(to = %route.to, via = ?route.via, "route removed");
    }
    for (to, via) in wanted {
        let route = Route { to: *to, via: *via };
        if !present.contains(&route) {
            netlink.add_route(route).await?;
            tracing::info!(%to, ?via, "route added");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Node;

    #[test]
    fn every_peer_with_a_network_gets_a_route() {
        let mut view = View::default();
        let mut node = |name: &str, ip: Option<&str>, cidr: Option<&str>| {
            view.put_node(Node {
                name: name.into(),
                internal_ip: ip.map(|ip| ip.parse().expect("address")),
                pod_cidr: cidr.map(|cidr| cidr.parse().expect("network")),
                zone: None,
            });
        };
        node("me", Some("172.18.0.2"), Some("10.42.0.0/24"));
        node("peer", Some("172.18.0.3"), Some("10.42.1.0/24"));
        node("joining", Some("172.18.0.4"), None);
        node("silent", None, Some("10.42.3.0/24"));
        let net = |text: &str| -> Ipv4Net { text.parse().expect("network") };
        let expect = [(net("10.42.0.0/16"), None), (net("10.42.1.0/24"), Some([172, 18, 0, 3].into()))];
        assert_eq!(plan(&view, "me", net("10.42.0.0/16")), expect.into());
    }
}
