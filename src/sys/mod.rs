//! The kernel seam: processes, mounts, cgroups, netlink, iptables; one recording fake for tests.
