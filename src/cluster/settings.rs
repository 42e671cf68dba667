//! What a cluster may have beside its nodes: addresses, names, registries, and what is left out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::spec::SpecError;

/// Addresses, where they are not left to minik.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Addresses {
    /// A Docker network that is there, to be used instead of one of the cluster's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The range of the cluster's own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Ipv4Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Ipv4Net>,
}

impl Addresses {
    /// Addresses of Pods and of Services where nobody says others; they never leave the cluster's own network namespaces.
    const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16);
    const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 43, 0, 0), 16);

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub fn pods(&self) -> Ipv4Net {
        self.pods.unwrap_or(Self::PODS)
    }

    pub fn services(&self) -> Ipv4Net {
        self.services.unwrap_or(Self::SERVICES)
    }

    /// The cluster's DNS server: the tenth address of the Services, as elsewhere.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services().network()) + 10)
    }

    /// Fails when ranges overlap, or are too small for so many nodes.
    pub fn validate(&self, nodes: usize) -> Result<(), SpecError> {
        let wrong = |why: String| Err(SpecError::Address(why));
        let (pods, services) = (self.pods(), self.services());
        for (what, net) in
            [("subnet", self.subnet), ("Pods' range", self.pods), ("Services' range", self.services)]
        {
            if let Some(net) = net.filter(|net| net.network() != net.addr()) {
                return wrong(format!("the {what} {net} does not begin where it says: {}", net.trunc()));
            }
        }
        if !(8..=24).contains(&pods.prefix_len()) || (1_usize << (24 - pods.prefix_len())) < nodes {
            return wrong(format!(
                "the Pods' range {pods} is not large enough: every node takes a /24 of it"
            ));
        }
        if !(8..=24).contains(&services.prefix_len()) {
            return wrong(format!("the Services' range {services} must be a /8 to a /24"));
        }
        if let Some(subnet) = self.subnet.filter(|subnet| !(16..=26).contains(&subnet.prefix_len())) {
            return wrong(format!("the subnet {subnet} must be a /16 to a /26"));
        }
        if self.subnet.is_some() && self.network.is_some() {
            return wrong("a network that is there has its subnet already".to_owned());
        }
        let all: Vec<Ipv4Net> = [pods, services].into_iter().chain(self.subnet).collect();
        for (at, one) in all.iter().enumerate() {
            if let Some(other) = all[at + 1..].iter().find(|other| overlap(one, other)) {
                return wrong(format!("{one} and {other} overlap"));
            }
        }
        Ok(())
    }
}

/// Whether two ranges have an address in common.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registries {
    /// By registry: URLs that are asked first, in this order.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// By registry or mirror: certificates (PEM) of authorities that vouch for it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub authorities: BTreeMap<String, String>,
    /// Registries and mirrors whose certificate is not looked at.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub insecure: BTreeSet<String>,
}

impl Registries {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Fails when a registry or a mirror is none, or a certificate is not PEM.
    pub fn validate(&self) -> Result<(), SpecError> {
        let wrong = |why: String| Err(SpecError::Registry(why));
        let hosts = self.mirrors.keys().chain(self.authorities.keys()).chain(&self.insecure);
        for host in hosts {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '*' | '_');
            if host.is_empty() || !host.chars().all(good) {
                return wrong(format!("{host:?} is no registry: HOST[:PORT] is expected, without a path"));
            }
        }
        for url in self.mirrors.values().flatten() {
            let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            if rest.is_none_or(str::is_empty) || url.contains(['"', '\\', '\n']) {
                return wrong(format!("{url:?} is no mirror: http://HOST or https://HOST is expected"));
            }
        }
        match self.authorities.iter().find(|(_, pem)| !is_pem(pem)) {
            Some((host, _)) => wrong(format!("what vouches for {host} is no certificate in PEM form")),
            None => Ok(()),
        }
    }
}

/// Whether a text holds a certificate.
pub fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN CERTIFICATE-----") && text.contains("-----END CERTIFICATE-----")
}

/// `NAME=ADDRESS`: a name that means a host outside, in the cluster and on its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAlias {
    pub name: String,
    pub address: Ipv4Addr,
}

impl FromStr for HostAlias {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = |why: &str| SpecError::Address(format!("invalid host alias {text:?}: {why}"));
        let (name, address) = text.split_once('=').ok_or_else(|| wrong("NAME=ADDRESS is expected"))?;
        let label = |part: &str| {
            let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
            (1..=63).contains(&part.len()) && part.bytes().all(good)
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(wrong("the name is no host's"));
        }
        let address = address.parse().map_err(|_| wrong("the address must be an IPv4 address"))?;
        Ok(Self { name: name.to_ascii_lowercase(), address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Option<Ipv4Net> {
        Some(text.parse().expect("a network"))
    }

    #[test]
    fn ranges_fit_and_do_not_overlap() {
        let check = |addresses: Addresses, part: &str| {
            let said = addresses.validate(3).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{said:?}");
        };
        let of = Addresses::default;
        check(of(), "");
        check(Addresses { pods: net("10.8.0.0/22"), services: net("10.9.0.0/24"), ..of() }, "");
        check(Addresses { pods: net("10.8.0.0/23"), ..of() }, "not large enough");
        check(Addresses { pods: net("10.43.0.0/16"), ..of() }, "overlap");
        check(Addresses { subnet: net("10.42.3.0/24"), ..of() }, "overlap");
        check(Addresses { subnet: net("172.30.1.0/16"), ..of() }, "does not begin");
        check(Addresses { subnet: net("172.30.0.0/28"), ..of() }, "/16 to a /26");
        check(Addresses { services: net("10.9.0.0/25"), ..of() }, "/8 to a /24");
        let both = Addresses { subnet: net("172.30.0.0/24"), network: Some("mine".into()), ..of() };
        check(both, "already");
        assert_eq!(of().dns(), Ipv4Addr::new(10, 43, 0, 10));
    }

    #[test]
    fn registries_are_hosts_and_mirrors_are_urls() {
        let mirror = |host: &str, url: &str| Registries {
            mirrors: [(host.to_owned(), vec![url.to_owned()])].into(),
            ..Registries::default()
        };
        assert_eq!(mirror("docker.io", "https://mirror.corp").validate(), Ok(()));
        assert_eq!(mirror("r:5000", "http://10.0.0.1:5000/v2/cache").validate(), Ok(()));
        for (host, url) in
            [("a/b", "https://m"), ("", "https://m"), ("a", "m"), ("a", "https://"), ("a", "https://\"")]
        {
            assert!(mirror(host, url).validate().is_err(), "{host} {url}");
        }
        let vouched =
            Registries { authorities: [("r".to_owned(), "no PEM".to_owned())].into(), ..Default::default() };
        assert!(vouched.validate().is_err());
    }

    #[test]
    fn aliases_are_names_and_addresses() {
        let alias: HostAlias = "DB.corp=10.1.2.3".parse().expect("good");
        assert_eq!((alias.name.as_str(), alias.address), ("db.corp", Ipv4Addr::new(10, 1, 2, 3)));
        for bad in ["db", "db=x", "=1.2.3.4", "a b=1.2.3.4", "a..b=1.2.3.4"] {
            assert!(bad.parse::<HostAlias>().is_err(), "{bad}");
        }
    }
}
