//! From which addresses LoadBalancer Services get theirs: the cluster's whole range, or pools that people make of it in
//! ConfigMap `kube-system/minik-loadbalancer`.
//!
//! ```yaml
//! data:
//!   default: 172.20.128.10-172.20.128.99     # for Services that name no pool
//!   databases: 172.20.128.100/30, 172.20.128.200   # minik.dev/address-pool: databases
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

/// Where pools are made.
pub(super) const CONFIG_MAP: (&str, &str) = ("kube-system", "minik-loadbalancer");
/// The annotation by which a Service names its pool.
pub(super) const POOL: &str = "minik.dev/address-pool";
/// The pool of Services that name none.
const DEFAULT: &str = "default";

/// Addresses to give, range by range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool(Vec<RangeInclusive<Ipv4Addr>>);

impl Pool {
    /// All from the first to the last.
    pub(super) fn range(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Self(vec![first..=last])
    }

    pub(super) fn contains(&self, ip: Ipv4Addr) -> bool {
        self.0.iter().any(|range| range.contains(&ip))
    }

    /// Every address, in the order in which they are given.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let numbers = self.0.iter().map(|range| u32::from(*range.start())..=u32::from(*range.end()));
        numbers.flatten().map(Ipv4Addr::from)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}-{}", range.start(), range.end())?;
        }
        Ok(())
    }
}

/// All pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pools {
    /// What the cluster has: outside of it nothing is given.
    whole: Pool,
    named: BTreeMap<String, Pool>,
}

impl Pools {
    /// Reads a ConfigMap's data. What cannot be read is left out, and said in the second value.
    pub(super) fn parse(whole: Pool, data: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let (mut named, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, text) in data {
            match pool(&whole, text) {
                Ok(pool) => drop(named.insert(name.clone(), pool)),
                Err(why) => problems.push(format!("pool {name}: {why}")),
            }
        }
        (Self { whole, named }, problems)
    }

    /// The pool that a Service asks for. Fails with the reason where there is none.
    pub(super) fn of(&self, asked: Option<&str>) -> Result<&Pool, String> {
        let name = asked.unwrap_or(DEFAULT);
        match self.named.get(name) {
            Some(pool) => Ok(pool),
            None if name == DEFAULT => Ok(&self.whole),
            None => {
                let (namespace, map) = CONFIG_MAP;
                Err(format!("there is no pool {name:?}: pools are keys of ConfigMap {namespace}/{map}"))
            }
        }
    }

    /// Whether an address is the cluster's to give, in whatever pool.
    pub(super) fn contains(&self, ip: Ipv4Addr) -> bool {
        self.whole.contains(ip)
    }
}

fn pool(whole: &Pool, text: &str) -> Result<Pool, String> {
    let parts = text.split([',', ' ', '\n']).map(str::trim).filter(|part| !part.is_empty());
    let ranges = parts.map(|part| {
        let range =
            range(part).ok_or_else(|| format!("{part:?} is no address, network or range FIRST-LAST"))?;
        let ours = whole.0.iter().any(|all| all.contains(range.start()) && all.contains(range.end()));
        if ours { Ok(range) } else { Err(format!("{part} is not inside of {whole}, which the cluster has")) }
    });
    let ranges: Vec<_> = ranges.collect::<Result<_, String>>()?;
    if ranges.is_empty() { Err("no addresses".to_owned()) } else { Ok(Pool(ranges)) }
}

fn range(text: &str) -> Option<RangeInclusive<Ipv4Addr>> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        return (first <= last).then_some(first..=last);
    }
    let net: Ipv4Net = text.parse().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from))?;
    Some(net.network()..=net.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> (Pools, Vec<String>) {
        let whole = Pool::range([10, 0, 0, 10].into(), [10, 0, 0, 99].into());
        let data = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Pools::parse(whole, &data)
    }

    #[test]
    fn pools_are_read_and_mistakes_are_named() {
        let (pools, problems) = parse(&[
            ("default", "10.0.0.20-10.0.0.29"),
            ("few", "10.0.0.40/30, 10.0.0.50\n"),
            ("wide", "10.0.0.0/24"),
            ("turned", "10.0.0.30-10.0.0.20"),
            ("empty", " "),
        ]);
        let of = |name: Option<&str>| pools.of(name).map(ToString::to_string);
        assert_eq!(of(None), Ok("10.0.0.20-10.0.0.29".to_owned()));
        assert_eq!(of(Some("few")), Ok("10.0.0.40-10.0.0.43, 10.0.0.50-10.0.0.50".to_owned()));
        let all: Vec<u8> = pools.of(Some("few")).unwrap().addresses().map(|ip| ip.octets()[3]).collect();
        assert_eq!(all, [40, 41, 42, 43, 50]);
        assert!(of(Some("missing")).unwrap_err().contains("there is no pool \"missing\""));
        assert_eq!(
            problems,
            [
                "pool empty: no addresses",
                "pool turned: \"10.0.0.30-10.0.0.20\" is no address, network or range FIRST-LAST",
                "pool wide: 10.0.0.0/24 is not inside of 10.0.0.10-10.0.0.99, which the cluster has",
            ]
        );
    }

    #[test]
    fn without_a_pool_all_addresses_are_given() {
        let (pools, _) = parse(&[("other", "10.0.0.20")]);
        assert_eq!(pools.of(None).unwrap().to_string(), "10.0.0.10-10.0.0.99");
    }
}
