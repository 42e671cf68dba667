//! What a fault does to this node's network, as commands of `nft` and `tc`. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The table of ours; it is gone with the node's network namespace, should nobody remove it.
pub(super) const TABLE: &str = "minik-fault";
/// The interface on the cluster's network.
const INTERFACE: &str = "eth0";

/// Drops what `rule` matches, as it comes in and as it goes out. Loopback, and so what a node asks itself, goes on.
fn both_ways(part: &str, incoming: &str, outgoing: &str) -> String {
    let table = format!("{TABLE}-{part}");
    format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\
         \tchain in {{ type filter hook prerouting priority -400; {incoming}; }}\n\
         \tchain out {{ type filter hook postrouting priority 400; {outgoing}; }}\n}}\n"
    )
}

/// Cuts the node off: from everybody, or from these nodes and the Pods behind them.
pub(super) fn partition(from: &[Ipv4Addr], pods_behind: &[Ipv4Net]) -> String {
    if from.is_empty() {
        return both_ways(
            "partition",
            &format!("iifname {INTERFACE} drop"),
            &format!("oifname {INTERFACE} drop"),
        );
    }
    let of = from.iter().map(ToString::to_string).chain(pods_behind.iter().map(ToString::to_string));
    let of = of.collect::<Vec<_>>().join(", ");
    both_ways(
        "partition",
        &format!("iifname {INTERFACE} ip saddr {{ {of} }} drop"),
        &format!("oifname {INTERFACE} ip daddr {{ {of} }} drop"),
    )
}

/// Loses so many packets of a thousand.
pub(super) fn loss(per_mille: u32) -> String {
    let lost = format!("numgen random mod 1000 < {per_mille} drop");
    both_ways("slow", &format!("iifname {INTERFACE} {lost}"), &format!("oifname {INTERFACE} {lost}"))
}

/// Removes what [`partition`] or [`loss`] made; also where it is gone already.
pub(super) fn remove(part: &str) -> String {
    let table = format!("{TABLE}-{part}");
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// The queueing that delays, or bounds what is sent: the words behind `tc`. None where neither is asked for.
pub(super) fn queue(delay_ms: Option<u32>, jitter_ms: Option<u32>, rate_kbit: Option<u32>) -> Option<String> {
    let add = format!("qdisc replace dev {INTERFACE} root handle 6d: ");
    match (delay_ms, rate_kbit) {
        (None, None) => None,
        (Some(delay), rate) => {
            // A jitter varies what comes late; the packets of 200 ms at 1 Gbit/s fit into the queue.
            let jitter = jitter_ms.map(|jitter| format!(" {jitter}ms")).unwrap_or_default();
            let rate = rate.map(|rate| format!(" rate {rate}kbit")).unwrap_or_default();
            Some(format!("{add}netem limit 20000 delay {delay}ms{jitter}{rate}"))
        }
        (None, Some(rate)) => {
            // The bucket holds what may be sent between two ticks of a slow clock, and at least some full packets.
            let burst = (rate * 1000 / 8 / 100).max(16_000);
            Some(format!("{add}tbf rate {rate}kbit burst {burst} latency 400ms"))
        }
    }
}

/// Removes what [`queue`] made.
pub(super) fn remove_queue() -> String {
    format!("qdisc del dev {INTERFACE} root handle 6d:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_from_all_or_from_some() {
        let all = partition(&[], &[]);
        assert!(all.contains("hook prerouting priority -400; iifname eth0 drop; }"), "{all}");
        assert!(all.contains("hook postrouting priority 400; oifname eth0 drop; }"), "{all}");
        let some = partition(&[Ipv4Addr::new(10, 0, 0, 2)], &["10.42.1.0/24".parse().expect("a network")]);
        assert!(some.contains("iifname eth0 ip saddr { 10.0.0.2, 10.42.1.0/24 } drop"), "{some}");
        assert!(some.contains("oifname eth0 ip daddr { 10.0.0.2, 10.42.1.0/24 } drop"), "{some}");
        // Asked for twice it is there once; taken away twice it is no error.
        assert!(all.starts_with(&remove("partition")), "{all}");
    }

    #[test]
    fn slowness_is_queueing() {
        let check = |delay, jitter, rate, expect: &str| {
            let words = queue(delay, jitter, rate).expect("a queue");
            assert!(words.ends_with(expect), "{words}");
        };
        check(Some(100), None, None, "netem limit 20000 delay 100ms");
        check(Some(100), Some(10), Some(512), "delay 100ms 10ms rate 512kbit");
        check(None, None, Some(1_000), "tbf rate 1000kbit burst 16000 latency 400ms");
        check(None, None, Some(1_000_000), "tbf rate 1000000kbit burst 1250000 latency 400ms");
        assert_eq!(queue(None, Some(3), None), None);
    }
}
