use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a specification was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    #[error(
        "invalid cluster name {0:?}: it must start and end with a lower-case letter or digit and contain only those and '-'"
    )]
    NameCharacters(String),
    #[error("invalid cluster name {name:?}: {length} characters, at most {max} are allowed", max = ClusterName::MAX)]
    NameLength { name: String, length: usize },
    #[error("a cluster has 1 to {max} nodes, not {0}", max = ClusterSpec::MAX_NODES)]
    Nodes(u32),
}

/// A cluster's name: a DNS label, short enough that node names made of it are DNS labels too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// `minik-<name>-server-0` has to fit 63 characters, with room for a larger number.
    pub const MAX: usize = 40;
    /// The name used when none is given.
    pub const DEFAULT: &'static str = "default";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(inner) || name.starts_with('-') || name.ends_with('-') {
            return Err(SpecError::NameCharacters(name.to_owned()));
        }
        if name.len() > Self::MAX {
            return Err(SpecError::NameLength { name: name.to_owned(), length: name.len() });
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was asked for, checked.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    pub name: ClusterName,
    /// All nodes; the first is the server.
    pub nodes: u32,
    /// A node image to use as it is, instead of the one this binary makes.
    pub image: Option<String>,
    /// Bound for the time from the first container to the last Ready node.
    pub timeout: Duration,
    /// Remove everything again when a phase fails.
    pub rollback: bool,
}

impl ClusterSpec {
    /// Nodes have fixed addresses in the first 126 of the cluster's network.
    pub const MAX_NODES: u32 = 100;

    pub fn new(name: ClusterName, nodes: u32) -> Result<Self, SpecError> {
        if nodes == 0 || nodes > Self::MAX_NODES {
            return Err(SpecError::Nodes(nodes));
        }
        Ok(Self { name, nodes, image: None, timeout: Duration::from_secs(120), rollback: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_dns_labels() {
        for good in ["a", "default", "my-cluster", "0", "a-0", &"x".repeat(40)] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a b", "../x"] {
            assert!(matches!(bad.parse::<ClusterName>(), Err(SpecError::NameCharacters(_))), "{bad}");
        }
        assert!(matches!("x".repeat(41).parse::<ClusterName>(), Err(SpecError::NameLength { .. })));
    }

    #[test]
    fn a_cluster_has_at_least_one_node() {
        let name: ClusterName = "a".parse().expect("good name");
        assert_eq!(ClusterSpec::new(name.clone(), 0).err(), Some(SpecError::Nodes(0)));
        assert_eq!(ClusterSpec::new(name.clone(), 101).err(), Some(SpecError::Nodes(101)));
        assert!(ClusterSpec::new(name, 1).is_ok());
    }
}
