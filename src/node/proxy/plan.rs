//! From what is observed to the rules that make it true on this node; no I/O, no clock, same input, same rules.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::endpoints::{Target, Usable, choose, external};
use super::names::{endpoint_chain, port_name, service_chain};
use super::rules::{Flow, HealthCheck, Rules, Table};
use crate::node::network::{Kind, Port, Service, View};

/// Marks packets whose source must become the node's; the bit that kube-proxy uses.
const MASQUERADE_BIT: &str = "0x4000";

/// What the plan must know of the node and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// This node's address: load balancer source ranges that contain it admit the node itself.
    pub node_ip: Ipv4Addr,
    /// All Pod addresses: traffic to Services from elsewhere is masqueraded, and so is Pods' traffic that leaves it.
    pub pod_cidr: Ipv4Net,
    /// ClusterIPs that a process on every node answers itself (DNS): never translated, never refused.
    pub answered_here: BTreeSet<Ipv4Addr>,
}

/// The rules for everything in `view` on the node that `settings` describes.
pub fn plan(view: &View, settings: &Settings) -> Rules {
    let mut rules = Rules::default();
    fixed_chains(&mut rules, settings);
    for service in view.services().filter(|service| !service.other_proxy) {
        for port in &service.ports {
            if let Some(cluster_ip) = service.cluster_ip
                && !settings.answered_here.contains(&cluster_ip)
                && !matches!(service.kind, Kind::ExternalName(_))
            {
                PortPlan::new(view, settings, service, port, cluster_ip).write(&mut rules);
            }
        }
    }
    rules.push(
        Table::Nat,
        "KUBE-SERVICES",
        r#"-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"#
            .into(),
    );
    rules
}

/// Chains that exist whatever the Services are.
fn fixed_chains(rules: &mut Rules, settings: &Settings) {
    for chain in ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"] {
        rules.chain(Table::Filter, chain);
    }
    rules.chain(Table::Nat, "KUBE-NODEPORTS");
    let mut filter = |chain: &str, rule: &str| rules.push(Table::Filter, chain, rule.into());
    filter(
        "KUBE-FIREWALL",
        r#"-m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"#,
    );
    filter("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP");
    filter(
        "KUBE-FORWARD",
        &format!(
            r#"-m comment --comment "kubernetes forwarding rules" -m mark --mark {MASQUERADE_BIT}/{MASQUERADE_BIT} -j ACCEPT"#
        ),
    );
    filter(
        "KUBE-FORWARD",
        r#"-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"#,
    );
    let mut nat = |chain: &str, rule: String| rules.push(Table::Nat, chain, rule);
    nat("KUBE-MARK-MASQ", format!("-j MARK --or-mark {MASQUERADE_BIT}"));
    nat("KUBE-POSTROUTING", format!("-m mark ! --mark {MASQUERADE_BIT}/{MASQUERADE_BIT} -j RETURN"));
    // The mark goes before the packet does, so that it is not masqueraded again on its way through another interface.
    nat("KUBE-POSTROUTING", format!("-j MARK --xor-mark {MASQUERADE_BIT}"));
    nat(
        "KUBE-POSTROUTING",
        r#"-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully"#
            .into(),
    );
    let pods = settings.pod_cidr;
    nat("MINIK-MASQ", format!("! -s {pods} -j RETURN"));
    nat("MINIK-MASQ", format!("-d {pods} -j RETURN"));
    nat("MINIK-MASQ", "-m addrtype --dst-type LOCAL -j RETURN".into());
    nat(
        "MINIK-MASQ",
        r#"-m comment --comment "pods reach the world beyond the cluster as their node" -j MASQUERADE --random-fully"#
            .into(),
    );
}

/// Which way connections without a usable endpoint end.
#[derive(Clone, Copy)]
enum Refusal {
    /// No endpoint anywhere.
    NoEndpoints,
    /// Endpoints elsewhere, but policy Local and none here.
    NoLocalEndpoints,
}

impl Refusal {
    fn comment(self, name: &str) -> String {
        match self {
            Self::NoEndpoints => format!(r#"-m comment --comment "{name} has no endpoints""#),
            Self::NoLocalEndpoints => format!(r#"-m comment --comment "{name} has no local endpoints""#),
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::NoEndpoints => "REJECT",
            Self::NoLocalEndpoints => "DROP",
        }
    }
}

/// One port of one Service, with everything computed that its rules repeat.
struct PortPlan<'a> {
    settings: &'a Settings,
    service: &'a Service,
    port: &'a Port,
    cluster_ip: Ipv4Addr,
    name: String,
    usable: Usable,
    external: bool,
    cluster_chain: String,
    local_chain: String,
    external_chain: String,
    firewall_chain: String,
}

impl<'a> PortPlan<'a> {
    fn new(
        view: &View,
        settings: &'a Settings,
        service: &'a Service,
        port: &'a Port,
        cluster_ip: Ipv4Addr,
    ) -> Self {
        let name = port_name(&service.key, port);
        let chain = |prefix| service_chain(prefix, &name, port.protocol);
        Self {
            usable: choose(view, &settings.node, service, port),
            external: external(service, port),
            cluster_chain: chain("KUBE-SVC-"),
            local_chain: chain("KUBE-SVL-"),
            external_chain: chain("KUBE-EXT-"),
            firewall_chain: chain("KUBE-FW-"),
            settings,
            service,
            port,
            cluster_ip,
            name,
        }
    }

    fn write(&self, rules: &mut Rules) {
        self.cluster_ip_rules(rules);
        self.external_ip_rules(rules);
        self.load_balancer_rules(rules);
        self.node_port_rules(rules);
        self.external_chain_rules(rules);
        if !self.usable.cluster.is_empty() {
            self.balance(rules, &self.cluster_chain, &self.usable.cluster);
        }
        if !self.usable.local.is_empty() {
            self.balance(rules, &self.local_chain, &self.usable.local);
        }
        self.endpoint_chains(rules);
        self.note_udp(rules);
    }

    /// `-m tcp -p tcp -d IP --dport PORT`.
    fn to(&self, ip: Ipv4Addr) -> String {
        let protocol = self.port.protocol.lower();
        format!("-m {protocol} -p {protocol} -d {ip}/32 --dport {}", self.port.port)
    }

    fn comment(&self, what: &str) -> String {
        format!(r#"-m comment --comment "{} {what}""#, self.name)
    }

    fn refusal(&self, local: bool) -> Option<Refusal> {
        let usable = if local { &self.usable.local } else { &self.usable.cluster };
        match (self.usable.any, usable.is_empty()) {
            (false, _) => Some(Refusal::NoEndpoints),
            (true, true) => Some(Refusal::NoLocalEndpoints),
            (true, false) => None,
        }
    }

    fn refuse(&self, rules: &mut Rules, chain: &str, refusal: Refusal, destination: &str) {
        let rule = format!("{} {destination} -j {}", refusal.comment(&self.name), refusal.target());
        rules.push(Table::Filter, chain, rule);
    }

    fn cluster_ip_rules(&self, rules: &mut Rules) {
        let to = self.to(self.cluster_ip);
        if let Some(refusal) = self.refusal(self.service.internal_local) {
            return self.refuse(rules, "KUBE-SERVICES", refusal, &to);
        }
        let chain = if self.service.internal_local { &self.local_chain } else { &self.cluster_chain };
        let comment = self.comment("cluster IP");
        rules.push(Table::Nat, "KUBE-SERVICES", format!("{comment} {to} -j {chain}"));
        // A node's own or foreign source would get its answer past this node, untranslated.
        let pods = self.settings.pod_cidr;
        rules.push(Table::Nat, chain, format!("{comment} {to} ! -s {pods} -j KUBE-MARK-MASQ"));
    }

    fn external_ip_rules(&self, rules: &mut Rules) {
        for ip in &self.service.external_ips {
            let to = self.to(*ip);
            if self.usable.any {
                let comment = self.comment("external IP");
                rules.push(Table::Nat, "KUBE-SERVICES", format!("{comment} {to} -j {}", self.external_chain));
            }
            if let Some(refusal) = self.refusal(self.service.external_local) {
                self.refuse(rules, "KUBE-EXTERNAL-SERVICES", refusal, &to);
            }
        }
    }

    fn ingress_ips(&self) -> &[Ipv4Addr] {
        if self.service.kind == Kind::LoadBalancer { &self.service.ingress_ips } else { &[] }
    }

    fn load_balancer_rules(&self, rules: &mut Rules) {
        let guarded = !self.service.source_ranges.is_empty();
        for ip in self.ingress_ips() {
            let to = self.to(*ip);
            if self.usable.any {
                let chain = if guarded { &self.firewall_chain } else { &self.external_chain };
                let comment = self.comment("loadbalancer IP");
                rules.push(Table::Nat, "KUBE-SERVICES", format!("{comment} {to} -j {chain}"));
            }
            if guarded {
                let comment = self.comment(&format!("traffic not accepted by {}", self.firewall_chain));
                rules.push(Table::Filter, "KUBE-PROXY-FIREWALL", format!("{comment} {to} -j DROP"));
            }
            if let Some(refusal) = self.refusal(self.service.external_local) {
                self.refuse(rules, "KUBE-EXTERNAL-SERVICES", refusal, &to);
            }
        }
        if guarded && self.usable.any && !self.ingress_ips().is_empty() {
            self.firewall_rules(rules);
        }
    }

    /// Sources outside the ranges pass through untranslated, and KUBE-PROXY-FIREWALL drops what still has the load
    /// balancer's address.
    fn firewall_rules(&self, rules: &mut Rules) {
        let comment = self.comment("loadbalancer IP");
        let mut admits_node = false;
        for range in &self.service.source_ranges {
            admits_node |= range.contains(&self.settings.node_ip);
            let rule = format!("{comment} -s {range} -j {}", self.external_chain);
            rules.push(Table::Nat, &self.firewall_chain, rule);
        }
        if admits_node {
            // The node may use the load balancer's address as its source when that is its destination.
            for ip in self.ingress_ips() {
                let rule = format!("{comment} -s {ip}/32 -j {}", self.external_chain);
                rules.push(Table::Nat, &self.firewall_chain, rule);
            }
        }
        let dropped = format!(
            r#"-m comment --comment "other traffic to {} will be dropped by KUBE-PROXY-FIREWALL""#,
            self.name
        );
        rules.push(Table::Nat, &self.firewall_chain, dropped);
    }

    fn node_port_rules(&self, rules: &mut Rules) {
        if let Some(port) = self.service.health_check_node_port.filter(|_| self.service.external_local) {
            let comment = self.comment("health check node port");
            let rule = format!("{comment} -m tcp -p tcp --dport {port} -j ACCEPT");
            rules.push(Table::Filter, "KUBE-NODEPORTS", rule);
            let check = rules
                .health
                .entry(port)
                .or_insert_with(|| HealthCheck { service: self.service.key.clone(), local_endpoints: 0 });
            check.local_endpoints = check.local_endpoints.max(self.usable.local_ready);
        }
        let Some(port) = self.port.node_port else { return };
        let protocol = self.port.protocol.lower();
        let to = format!("-m {protocol} -p {protocol} --dport {port}");
        if self.usable.any {
            let rule = format!("-m comment --comment {} {to} -j {}", self.name, self.external_chain);
            rules.push(Table::Nat, "KUBE-NODEPORTS", rule);
        }
        if let Some(refusal) = self.refusal(self.service.external_local) {
            let to = format!("-m addrtype --dst-type LOCAL {to}");
            self.refuse(rules, "KUBE-EXTERNAL-SERVICES", refusal, &to);
        }
    }

    /// Where external traffic enters: masqueraded for policy Cluster; for Local the source is kept, except where the
    /// node itself asks, and Pods use all endpoints as if they had used the ClusterIP.
    fn external_chain_rules(&self, rules: &mut Rules) {
        if !self.external || !self.usable.any {
            return;
        }
        let chain = &self.external_chain;
        let mut push = |rule: String| rules.push(Table::Nat, chain, rule);
        let comment = |what: &str| {
            format!(r#"-m comment --comment "{what} traffic for {} external destinations""#, self.name)
        };
        if !self.service.external_local {
            push(format!("{} -j KUBE-MARK-MASQ", comment("masquerade")));
            if !self.usable.cluster.is_empty() {
                push(format!("-j {}", self.cluster_chain));
            }
            return;
        }
        if !self.usable.cluster.is_empty() {
            let pods = self.settings.pod_cidr;
            push(format!("{} -s {pods} -j {}", comment("pod"), self.cluster_chain));
            push(format!("{} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", comment("masquerade LOCAL")));
            push(format!(
                "{} -m addrtype --src-type LOCAL -j {}",
                comment("route LOCAL"),
                self.cluster_chain
            ));
        }
        if !self.usable.local.is_empty() {
            push(format!("-j {}", self.local_chain));
        }
    }

    /// Known clients go back to their endpoint; others get any, with equal probability: the n-th of those left is
    /// taken with 1/n.
    fn balance(&self, rules: &mut Rules, chain: &str, targets: &[Target]) {
        let chain_of = |t: &Target| endpoint_chain(&self.name, self.port.protocol, &t.text());
        let comment = |t: &Target| self.comment(&format!("-> {}", t.text()));
        if let Some(seconds) = self.service.affinity {
            for target in targets {
                let sep = chain_of(target);
                let recent = format!("-m recent --name {sep} --rcheck --seconds {seconds} --reap");
                rules.push(Table::Nat, chain, format!("{} {recent} -j {sep}", comment(target)));
            }
        }
        for (at, target) in targets.iter().enumerate() {
            let left = targets.len() - at;
            let sep = chain_of(target);
            let chance = if left > 1 {
                format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64)
            } else {
                String::new()
            };
            rules.push(Table::Nat, chain, format!("{}{chance} -j {sep}", comment(target)));
        }
    }

    fn endpoint_chains(&self, rules: &mut Rules) {
        let protocol = self.port.protocol.lower();
        for target in self.usable.cluster.iter().chain(&self.usable.local) {
            let sep = endpoint_chain(&self.name, self.port.protocol, &target.text());
            if rules.nat.contains_key(&sep) {
                continue;
            }
            let comment = format!("-m comment --comment {}", self.name);
            // Hairpin: a Pod that reaches itself through its Service must see an answerable source.
            let hairpin = format!("{comment} -s {}/32 -j KUBE-MARK-MASQ", target.address);
            let remember = match self.service.affinity {
                Some(_) => format!(" -m recent --name {sep} --set"),
                None => String::new(),
            };
            let translate = format!(
                "{comment}{remember} -m {protocol} -p {protocol} -j DNAT --to-destination {}",
                target.text()
            );
            rules.push(Table::Nat, &sep, hairpin);
            rules.push(Table::Nat, &sep, translate);
        }
    }

    fn note_udp(&self, rules: &mut Rules) {
        if self.port.protocol != crate::node::network::Protocol::Udp {
            return;
        }
        let endpoints: BTreeSet<Ipv4Addr> =
            self.usable.cluster.iter().chain(&self.usable.local).map(|t| t.address).collect();
        let external = self.service.external_ips.iter().chain(self.ingress_ips());
        let addresses = std::iter::once(&self.cluster_ip).chain(external);
        let flows = addresses.map(|ip| Flow::Address(*ip, self.port.port));
        for flow in flows.chain(self.port.node_port.map(Flow::NodePort)) {
            rules.udp.entry(flow).or_default().extend(&endpoints);
        }
    }
}
