//! Files that every container gets: hosts, host name, resolv.conf.

use std::fmt::Write;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::cri::api::DnsConfig;
use crate::kubelet::spec;
use config::NodeConfig;

/// The kernel's limit of a host name.
const HOST_NAME: usize = 63;

/// The Pod's host name: its own wish, or its name cut to what the kernel takes.
pub fn hostname(pod: &Pod, node: &str) -> String {
    let spec = spec(pod);
    if spec.host_network == Some(true) {
        return node.to_owned();
    }
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return name.clone();
    }
    let name = spec.hostname.as_deref().or(pod.metadata.name.as_deref()).unwrap_or_default();
    name[..name.len().min(HOST_NAME)].trim_end_matches(['-', '.']).to_owned()
}

/// The host name with its domain, where the Pod is one of a Service's by its subdomain.
pub fn fqdn(pod: &Pod, config: &NodeConfig) -> Option<String> {
    let subdomain = spec(pod).subdomain.as_ref().filter(|subdomain| !subdomain.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = hostname(pod, &config.node);
    Some(format!("{name}.{subdomain}.{namespace}.svc.{}", config.cluster_domain))
}

/// What the kernel is told as the sandbox's host name: nothing on the node's own network, where the runtime refuses
/// one; the whole name where the Pod wants that.
pub fn kernel_hostname(pod: &Pod, config: &NodeConfig) -> String {
    let spec = spec(pod);
    if spec.host_network == Some(true) {
        return String::new();
    }
    let whole = fqdn(pod, config).filter(|_| spec.set_hostname_as_fqdn == Some(true));
    whole.unwrap_or_else(|| hostname(pod, &config.node))
}

/// Name servers and search domains by the Pod's dnsPolicy. `node` is the node's own /etc/resolv.conf.
pub fn dns_config(pod: &Pod, config: &NodeConfig, node: &str) -> DnsConfig {
    let spec = spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => spec.host_network != Some(true),
        policy => policy == "ClusterFirstWithHostNet",
    };
    let mut dns = if cluster {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let domain = &config.cluster_domain;
        let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        let mut searches = Vec::from(own);
        // The node's own domains come behind the cluster's, as upstream has it.
        for search in inherited(node, config.dns_ip).searches {
            if !searches.contains(&search) {
                searches.push(search);
            }
        }
        DnsConfig { servers: vec![config.dns_ip.to_string()], searches, options: vec!["ndots:5".into()] }
    } else if policy == "None" {
        DnsConfig::default()
    } else {
        inherited(node, config.dns_ip)
    };
    add_own(&mut dns, spec);
    dns
}

/// The node's own settings. A name server on a loopback address (Docker's) cannot be reached from a Pod's network:
/// the cluster's DNS forwards to it instead.
fn inherited(resolv_conf: &str, cluster_dns: Ipv4Addr) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    let loopback = |server: &String| server.starts_with("127.");
    if dns.servers.iter().all(loopback) {
        dns.servers = vec![cluster_dns.to_string()];
    } else {
        dns.servers.retain(|server| !loopback(server));
    }
    dns
}

/// The Pod's dnsConfig, added behind: servers and searches once each, an option replaces its namesake.
fn add_own(dns: &mut DnsConfig, spec: &PodSpec) {
    let Some(own) = &spec.dns_config else { return };
    let add = |all: &mut Vec<String>, more: &Option<Vec<String>>| {
        for item in more.iter().flatten() {
            if !all.contains(item) {
                all.push(item.clone());
            }
        }
    };
    add(&mut dns.servers, &own.nameservers);
    add(&mut dns.searches, &own.searches);
    for option in own.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        dns.options.retain(|old| old.split(':').next() != Some(name));
        dns.options.push(match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
    }
}

/// What containers see as /etc/hosts. On the node's network it is the node's own file with the Pod's aliases added.
pub fn hosts_file(pod: &Pod, ips: &[String], config: &NodeConfig, node_file: Option<&str>) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file");
    if let Some(node_file) = node_file {
        text.push_str(" (host network).\n");
        text.push_str(node_file);
    } else {
        text.push_str(".\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        let name = hostname(pod, &config.node);
        let domain = fqdn(pod, config).map(|fqdn| format!("{fqdn}\t"));
        for ip in ips {
            let _ = writeln!(text, "{ip}\t{}{name}", domain.as_deref().unwrap_or_default());
        }
    }
    let aliases = spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            let _ = writeln!(text, "{}\t{names}", alias.ip);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing::pod;
    use config::NodeConfig;
    use serde_json::json;

    #[test]
    fn host_names() {
        let check =
            |value: serde_json::Value, expect: &str| assert_eq!(hostname(&pod(value), "node-1"), expect);
        check(json!({"metadata": {"name": "web-1"}, "spec": {"containers": []}}), "web-1");
        check(json!({"metadata": {"name": "web-1"}, "spec": {"containers": [], "hostname": "db"}}), "db");
        check(json!({"metadata": {"name": "x"}, "spec": {"containers": [], "hostNetwork": true}}), "node-1");
        let long = format!("{}-tail", "a".repeat(62));
        check(json!({"metadata": {"name": long}, "spec": {"containers": []}}), &"a".repeat(62));
    }

    #[test]
    fn resolv_conf_by_policy() {
        let node = "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n";
        let check = |spec: serde_json::Value, servers: &[&str], searches: &[&str], options: &[&str]| {
            let pod = pod(json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec}));
            let dns = dns_config(&pod, &NodeConfig::example(), node);
            assert_eq!((dns.servers, dns.searches, dns.options), (to(servers), to(searches), to(options)));
        };
        fn to(words: &[&str]) -> Vec<String> {
            words.iter().map(|word| (*word).to_owned()).collect()
        }
        let cluster = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"];
        check(json!({"containers": []}), &["10.43.0.10"], &cluster, &["ndots:5"]);
        check(
            json!({"containers": [], "dnsPolicy": "Default"}),
            &["10.43.0.10"],
            &["corp.example"],
            &["ndots:0"],
        );
        check(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
                "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &["1.1.1.1"],
            &["a.b"],
            &["ndots:2", "edns0"],
        );
    }

    #[test]
    fn hosts_name_the_pod() {
        let pod = pod(json!({"metadata": {"name": "a", "namespace": "shop"},
            "spec": {"containers": [], "subdomain": "db", "hostAliases": [{"ip": "9.9.9.9", "hostnames": ["x", "y"]}]}}));
        let text = hosts_file(&pod, &["10.42.0.7".into()], &NodeConfig::example(), None);
        assert!(text.contains("\n10.42.0.7\ta.db.shop.svc.cluster.local\ta\n"), "{text}");
        assert!(text.ends_with("9.9.9.9\tx\ty\n"), "{text}");
    }
}
