//! LoadBalancer addresses: which node answers for which external IP.
//!
//! A controller gives out the addresses and names the node (annotation `minik.dev/announced-by`); the agent of that node
//! has them on its interface and tells the network so, all others do not. The service proxy does the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::sync::watch;

use rt::{Backoff, Tasks};
use sys::netlink::{Error, Netlink, announce};

const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };

/// An address that has moved is announced so often: a neighbour that misses one, or whose switch still learns, hears the
/// next.
const ANNOUNCEMENTS: u32 = 5;
/// Between two announcements.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(2) };

/// Addresses that were taken and are still announced, with how often they have been. One whose announcement failed stays.
type Untold = BTreeMap<Ipv4Addr, u32>;

/// What an agent's address keeper works with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interface on the cluster's network.
    pub interface: String,
    /// The addresses that load balancers may have: what the interface has of these is ours, whoever added it.
    pub range: RangeInclusive<Ipv4Addr>,
    /// The addresses that this node shall answer for; None while that is not known yet.
    pub announced: watch::Receiver<Option<BTreeSet<Ipv4Addr>>>,
}

/// One step towards the wanted addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Remove(Ipv4Addr),
    Add(Ipv4Addr),
}

/// Addresses outside the range are nobody's business here: neither removed nor added.
fn plan(
    present: &BTreeSet<Ipv4Addr>,
    wanted: &BTreeSet<Ipv4Addr>,
    range: &RangeInclusive<Ipv4Addr>,
) -> Vec<Step> {
    let ours = |set: &BTreeSet<Ipv4Addr>| -> BTreeSet<Ipv4Addr> {
        set.iter().copied().filter(|ip| range.contains(ip)).collect()
    };
    let (present, wanted) = (ours(present), ours(wanted));
    let gone = present.difference(&wanted).map(|ip| Step::Remove(*ip));
    gone.chain(wanted.difference(&present).map(|ip| Step::Add(*ip))).collect()
}

/// Keeps the interface's addresses as announced, until `tasks` stops.
pub fn run(options: Options, netlink: Netlink, tasks: &Tasks) {
    tasks.spawn_until_stop(follow(options, netlink));
}

async fn follow(mut options: Options, netlink: Netlink) {
    let mut failures = 0;
    let mut untold = Untold::new();
    loop {
        let wanted = options.announced.borrow_and_update().clone();
        let result = match &wanted {
            Some(wanted) => apply(&options, &netlink, wanted, &mut untold).await,
            None => Ok(()),
        };
        match result {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "load balancer addresses not applied; trying again");
            }
        }
        tokio::select! {
            changed = options.announced.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY.delay(failures)), if failures > 0 => {}
            () = tokio::time::sleep(AGAIN.delay(told(&untold))), if failures == 0 && !untold.is_empty() => {}
        }
    }
}

/// How often the longest told of them was told.
fn told(untold: &Untold) -> u32 {
    untold.values().copied().max().unwrap_or_default()
}

/// The interface is the memory: addresses that an earlier process left are seen and judged like any other.
async fn apply(
    options: &Options,
    netlink: &Netlink,
    wanted: &BTreeSet<Ipv4Addr>,
    untold: &mut Untold,
) -> Result<(), Error> {
    let link = netlink.link(&options.interface).await?;
    let present = netlink.addresses(&link).await?;
    let present = present.iter().filter(|net| net.prefix_len() == 32).map(|net| net.addr()).collect();
    for step in plan(&present, wanted, &options.range) {
        match step {
            Step::Remove(address) => {
                netlink.remove_address(&link, address).await?;
                untold.remove(&address);
                tracing::info!(%address, "load balancer address given up");
            }
            Step::Add(address) => {
                netlink.add_address(&link, address).await?;
                untold.insert(address, 0);
                tracing::info!(%address, "load balancer address taken");
            }
        }
    }
    for (address, times) in untold.iter_mut() {
        announce(&link, *address)?;
        *times += 1;
    }
    untold.retain(|_, times| *times < ANNOUNCEMENTS);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> BTreeSet<Ipv4Addr> {
        texts.iter().map(|t| t.parse().expect("address")).collect()
    }

    #[test]
    fn only_addresses_of_the_range_are_touched() {
        let range = Ipv4Addr::new(172, 18, 128, 1)..=Ipv4Addr::new(172, 18, 255, 254);
        let check = |present: &[&str], wanted: &[&str], expect: &[Step]| {
            assert_eq!(plan(&ips(present), &ips(wanted), &range), expect);
        };
        let at = |last| Ipv4Addr::new(172, 18, 200, last);
        check(&["172.18.0.2"], &["172.18.200.1"], &[Step::Add(at(1))]);
        check(&["172.18.0.2", "172.18.200.1"], &["172.18.200.1"], &[]);
        check(&["172.18.200.1"], &["172.18.200.2"], &[Step::Remove(at(1)), Step::Add(at(2))]);
        check(&["172.18.0.9"], &["10.0.0.1"], &[]);
    }
}
