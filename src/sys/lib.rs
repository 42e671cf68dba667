//! The kernel seam: processes, mounts, cgroups, netlink, iptables, nftables; one recording fake for tests.

pub mod cgroups;
pub mod conntrack;
pub mod exec;
pub mod foreground;
pub mod freeze;
pub mod identity;
pub mod init;
pub mod inotify;
pub mod iptables;
pub mod memory;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod supervise;
pub mod sysctl;
pub mod veth;

mod nfnetlink;
mod pipe;

pub use pipe::{Pipe, PipeError, find_program};
