//! A plan as one table of nftables.
//!
//! ```text
//! prerouting, output:  services --(service-ips | service-nodeports)--> cluster-ips-N | external-ips-N | nodeports-N
//!                        one of N, by (endpoints | nodeport-endpoints)
//!                      the same, where affinity or policy Local have more to say
//!                        --> external-… --> service-… | local-… --> endpoint-…
//! before that:         firewall-check --(firewall-ips)--> firewall-… : sources that may not come in
//! filter hooks:        endpoints-check --(no-endpoint-services | no-endpoint-nodeports)--> refuse | drop
//!                        what is left of packets to ClusterIPs is dropped
//! postrouting:         marked packets, Pods' packets to themselves (hairpins) and to the world beyond leave as the node
//! ```
//!
//! Most Services have no chain of their own: they are elements of maps, so that a table of thousands of them is made and
//! changed as fast as elements are.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::network::Protocol;
use crate::proxy::endpoints::Target;
use crate::proxy::names::hash;
use crate::proxy::plan::{At, Frontend, FrontendKind, Policy, Refusal, ServicePort};
use sys::nftables::Table;

const FAMILY: &str = "ip";
/// The name that kube-proxy's nftables mode uses: what people know from there is found here.
pub(super) const TABLE: &str = "kube-proxy";

/// Marks packets whose source must become the node's; the bit that kube-proxy uses.
const MARKED: &str = "meta mark & 0x4000 == 0x4000";
const MARK: &str = "jump mark-for-masquerade";
const BY_ADDRESS: &str = "ip daddr . meta l4proto . th dport vmap";
const BY_PORT: &str = "fib daddr type local meta l4proto . th dport vmap";
const ADDRESS_MAP: &str = "type ipv4_addr . inet_proto . inet_service : verdict;";
/// Localhost is not reached from the network, except by what was translated.
const LOCALNET: &str = "ip daddr 127.0.0.0/8 ip saddr != 127.0.0.0/8 ct state != { established, related } ct status & dnat == 0 drop";
const PORT_MAP: &str = "type inet_proto . inet_service : verdict;";

/// What a packet is for, and the number that chance gives it: where it goes.
const ENDPOINTS: &str =
    "typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport;";
const NODEPORT_ENDPOINTS: &str =
    "typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport;";
const HAIRPINS: (&str, &str) = ("hairpins", "type ipv4_addr . ipv4_addr;");

/// The maps that lead from a frontend to what becomes of it. Two Services may claim one frontend: the first has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Map {
    Services,
    Firewall,
    NoEndpoints,
}

/// A place in one of the maps.
pub(super) type Claim = (Map, At, Protocol);

/// Over so many endpoints packets are spread by maps alone; Services with more have chains. The chains for each number are
/// made with the table: versions of the tool up to 1.1 cannot read back a map such as these, and so take no rule that
/// speaks of one which is there already.
const MOST: usize = 32;

/// A table of what exists whatever the Services are.
pub(super) fn fixed(pods: Ipv4Net, cluster_ips: Option<Ipv4Net>) -> Table {
    let mut table = Table::new(FAMILY, TABLE);
    base(&mut table, pods);
    if let Some(range) = cluster_ips {
        // Dropped, not refused: who is early for a new Service tries again.
        table.rule("endpoints-check", format!("ip daddr {range} fib daddr type != local drop"));
    }
    (1..=MOST).for_each(|count| spread(&mut table, pods, count));
    table
}

/// Adds what one Service needs. `wins` says which of the places that it claims are its own.
pub(super) fn service(
    table: &mut Table,
    pods: Ipv4Net,
    ports: &[ServicePort],
    wins: &dyn Fn(&Claim) -> bool,
) {
    ports.iter().for_each(|port| PortText::new(pods, port, wins).write(table));
}

/// The places that a Service claims.
pub(super) fn claims(ports: &[ServicePort]) -> BTreeSet<Claim> {
    let mut all = BTreeSet::new();
    for port in ports {
        for frontend in &port.frontends {
            let mut claim = |map| all.insert((map, frontend.at, port.protocol));
            if serves(port, frontend) {
                claim(Map::Services);
            }
            if !frontend.sources.is_empty() {
                claim(Map::Firewall);
            }
            if frontend.refusal.is_some() {
                claim(Map::NoEndpoints);
            }
        }
    }
    all
}

/// The endpoints that the maps alone lead to, which may ask for themselves.
pub(super) fn hairpins(ports: &[ServicePort]) -> BTreeSet<Ipv4Addr> {
    let plain = ports.iter().filter(|port| is_plain(port));
    plain.flat_map(ServicePort::all_targets).map(|target| target.address).collect()
}

/// Adds the element for an endpoint that may ask for itself.
pub(super) fn hairpin(table: &mut Table, address: Ipv4Addr) {
    table.set(HAIRPINS.0, HAIRPINS.1).insert(format!("{address} . {address}"), String::new());
}

/// Whether all clients of a frontend have the same endpoints, any time, and not too many.
fn is_plain(port: &ServicePort) -> bool {
    port.affinity.is_none()
        && (port.external == Policy::Cluster || !port.exposed)
        && port.cluster.len().max(port.local.len()) <= MOST
}

fn serves(port: &ServicePort, frontend: &Frontend) -> bool {
    match frontend.kind {
        FrontendKind::ClusterIp => frontend.refusal.is_none(),
        _ => port.any,
    }
}

/// The chains that spread over `count` endpoints: by what a packet is for, its key in a map.
fn spread(table: &mut Table, pods: Ipv4Net, count: usize) {
    let known = "meta l4proto { tcp, udp, sctp } dnat ip to";
    let key = format!("meta l4proto . th dport . numgen random mod {count} map");
    let by_address = format!("{known} ip daddr . {key} @endpoints");
    // A node's own or foreign source would get its answer past this node, untranslated.
    let mut chain = |name: &str, rules: [String; 2]| *table.chain(&format!("{name}-{count}")) = rules.into();
    chain("cluster-ips", [format!("ip saddr != {pods} {MARK}"), by_address.clone()]);
    chain("external-ips", [MARK.to_owned(), by_address]);
    chain("nodeports", [MARK.to_owned(), format!("{known} {key} @nodeport-endpoints")]);
}

/// What exists whatever the Services are.
fn base(table: &mut Table, pods: Ipv4Net) {
    for name in ["service-ips", "firewall-ips", "no-endpoint-services"] {
        table.map(name, ADDRESS_MAP);
    }
    for name in ["service-nodeports", "no-endpoint-nodeports"] {
        table.map(name, PORT_MAP);
    }
    table.map("endpoints", ENDPOINTS);
    table.map("nodeport-endpoints", NODEPORT_ENDPOINTS);
    table.set(HAIRPINS.0, HAIRPINS.1);
    let mut base = |name: &str, hook: &'static str, rules: &[&str]| table.base(name, hook, rules);
    base("nat-prerouting", "type nat hook prerouting priority -100; policy accept;", &["jump services"]);
    base("nat-output", "type nat hook output priority -100; policy accept;", &["jump services"]);
    let to_world =
        format!("ip saddr {pods} ip daddr != {pods} fib daddr type != local masquerade fully-random");
    // A Pod that reaches itself through its Service must see an answerable source.
    let to_itself = "ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random";
    let leaving = [&format!("{MARKED} goto masquerade-marked"), to_itself, to_world.as_str()];
    base("nat-postrouting", "type nat hook postrouting priority 100; policy accept;", &leaving);
    // Before translation: sources are compared with what the client asked for.
    let guard: &[&str] = &["ct state new jump firewall-check"];
    base("firewall-prerouting", "type filter hook prerouting priority -110; policy accept;", guard);
    base("firewall-output", "type filter hook output priority -110; policy accept;", guard);
    // After it: what still has a Service's address was not translated.
    let check = "ct state new jump endpoints-check";
    base("filter-input", "type filter hook input priority 0; policy accept;", &[check, LOCALNET]);
    let forward: &[&str] = &["ct state invalid drop", check];
    base("filter-forward", "type filter hook forward priority 0; policy accept;", forward);
    base("filter-output", "type filter hook output priority 0; policy accept;", &[check, LOCALNET]);

    table.rule("services", format!("{BY_ADDRESS} @service-ips"));
    table.rule("services", format!("{BY_PORT} @service-nodeports"));
    table.rule("firewall-check", format!("{BY_ADDRESS} @firewall-ips"));
    table.rule("endpoints-check", format!("{BY_ADDRESS} @no-endpoint-services"));
    table.rule("endpoints-check", format!("{BY_PORT} @no-endpoint-nodeports"));
    table.rule("refuse", "reject with icmp type port-unreachable");
    table.rule("mark-for-masquerade", "meta mark set meta mark | 0x4000");
    // The mark goes before the packet does, so that it is not masqueraded again on its way through another interface.
    table.rule("masquerade-marked", "meta mark set meta mark ^ 0x4000");
    table.rule("masquerade-marked", "masquerade fully-random");
}

/// One port of one Service, with the names that its rules repeat.
struct PortText<'a> {
    pods: Ipv4Net,
    port: &'a ServicePort,
    wins: &'a dyn Fn(&Claim) -> bool,
    /// `tcp`, as rules write it.
    protocol: &'static str,
    /// `HASH-namespace/name/tcp/port`.
    id: String,
}

impl<'a> PortText<'a> {
    fn new(pods: Ipv4Net, port: &'a ServicePort, wins: &'a dyn Fn(&Claim) -> bool) -> Self {
        let protocol = port.protocol.lower();
        let unique = hash(&[&port.name, protocol]);
        let port_name = port.name.split_once(':').map(|(_, name)| name).unwrap_or_default();
        let id = format!("{}-{}/{protocol}/{port_name}", &unique[..8], port.service);
        Self { pods, port, wins, protocol, id }
    }

    fn chain(&self, policy: Policy) -> String {
        match policy {
            Policy::Cluster => format!("service-{}", self.id),
            Policy::Local => format!("local-{}", self.id),
        }
    }

    fn endpoint(&self, target: &Target) -> String {
        let unique = hash(&[&self.port.name, self.protocol, &target.text()]);
        let (ip, port) = (target.address, target.port);
        format!("endpoint-{}-{}/{}__{ip}/{port}", &unique[..8], self.port.service, self.protocol)
    }

    /// The clients that an endpoint has had; a new timeout is a new set, since a set's does not change.
    fn clients(&self, target: &Target, seconds: u32) -> String {
        let unique = hash(&[&self.port.name, self.protocol, &target.text()]);
        format!("affinity-{}-{seconds}s-{}/{}", &unique[..8], target.address, target.port)
    }

    fn write(&self, table: &mut Table) {
        for frontend in &self.port.frontends {
            self.frontend(table, frontend);
        }
        if is_plain(self.port) {
            return;
        }
        if self.port.exposed && self.port.any {
            self.external(table);
        }
        for policy in [Policy::Cluster, Policy::Local] {
            self.balance(table, policy);
        }
        for target in self.port.all_targets() {
            self.endpoint_rules(table, target);
        }
    }

    /// Takes a place in a map, if it is this Service's.
    fn claim(&self, table: &mut Table, map: Map, at: At, verdict: &str) -> bool {
        if !(self.wins)(&(map, at, self.port.protocol)) {
            return false;
        }
        let (by_address, by_port) = match map {
            Map::Services => ("service-ips", "service-nodeports"),
            // Only addresses have source ranges.
            Map::Firewall => ("firewall-ips", "firewall-ips"),
            Map::NoEndpoints => ("no-endpoint-services", "no-endpoint-nodeports"),
        };
        let elements = match at {
            At::Address(..) => table.map(by_address, ADDRESS_MAP),
            At::NodePort(_) => table.map(by_port, PORT_MAP),
        };
        elements.entry(self.key(at)).or_insert_with(|| verdict.to_owned());
        true
    }

    fn key(&self, at: At) -> String {
        match at {
            At::Address(ip, port) => format!("{ip} . {} . {port}", self.protocol),
            At::NodePort(port) => format!("{} . {port}", self.protocol),
        }
    }

    fn frontend(&self, table: &mut Table, frontend: &Frontend) {
        let internal = frontend.kind == FrontendKind::ClusterIp;
        if serves(self.port, frontend) {
            if is_plain(self.port) {
                self.plain(table, frontend);
            } else if internal {
                let chain = self.chain(self.port.internal);
                self.claim(table, Map::Services, frontend.at, &format!("goto {chain}"));
                if let At::Address(ip, port) = frontend.at {
                    // A node's own or foreign source would get its answer past this node, untranslated.
                    let from =
                        format!("ip daddr {ip} {} dport {port} ip saddr != {}", self.protocol, self.pods);
                    table.rule(&chain, format!("{from} {MARK}"));
                }
            } else {
                self.claim(table, Map::Services, frontend.at, &format!("goto external-{}", self.id));
            }
        }
        if !frontend.sources.is_empty() {
            self.firewall(table, frontend);
        }
        match frontend.refusal {
            None => false,
            Some(Refusal::NoEndpoints) => self.claim(table, Map::NoEndpoints, frontend.at, "goto refuse"),
            Some(Refusal::NoLocalEndpoints) => self.claim(table, Map::NoEndpoints, frontend.at, "drop"),
        };
    }

    /// A frontend that the maps alone serve.
    fn plain(&self, table: &mut Table, frontend: &Frontend) {
        let (chain, policy) = match (frontend.kind, frontend.at) {
            (FrontendKind::ClusterIp, _) => ("cluster-ips", self.port.internal),
            (_, At::Address(..)) => ("external-ips", self.port.external),
            (_, At::NodePort(_)) => ("nodeports", self.port.external),
        };
        let targets = self.port.targets(policy);
        let won = !targets.is_empty()
            && self.claim(table, Map::Services, frontend.at, &format!("goto {chain}-{}", targets.len()));
        if !won {
            return;
        }
        let (key, elements) = (
            self.key(frontend.at),
            match frontend.at {
                At::Address(..) => table.map("endpoints", ENDPOINTS),
                At::NodePort(_) => table.map("nodeport-endpoints", NODEPORT_ENDPOINTS),
            },
        );
        for (number, target) in targets.iter().enumerate() {
            elements.insert(format!("{key} . {number}"), format!("{} . {}", target.address, target.port));
        }
    }

    fn firewall(&self, table: &mut Table, frontend: &Frontend) {
        if !self.port.any {
            self.claim(table, Map::Firewall, frontend.at, "drop");
            return;
        }
        let chain = format!("firewall-{}", self.id);
        self.claim(table, Map::Firewall, frontend.at, &format!("goto {chain}"));
        let sources: Vec<String> =
            Ipv4Net::aggregate(&frontend.sources).iter().map(ToString::to_string).collect();
        // Several addresses of one Service share the chain.
        *table.chain(&chain) = vec![format!("ip saddr != {{ {} }} drop", sources.join(", "))];
    }

    /// Where external traffic enters: masqueraded for policy Cluster; for Local the source is kept, except where the
    /// node itself asks, and Pods use all endpoints as if they had used the ClusterIP.
    fn external(&self, table: &mut Table) {
        let chain = format!("external-{}", self.id);
        let all = self.chain(Policy::Cluster);
        table.chain(&chain);
        let (cluster, local) = (!self.port.cluster.is_empty(), !self.port.local.is_empty());
        match self.port.external {
            Policy::Cluster => {
                table.rule(&chain, MARK);
                if cluster {
                    table.rule(&chain, format!("goto {all}"));
                }
            }
            Policy::Local => {
                if cluster {
                    table.rule(&chain, format!("ip saddr {} goto {all}", self.pods));
                    table.rule(&chain, format!("fib saddr type local {MARK}"));
                    table.rule(&chain, format!("fib saddr type local goto {all}"));
                }
                if local {
                    table.rule(&chain, format!("goto {}", self.chain(Policy::Local)));
                }
            }
        }
    }

    /// Known clients go back to their endpoint; others get any, with equal probability.
    fn balance(&self, table: &mut Table, policy: Policy) {
        let targets = self.port.targets(policy);
        if targets.is_empty() {
            return;
        }
        let chain = self.chain(policy);
        if let Some(seconds) = self.port.affinity {
            for target in targets {
                let clients = self.clients(target, seconds);
                table.rule(&chain, format!("ip saddr @{clients} goto {}", self.endpoint(target)));
            }
        }
        let verdicts: Vec<String> = targets
            .iter()
            .enumerate()
            .map(|(at, target)| format!("{at} : goto {}", self.endpoint(target)))
            .collect();
        table.rule(&chain, format!("numgen random mod {} vmap {{ {} }}", targets.len(), verdicts.join(", ")));
    }

    fn endpoint_rules(&self, table: &mut Table, target: &Target) {
        let chain = self.endpoint(target);
        // Hairpin: a Pod that reaches itself through its Service must see an answerable source.
        table.rule(&chain, format!("ip saddr {} {MARK}", target.address));
        if let Some(seconds) = self.port.affinity {
            let clients = self.clients(target, seconds);
            let definition =
                format!("type ipv4_addr; size 65535; flags dynamic,timeout; timeout {seconds}s;");
            table.dynamic_set(&clients, &definition);
            table.rule(&chain, format!("update @{clients} {{ ip saddr }}"));
        }
        let protocol = self.protocol;
        table.rule(&chain, format!("meta l4proto {protocol} dnat to {}", target.text()));
    }
}
