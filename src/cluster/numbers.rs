//! Numbers of nodes: role, name and address of a node follow from its number, which never changes.
//!
//! ```text
//! 0: server-0 | 1 to 99: agent-0 to agent-98 | 100 to 105: server-1 to server-6
//! ```
//!
//! So a cluster may get further servers, or lose some, and no other node is called something else.

use config::Role;

/// The number of the first server.
pub const FIRST_SERVER: u32 = 0;
/// Numbers of agents are below; those of further servers begin here.
pub const FURTHER_SERVERS: u32 = 100;
/// Servers of a cluster: upstream advises no more members of an etcd, as each has to confirm writes.
pub const MAX_SERVERS: u32 = 7;

/// The number of the server with this index.
pub fn server(index: u32) -> u32 {
    if index == 0 { FIRST_SERVER } else { FURTHER_SERVERS + index - 1 }
}

pub fn role(number: u32) -> Role {
    if number == FIRST_SERVER || number >= FURTHER_SERVERS { Role::Server } else { Role::Agent }
}

/// Which of the servers, or of the agents, it is.
pub fn index(number: u32) -> u32 {
    match number {
        FIRST_SERVER => 0,
        FURTHER_SERVERS.. => number - FURTHER_SERVERS + 1,
        agent => agent - 1,
    }
}

/// What people call the node: `server-0`, `agent-2`.
pub fn short_name(number: u32) -> String {
    let role = if role(number) == Role::Server { "server" } else { "agent" };
    format!("{role}-{}", index(number))
}

/// The number of the node with this short name.
pub fn of_short_name(name: &str) -> Option<u32> {
    let (role, index) = name.split_once('-')?;
    let index: u32 = index.parse().ok()?;
    let number = match role {
        "server" if index < MAX_SERVERS => server(index),
        "agent" => index.checked_add(1).filter(|number| *number < FURTHER_SERVERS)?,
        _ => return None,
    };
    (short_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_which_node_it_is() {
        for (number, name) in
            [(0, "server-0"), (1, "agent-0"), (99, "agent-98"), (100, "server-1"), (105, "server-6")]
        {
            assert_eq!(short_name(number), name);
            assert_eq!(of_short_name(name), Some(number));
        }
        for none in ["server-7", "agent-99", "agent-", "agent", "server-01", "node-0", "agent--1"] {
            assert_eq!(of_short_name(none), None, "{none}");
        }
        assert_eq!((server(0), server(1), index(server(2))), (0, 100, 2));
    }
}
