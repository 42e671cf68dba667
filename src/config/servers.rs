//! The servers of a cluster that has several: a file that every node of it has, and that changes while nodes run.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Node name, and name of the member of etcd that it runs.
    pub node: String,
    pub ip: Ipv4Addr,
}

/// All servers of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Servers(pub Vec<Server>);

impl Servers {
    /// Where the file is, in nodes and in the load balancer of the API.
    pub const FILE: &'static str = "/var/lib/minik/servers.json";

    /// Reads the file of this node. A cluster that was made for one server has none, or an empty one.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn read() -> std::io::Result<Self> {
        match std::fs::read(Self::FILE) {
            Ok(text) => Ok(Self::parse(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        if text.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(text) }
    }

    /// The servers in the order in which a node asks them: itself, if it is one; others begin with different ones, so that
    /// each server has its share of the nodes.
    pub fn for_node(&self, node: &str) -> Vec<Ipv4Addr> {
        let own = self.0.iter().position(|server| server.node == node);
        let sum = node.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let mut all: Vec<Ipv4Addr> = self.0.iter().map(|server| server.ip).collect();
        if !all.is_empty() {
            let first = own.unwrap_or(sum % all.len());
            all.rotate_left(first);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Servers {
        let server = |n: u8| Server { node: format!("c-server-{n}"), ip: Ipv4Addr::new(10, 0, 0, n) };
        Servers((0..3).map(server).collect())
    }

    #[test]
    fn a_node_asks_itself_first_and_nodes_ask_different_servers() {
        let first = |node: &str| three().for_node(node)[0].octets()[3];
        assert_eq!([first("c-server-0"), first("c-server-1"), first("c-server-2")], [0, 1, 2]);
        let mut firsts: Vec<u8> = (0..9).map(|n| first(&format!("c-agent-{n}"))).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts, [0, 1, 2]);
        assert_eq!(three().for_node("c-agent-0").len(), 3);
        assert!(Servers::default().for_node("c-agent-0").is_empty());
    }

    #[test]
    fn the_file_comes_back_and_an_empty_one_is_none() {
        let text = serde_json::to_vec(&three()).expect("plain data");
        assert_eq!(Servers::parse(&text).expect("readable"), three());
        assert_eq!(Servers::parse(b"").expect("readable"), Servers::default());
        assert!(Servers::parse(b"{").is_err());
    }
}
