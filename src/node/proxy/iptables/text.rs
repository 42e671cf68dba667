//! A plan as iptables rules, laid out and named as kube-proxy's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::chains::{Rules, Table};
use crate::proxy::endpoints::Target;
use crate::proxy::names::{endpoint_chain, service_chain};
use crate::proxy::plan::{At, Frontend, FrontendKind, Plan, Policy, Refusal, ServicePort};

/// Marks packets whose source must become the node's; the bit that kube-proxy uses.
const MASQUERADE_BIT: &str = "0x4000";

/// The chains that all Services share: each says where packets go on.
pub(super) const SHARED: &[&str] =
    &["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"];

/// What one Service adds: rules of the shared chains, and chains of its own.
pub(super) fn service(pods: Ipv4Net, ports: &[ServicePort]) -> Rules {
    let mut rules = Rules::default();
    ports.iter().for_each(|port| PortText::new(pods, port).write(&mut rules));
    rules
}

/// The chains that exist whatever the Services are, and among them the shared ones of all Services.
pub(super) fn shared(plan: &Plan) -> Rules {
    let mut rules = Rules::default();
    fixed_chains(&mut rules, plan.pods);
    for ports in plan.services.values() {
        for (table, chain, rule) in service(plan.pods, ports).shared(SHARED) {
            rules.push(table, chain, rule);
        }
    }
    if let Some(range) = plan.cluster_ips {
        // Dropped, not refused: who is early for a new Service tries again.
        let rule = format!(
            r#"-m comment --comment "no service has this address and port" -d {range} -m addrtype ! --dst-type LOCAL -j DROP"#
        );
        rules.push(Table::Filter, "KUBE-SERVICES", rule);
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
fn fixed_chains(rules: &mut Rules, pods: Ipv4Net) {
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
    nat("MINIK-MASQ", format!("! -s {pods} -j RETURN"));
    nat("MINIK-MASQ", format!("-d {pods} -j RETURN"));
    nat("MINIK-MASQ", "-m addrtype --dst-type LOCAL -j RETURN".into());
    nat(
        "MINIK-MASQ",
        r#"-m comment --comment "pods reach the world beyond the cluster as their node" -j MASQUERADE --random-fully"#
            .into(),
    );
}

/// One port of one Service, with everything computed that its rules repeat.
struct PortText<'a> {
    pods: Ipv4Net,
    port: &'a ServicePort,
    cluster_chain: String,
    local_chain: String,
    external_chain: String,
    firewall_chain: String,
}

impl<'a> PortText<'a> {
    fn new(pods: Ipv4Net, port: &'a ServicePort) -> Self {
        let chain = |prefix| service_chain(prefix, &port.name, port.protocol);
        Self {
            pods,
            port,
            cluster_chain: chain("KUBE-SVC-"),
            local_chain: chain("KUBE-SVL-"),
            external_chain: chain("KUBE-EXT-"),
            firewall_chain: chain("KUBE-FW-"),
        }
    }

    fn write(&self, rules: &mut Rules) {
        if let Some(port) = self.port.health_check {
            let comment = self.comment("health check node port");
            let rule = format!("{comment} -m tcp -p tcp --dport {port} -j ACCEPT");
            rules.push(Table::Filter, "KUBE-NODEPORTS", rule);
        }
        for frontend in &self.port.frontends {
            match (frontend.kind, frontend.at) {
                (_, At::NodePort(port)) => self.node_port(rules, frontend, port),
                (FrontendKind::ClusterIp, At::Address(ip, port)) => {
                    self.cluster_ip(rules, frontend, ip, port);
                }
                (_, At::Address(ip, port)) => self.outside_address(rules, frontend, ip, port),
            }
        }
        self.firewall(rules);
        self.external(rules);
        for (chain, policy) in [(&self.cluster_chain, Policy::Cluster), (&self.local_chain, Policy::Local)] {
            if !self.port.targets(policy).is_empty() {
                self.balance(rules, chain, self.port.targets(policy));
            }
        }
        self.endpoints(rules);
    }

    /// `-m tcp -p tcp -d IP --dport PORT`.
    fn to(&self, ip: Ipv4Addr, port: u16) -> String {
        let protocol = self.port.protocol.lower();
        format!("-m {protocol} -p {protocol} -d {ip}/32 --dport {port}")
    }

    fn comment(&self, what: &str) -> String {
        format!(r#"-m comment --comment "{} {what}""#, self.port.name)
    }

    fn refuse(&self, rules: &mut Rules, chain: &str, frontend: &Frontend, destination: &str) {
        let (why, target) = match frontend.refusal {
            None => return,
            Some(Refusal::NoEndpoints) => ("has no endpoints", "REJECT"),
            Some(Refusal::NoLocalEndpoints) => ("has no local endpoints", "DROP"),
        };
        rules.push(Table::Filter, chain, format!("{} {destination} -j {target}", self.comment(why)));
    }

    fn cluster_ip(&self, rules: &mut Rules, frontend: &Frontend, ip: Ipv4Addr, port: u16) {
        let to = self.to(ip, port);
        if frontend.refusal.is_some() {
            return self.refuse(rules, "KUBE-SERVICES", frontend, &to);
        }
        let chain = match self.port.internal {
            Policy::Local => &self.local_chain,
            Policy::Cluster => &self.cluster_chain,
        };
        let comment = self.comment("cluster IP");
        rules.push(Table::Nat, "KUBE-SERVICES", format!("{comment} {to} -j {chain}"));
        // A node's own or foreign source would get its answer past this node, untranslated.
        rules.push(Table::Nat, chain, format!("{comment} {to} ! -s {} -j KUBE-MARK-MASQ", self.pods));
    }

    /// An external IP, or a load balancer's.
    fn outside_address(&self, rules: &mut Rules, frontend: &Frontend, ip: Ipv4Addr, port: u16) {
        let to = self.to(ip, port);
        let guarded = !frontend.sources.is_empty();
        if self.port.any {
            let what =
                if frontend.kind == FrontendKind::ExternalIp { "external IP" } else { "loadbalancer IP" };
            let chain = if guarded { &self.firewall_chain } else { &self.external_chain };
            rules.push(Table::Nat, "KUBE-SERVICES", format!("{} {to} -j {chain}", self.comment(what)));
        }
        if guarded {
            let comment = self.comment(&format!("traffic not accepted by {}", self.firewall_chain));
            rules.push(Table::Filter, "KUBE-PROXY-FIREWALL", format!("{comment} {to} -j DROP"));
        }
        self.refuse(rules, "KUBE-EXTERNAL-SERVICES", frontend, &to);
    }

    fn node_port(&self, rules: &mut Rules, frontend: &Frontend, port: u16) {
        let protocol = self.port.protocol.lower();
        let to = format!("-m {protocol} -p {protocol} --dport {port}");
        if self.port.any {
            let rule = format!("-m comment --comment {} {to} -j {}", self.port.name, self.external_chain);
            rules.push(Table::Nat, "KUBE-NODEPORTS", rule);
        }
        let to = format!("-m addrtype --dst-type LOCAL {to}");
        self.refuse(rules, "KUBE-EXTERNAL-SERVICES", frontend, &to);
    }

    /// Sources outside the ranges pass through untranslated, and KUBE-PROXY-FIREWALL drops what still has the load
    /// balancer's address.
    fn firewall(&self, rules: &mut Rules) {
        let guarded = self.port.frontends.iter().find(|frontend| !frontend.sources.is_empty());
        let Some(frontend) = guarded.filter(|_| self.port.any) else { return };
        let comment = self.comment("loadbalancer IP");
        for range in &frontend.sources {
            let rule = format!("{comment} -s {range} -j {}", self.external_chain);
            rules.push(Table::Nat, &self.firewall_chain, rule);
        }
        let dropped = format!(
            r#"-m comment --comment "other traffic to {} will be dropped by KUBE-PROXY-FIREWALL""#,
            self.port.name
        );
        rules.push(Table::Nat, &self.firewall_chain, dropped);
    }

    /// Where external traffic enters: masqueraded for policy Cluster; for Local the source is kept, except where the
    /// node itself asks, and Pods use all endpoints as if they had used the ClusterIP.
    fn external(&self, rules: &mut Rules) {
        if !self.port.exposed || !self.port.any {
            return;
        }
        let chain = &self.external_chain;
        let mut push = |rule: String| rules.push(Table::Nat, chain, rule);
        let comment = |what: &str| {
            format!(r#"-m comment --comment "{what} traffic for {} external destinations""#, self.port.name)
        };
        if self.port.external == Policy::Cluster {
            push(format!("{} -j KUBE-MARK-MASQ", comment("masquerade")));
            if !self.port.cluster.is_empty() {
                push(format!("-j {}", self.cluster_chain));
            }
            return;
        }
        if !self.port.cluster.is_empty() {
            push(format!("{} -s {} -j {}", comment("pod"), self.pods, self.cluster_chain));
            push(format!("{} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", comment("masquerade LOCAL")));
            push(format!(
                "{} -m addrtype --src-type LOCAL -j {}",
                comment("route LOCAL"),
                self.cluster_chain
            ));
        }
        if !self.port.local.is_empty() {
            push(format!("-j {}", self.local_chain));
        }
    }

    fn endpoint_chain(&self, target: &Target) -> String {
        endpoint_chain(&self.port.name, self.port.protocol, &target.text())
    }

    /// Known clients go back to their endpoint; others get any, with equal probability: the n-th of those left is
    /// taken with 1/n.
    fn balance(&self, rules: &mut Rules, chain: &str, targets: &[Target]) {
        let comment = |t: &Target| self.comment(&format!("-> {}", t.text()));
        if let Some(seconds) = self.port.affinity {
            for target in targets {
                let sep = self.endpoint_chain(target);
                let recent = format!("-m recent --name {sep} --rcheck --seconds {seconds} --reap");
                rules.push(Table::Nat, chain, format!("{} {recent} -j {sep}", comment(target)));
            }
        }
        for (at, target) in targets.iter().enumerate() {
            let left = targets.len() - at;
            let sep = self.endpoint_chain(target);
            let chance = if left > 1 {
                format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64)
            } else {
                String::new()
            };
            rules.push(Table::Nat, chain, format!("{}{chance} -j {sep}", comment(target)));
        }
    }

    fn endpoints(&self, rules: &mut Rules) {
        let protocol = self.port.protocol.lower();
        for target in self.port.all_targets() {
            let sep = self.endpoint_chain(target);
            let comment = format!("-m comment --comment {}", self.port.name);
            // Hairpin: a Pod that reaches itself through its Service must see an answerable source.
            let hairpin = format!("{comment} -s {}/32 -j KUBE-MARK-MASQ", target.address);
            let remember = match self.port.affinity {
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
}
