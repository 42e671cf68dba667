//! Chooses a cluster's addresses.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::numbers::FURTHER_SERVERS;

/// A cluster's addresses: a block, mostly a /23, of which Docker hands out only the second quarter itself.
///
/// ```text
/// .0.1 gateway | .0.2 .. .0.127 nodes (fixed) | .0.128/25 Docker's own | .1.1 .. .1.254 LoadBalancer Services
/// ```
///
/// The first server and the agents have addresses from the first on; in a cluster of several servers the API's load balancer
/// has the last one of the nodes', and further servers those before it.
///
/// In a block of another size the parts are as large in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subnet(Ipv4Net);

impl Subnet {
    const PREFIX: u8 = 23;

    /// A block that somebody chose.
    pub fn of(net: Ipv4Net) -> Self {
        Self(net)
    }

    /// A block inside a network of somebody else, far from where Docker begins to hand addresses out, with none of the
    /// addresses in use. `None`: there is no such room.
    pub fn within(net: Ipv4Net, used: &[Ipv4Addr]) -> Option<Self> {
        let prefix = Self::PREFIX.max(net.prefix_len() + 1);
        let mut blocks: Vec<Ipv4Net> = net.subnets(prefix).ok()?.collect();
        // The first would hold the gateway.
        blocks.retain(|block| block.network() != net.network());
        blocks.into_iter().rev().find(|block| !used.iter().any(|ip| block.contains(ip))).map(Self)
    }

    pub fn net(self) -> Ipv4Net {
        self.0
    }

    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// Address of the node with this number.
    pub fn node(self, number: u32) -> Ipv4Addr {
        match number.checked_sub(FURTHER_SERVERS) {
            Some(further) => self.at(self.size() / 4 - 2 - further),
            None => self.at(2 + number),
        }
    }

    /// Address of the container that leads to the servers, where there are several.
    pub fn api(self) -> Ipv4Addr {
        self.at(self.size() / 4 - 1)
    }

    /// How many nodes it has addresses for.
    pub fn nodes(self) -> u32 {
        self.size() / 4 - 2
    }

    /// What Docker may give to containers that join by themselves.
    pub fn docker_range(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.at(self.size() / 4), self.0.prefix_len() + 2)
    }

    /// First and last address for Services of type LoadBalancer.
    pub fn load_balancers(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.at(self.size() / 2 + 1), self.at(self.size() - 2))
    }

    fn size(self) -> u32 {
        1 << (32 - u32::from(self.0.prefix_len()))
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + offset)
    }

    /// The first block that overlaps nothing in `taken`. Blocks are tried from the top of Docker's usual ranges, which
    /// Docker itself fills from the bottom; `skip` passes over that many free ones, for a retry after a conflict.
    pub fn choose(taken: &[Ipv4Net], skip: usize) -> Option<Self> {
        let free = |net: &Ipv4Net| {
            !taken.iter().any(|other| {
                other.prefix_len() > 0 && (other.contains(&net.network()) || net.contains(&other.network()))
            })
        };
        ["172.31.0.0/16", "172.30.0.0/16", "172.29.0.0/16", "192.168.0.0/16", "10.213.0.0/16"]
            .iter()
            .filter_map(|range| range.parse::<Ipv4Net>().ok())
            .flat_map(|range| {
                let mut blocks: Vec<Ipv4Net> =
                    range.subnets(Self::PREFIX).map(Iterator::collect).unwrap_or_default();
                blocks.reverse();
                blocks
            })
            .filter(free)
            .nth(skip)
            .map(Self)
    }
}

/// The destinations of the host's routes, from `/proc/net/route`; the default route is left out.
pub fn host_routes(proc_net_route: &str) -> Vec<Ipv4Net> {
    // Numbers are the network byte order read as one little-endian word.
    let word = |hex: &str| u32::from_str_radix(hex, 16).ok().map(|n| Ipv4Addr::from(n.swap_bytes()));
    proc_net_route
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let destination = word(fields.get(1)?)?;
            let mask = word(fields.get(7)?)?;
            Ipv4Net::with_netmask(destination, mask).ok()
        })
        .filter(|net| net.prefix_len() > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<Ipv4Net> {
        list.iter().map(|n| n.parse().expect("a network")).collect()
    }

    #[test]
    fn the_first_block_that_overlaps_nothing_is_taken() {
        let check = |taken: &[&str], skip: usize, expect: &str| {
            let chosen = Subnet::choose(&nets(taken), skip).expect("a block");
            assert_eq!(chosen.net().to_string(), expect, "{taken:?} {skip}");
        };
        check(&[], 0, "172.31.254.0/23");
        check(&[], 1, "172.31.252.0/23");
        check(&["172.17.0.0/16", "0.0.0.0/0"], 0, "172.31.254.0/23");
        check(&["172.31.254.0/23"], 0, "172.31.252.0/23");
        check(&["172.31.254.128/32", "172.31.252.0/22"], 0, "172.31.250.0/23");
        check(&["172.16.0.0/12"], 0, "192.168.254.0/23");
        check(&["172.16.0.0/12", "192.168.0.0/16"], 0, "10.213.254.0/23");
        assert_eq!(Subnet::choose(&nets(&["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"]), 0), None);
    }

    #[test]
    fn the_parts_of_a_block_do_not_overlap() {
        let subnet = Subnet::choose(&[], 0).expect("a block");
        let (first, last) = subnet.load_balancers();
        assert_eq!(subnet.gateway().to_string(), "172.31.254.1");
        assert_eq!(subnet.node(0).to_string(), "172.31.254.2");
        assert_eq!(subnet.docker_range().to_string(), "172.31.254.128/25");
        assert_eq!((first.to_string(), last.to_string()), ("172.31.255.1".into(), "172.31.255.254".into()));
        assert!(!subnet.docker_range().contains(&subnet.node(crate::spec::ClusterSpec::MAX_NODES)));
        assert!(!subnet.docker_range().contains(&first));
        assert!(subnet.net().contains(&last));
    }

    #[test]
    fn blocks_of_other_sizes_are_divided_alike() {
        let subnet = Subnet::of("10.1.2.0/24".parse().expect("a network"));
        assert_eq!((subnet.nodes(), subnet.node(0).to_string()), (62, "10.1.2.2".to_owned()));
        assert_eq!(subnet.docker_range().to_string(), "10.1.2.64/26");
        let (first, last) = subnet.load_balancers();
        assert_eq!((first.to_string(), last.to_string()), ("10.1.2.129".into(), "10.1.2.254".into()));
        assert_eq!(Subnet::of("10.0.0.0/23".parse().expect("a network")).nodes(), 126);
    }

    #[test]
    fn a_block_in_somebody_else_s_network_is_where_nobody_is() {
        let within = |net: &str, used: &[&str]| {
            let used: Vec<Ipv4Addr> = used.iter().map(|ip| ip.parse().expect("an address")).collect();
            Subnet::within(net.parse().expect("a network"), &used).map(|subnet| subnet.net().to_string())
        };
        assert_eq!(within("172.20.0.0/16", &["172.20.0.2"]).as_deref(), Some("172.20.254.0/23"));
        assert_eq!(within("172.20.0.0/16", &["172.20.255.9"]).as_deref(), Some("172.20.252.0/23"));
        assert_eq!(within("10.5.0.0/24", &["10.5.0.2"]).as_deref(), Some("10.5.0.128/25"));
        assert_eq!(within("10.5.0.0/24", &["10.5.0.200"]), None);
    }

    #[test]
    fn routes_are_read_from_proc() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            broken\n";
        assert_eq!(host_routes(text), nets(&["172.17.0.0/16"]));
    }
}
