//! Host ports that lead into a cluster, written as k3d and Docker write them.
//!
//! ```text
//! [HOST-IP:]HOST-PORT:PORT[/PROTOCOL][@NODES]      NODES: loadbalancer (default) | server:0 | server:* | agent:* | agent:0,2
//! ```

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::numbers;
use super::spec::SpecError;
use config::Role;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where a host port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The Services of type LoadBalancer that have this port.
    LoadBalancer,
    /// The port of these nodes, by number: NodePorts, host ports, hostNetwork Pods.
    Nodes(Vec<u32>),
    /// The same of every agent, whichever there are, and of these servers, by number.
    AllAgents(Vec<u32>),
    /// The same of every server, whichever there are.
    AllServers,
    /// The same of every node, whichever there are.
    All,
}

/// One host port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortMapping {
    pub host_ip: Ipv4Addr,
    pub host_port: u16,
    pub port: u16,
    pub protocol: Protocol,
    pub target: Target,
}

impl PortMapping {
    /// The nodes it names.
    pub fn nodes(&self) -> &[u32] {
        match &self.target {
            Target::Nodes(numbers) | Target::AllAgents(numbers) => numbers,
            Target::LoadBalancer | Target::AllServers | Target::All => &[],
        }
    }
}

impl FromStr for PortMapping {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = |why: &str| SpecError::Port(format!("invalid port {text:?}: {why}"));
        let (ports, filter) = match text.split_once('@') {
            Some((ports, filter)) => (ports, Some(filter)),
            None => (text, None),
        };
        let (ports, protocol) = match ports.split_once('/') {
            None | Some((_, "tcp")) => (ports.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(wrong("the protocol is tcp or udp")),
        };
        let parts: Vec<&str> = ports.split(':').collect();
        let (ip, host, inside) = match parts.as_slice() {
            [host, inside] => (None, host, inside),
            [ip, host, inside] => (Some(*ip), host, inside),
            _ => return Err(wrong("[HOST-IP:]HOST-PORT:PORT[/PROTOCOL][@NODES] is expected")),
        };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(wrong("a port is a number from 1 to 65535")),
        };
        // Only what was asked for by its address is open to other machines.
        let host_ip = match ip {
            None => Ipv4Addr::LOCALHOST,
            Some(ip) => ip.parse().map_err(|_| wrong("the address of the host must be an IPv4 address"))?,
        };
        let target =
            filter.map_or(Ok(Target::LoadBalancer), |filter| target(filter).map_err(|why| wrong(&why)))?;
        Ok(Self { host_ip, host_port: port(host)?, port: port(inside)?, protocol, target })
    }
}

fn target(filter: &str) -> Result<Target, String> {
    if plain(filter) == "loadbalancer" {
        return Ok(Target::LoadBalancer);
    }
    let parts: Vec<&str> = filter.split(';').map(plain).collect();
    let every = |role: &str| {
        let words = [role.to_owned(), format!("{role}s"), format!("{role}:*"), format!("{role}s:*")];
        parts.iter().any(|part| words.iter().any(|word| word == part))
    };
    let all_servers = every("server");
    let all_agents = every("agent");
    match parts.len() {
        _ if every("all") || (all_agents && all_servers) => Ok(Target::All),
        1 if all_agents => Ok(Target::AllAgents(Vec::new())),
        1 if all_servers => Ok(Target::AllServers),
        _ if all_agents => {
            let others: Vec<&str> = parts.into_iter().filter(|part| !part.starts_with("agent")).collect();
            let servers = node_numbers(&others.join(";"), &[]);
            servers
                .map(Target::AllAgents)
                .map_err(|why| format!("{why}; beside agent:* only servers are named"))
        }
        _ => node_numbers(filter, &[]).map(Target::Nodes),
    }
}

/// A part of a filter without what k3d lets people add: whether a port goes through its load balancer, which is the same
/// here.
fn plain(part: &str) -> &str {
    part.trim_start_matches('@').trim_end_matches(":direct").trim_end_matches(":proxy")
}

/// The nodes a filter names, by number: `server:0`, `agent:1,2`, `all`, `agent:*`, several joined by `;`. `known` are the
/// nodes there are, for the words that mean all. Fails with what is wrong with the filter.
pub fn node_numbers(filter: &str, known: &[u32]) -> Result<Vec<u32>, String> {
    let mut found = Vec::new();
    for part in filter.split(';').map(plain) {
        let (role, list) = part.split_once(':').unwrap_or((part, "*"));
        let (prefix, of_role): (&str, fn(u32) -> bool) = match role {
            "server" | "servers" => ("server", |n| numbers::role(n) == Role::Server),
            "agent" | "agents" => ("agent", |n| numbers::role(n) == Role::Agent),
            "all" if list == "*" => ("", |_| true),
            _ => {
                return Err(format!(
                    "{part:?} is no node filter: server:0, agent:*, agent:0,2 or loadbalancer is expected"
                ));
            }
        };
        if list == "*" {
            found.extend(known.iter().copied().filter(|n| of_role(*n)));
            if known.is_empty() && prefix == "server" {
                found.push(numbers::FIRST_SERVER);
            }
            continue;
        }
        for index in list.split(',') {
            let index: u32 = index.parse().map_err(|_| format!("{index:?} is no number of a node"))?;
            let number = numbers::of_short_name(&format!("{prefix}-{index}"));
            found.push(number.ok_or_else(|| format!("there is no {role}:{index}"))?);
        }
    }
    found.sort_unstable();
    found.dedup();
    match found.is_empty() {
        true => Err(format!("{filter:?} names no node")),
        false => Ok(found),
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_ip, host_port, port, protocol, target } = self;
        write!(f, "{host_ip}:{host_port}:{port}/{}@", protocol.as_str())?;
        let short = |number: &u32| numbers::short_name(*number).replace('-', ":");
        match target {
            Target::LoadBalancer => f.write_str("loadbalancer"),
            Target::AllAgents(servers) => {
                servers.iter().try_for_each(|number| write!(f, "{};", short(number)))?;
                f.write_str("agent:*")
            }
            Target::AllServers => f.write_str("server:*"),
            Target::All => f.write_str("all"),
            Target::Nodes(numbers) => f.write_str(&numbers.iter().map(short).collect::<Vec<_>>().join(";")),
        }
    }
}

impl TryFrom<String> for PortMapping {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<PortMapping> for String {
    fn from(mapping: PortMapping) -> Self {
        mapping.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_and_written() {
        let check = |text: &str, shown: &str| {
            let mapping: PortMapping = text.parse().expect(text);
            assert_eq!(mapping.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<PortMapping>().expect(shown), mapping);
        };
        check("8080:80", "127.0.0.1:8080:80/tcp@loadbalancer");
        check("8080:80@loadbalancer", "127.0.0.1:8080:80/tcp@loadbalancer");
        check("0.0.0.0:53:53/udp@server:0", "0.0.0.0:53:53/udp@server:0");
        check("30080:30080/tcp@agent:0,2", "127.0.0.1:30080:30080/tcp@agent:0;agent:2");
        check("30080:30080@server:0;agent:1", "127.0.0.1:30080:30080/tcp@server:0;agent:1");
        check("30080:30080@agent:*", "127.0.0.1:30080:30080/tcp@agent:*");
        check("30080:30080@server:0;agent:*", "127.0.0.1:30080:30080/tcp@server:0;agent:*");
        check("30080:30080@agents;server:0,1", "127.0.0.1:30080:30080/tcp@server:0;server:1;agent:*");
        check("30080:30080@server:*;agent:*", "127.0.0.1:30080:30080/tcp@all");
        check("30080:30080@servers:*:direct", "127.0.0.1:30080:30080/tcp@server:*");
        check("30080:30080@server:0,2", "127.0.0.1:30080:30080/tcp@server:0;server:2");
        check("30080:30080@all", "127.0.0.1:30080:30080/tcp@all");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for bad in [
            "",
            "80",
            "0:80",
            "80:70000",
            "x:80",
            "80:80/sctp",
            "80:80@",
            "80:80@node:0",
            "80:80@server:7",
            "1.2.3:80:80",
            "80:80@agent:*;agent:0",
            "80:80@agent:x",
        ] {
            assert!(bad.parse::<PortMapping>().is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_name_nodes() {
        let check = |filter: &str, expect: &[u32]| {
            assert_eq!(node_numbers(filter, &[0, 1, 2, 100]).as_deref(), Ok(expect), "{filter}");
        };
        check("server:0", &[0]);
        check("agent:*", &[1, 2]);
        check("all", &[0, 1, 2, 100]);
        check("servers:*;agents:1", &[0, 2, 100]);
        check("agent:1,0", &[1, 2]);
    }
}
