//! A plan as one table of nftables.
//!
//! ```text
//! prerouting, output:  services --(service-ips | service-nodeports)--> external-… --> service-… | local-… --> endpoint-…
//! before that:         firewall-check --(firewall-ips)--> firewall-… : sources that may not come in
//! filter hooks:        endpoints-check --(no-endpoint-services | no-endpoint-nodeports)--> refuse | drop
//! postrouting:         marked packets, and Pods' packets to the world beyond, leave as the node
//! ```

use ipnet::Ipv4Net;

use crate::node::proxy::endpoints::Target;
use crate::node::proxy::names::hash;
use crate::node::proxy::plan::{At, Frontend, FrontendKind, Plan, Policy, Refusal, ServicePort};
use crate::sys::nftables::Table;

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

/// The table that makes `plan` true.
pub(super) fn table(plan: &Plan) -> Table {
    let mut table = Table::new(FAMILY, TABLE);
    fixed(&mut table, plan.pods);
    for port in &plan.services {
        PortText::new(plan.pods, port).write(&mut table);
    }
    table
}

/// What exists whatever the Services are.
fn fixed(table: &mut Table, pods: Ipv4Net) {
    for name in ["service-ips", "firewall-ips", "no-endpoint-services"] {
        table.map(name, ADDRESS_MAP);
    }
    for name in ["service-nodeports", "no-endpoint-nodeports"] {
        table.map(name, PORT_MAP);
    }
    let mut base = |name: &str, hook: &'static str, rules: &[&str]| table.base(name, hook, rules);
    base("nat-prerouting", "type nat hook prerouting priority -100; policy accept;", &["jump services"]);
    base("nat-output", "type nat hook output priority -100; policy accept;", &["jump services"]);
    let to_world =
        format!("ip saddr {pods} ip daddr != {pods} fib daddr type != local masquerade fully-random");
    let leaving = [&format!("{MARKED} goto masquerade-marked"), to_world.as_str()];
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
    /// `tcp`, as rules write it.
    protocol: &'static str,
    /// `HASH-namespace/name/tcp/port`.
    id: String,
}

impl<'a> PortText<'a> {
    fn new(pods: Ipv4Net, port: &'a ServicePort) -> Self {
        let protocol = port.protocol.lower();
        let unique = hash(&[&port.name, protocol]);
        let port_name = port.name.split_once(':').map(|(_, name)| name).unwrap_or_default();
        let id = format!("{}-{}/{protocol}/{port_name}", &unique[..8], port.service);
        Self { pods, port, protocol, id }
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

    /// Two Services may claim one address: the first has it.
    fn claim(&self, table: &mut Table, maps: (&str, &str), at: At, verdict: &str) {
        let (map, key) = match at {
            At::Address(ip, port) => {
                (table.map(maps.0, ADDRESS_MAP), format!("{ip} . {} . {port}", self.protocol))
            }
            At::NodePort(port) => (table.map(maps.1, PORT_MAP), format!("{} . {port}", self.protocol)),
        };
        map.entry(key).or_insert_with(|| verdict.to_owned());
    }

    fn frontend(&self, table: &mut Table, frontend: &Frontend) {
        let services = ("service-ips", "service-nodeports");
        let internal = self.chain(self.port.internal);
        match frontend.kind {
            FrontendKind::ClusterIp if frontend.refusal.is_none() => {
                self.claim(table, services, frontend.at, &format!("goto {internal}"));
                if let At::Address(ip, port) = frontend.at {
                    // A node's own or foreign source would get its answer past this node, untranslated.
                    let from =
                        format!("ip daddr {ip} {} dport {port} ip saddr != {}", self.protocol, self.pods);
                    table.rule(&internal, format!("{from} {MARK}"));
                }
            }
            FrontendKind::ClusterIp => {}
            _ if self.port.any => {
                self.claim(table, services, frontend.at, &format!("goto external-{}", self.id));
            }
            _ => {}
        }
        if !frontend.sources.is_empty() {
            self.firewall(table, frontend);
        }
        let refused = ("no-endpoint-services", "no-endpoint-nodeports");
        match frontend.refusal {
            None => {}
            Some(Refusal::NoEndpoints) => self.claim(table, refused, frontend.at, "goto refuse"),
            Some(Refusal::NoLocalEndpoints) => self.claim(table, refused, frontend.at, "drop"),
        }
    }

    fn firewall(&self, table: &mut Table, frontend: &Frontend) {
        let maps = ("firewall-ips", "firewall-ips");
        if !self.port.any {
            return self.claim(table, maps, frontend.at, "drop");
        }
        let chain = format!("firewall-{}", self.id);
        self.claim(table, maps, frontend.at, &format!("goto {chain}"));
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
