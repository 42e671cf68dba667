//! From policies to what each Pod of this node may receive and send; no I/O, no clock, same input, same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::observed::{Member, Observed};
use crate::network::Protocol;
use client::typed::selects;

/// Which ports a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// All ports of all protocols.
    All,
    /// All ports of a protocol.
    Protocol(Protocol),
    /// First and last.
    Range(Protocol, u16, u16),
    /// Named: what has the name is a port of these receivers.
    Of(Protocol, BTreeSet<(Ipv4Addr, u16)>),
}

impl Ports {
    fn allow(&self, to: Ipv4Addr, protocol: Protocol, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Protocol(own) => *own == protocol,
            Self::Range(own, first, last) => *own == protocol && (*first..=*last).contains(&port),
            Self::Of(own, receivers) => *own == protocol && receivers.contains(&(to, port)),
        }
    }
}

/// Whom a rule allows on the other side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    Everybody,
    /// These Pods.
    Pods(BTreeSet<Ipv4Addr>),
    Block {
        within: Ipv4Net,
        except: Vec<Ipv4Net>,
    },
}

impl Match {
    fn allows(&self, ip: Ipv4Addr) -> bool {
        match self {
            Self::Everybody => true,
            Self::Pods(pods) => pods.contains(&ip),
            Self::Block { within, except } => {
                within.contains(&ip) && !except.iter().any(|net| net.contains(&ip))
            }
        }
    }
}

/// What is allowed to (or from) the Pods that are isolated by the same policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// `namespace/name` of the policies.
    pub policies: BTreeSet<String>,
    pub allowed: BTreeSet<(Match, Ports)>,
}

/// What holds on this node. A Pod that is not in a map is not isolated in that direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub ingress: BTreeMap<Ipv4Addr, BTreeSet<String>>,
    pub egress: BTreeMap<Ipv4Addr, BTreeSet<String>>,
    /// By the set of policies that isolate.
    pub receivers: BTreeMap<BTreeSet<String>, Isolation>,
    pub senders: BTreeMap<BTreeSet<String>, Isolation>,
}

impl Plan {
    /// Whether a new connection between these addresses may be made, as far as this node judges it.
    pub fn allows(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: Protocol, port: u16) -> bool {
        // A Pod always reaches itself.
        if from == to {
            return true;
        }
        let judge = |policies: Option<&BTreeSet<String>>, by: &BTreeMap<_, Isolation>, other| {
            policies.and_then(|policies| by.get(policies)).is_none_or(|isolation| {
                let mut allowed = isolation.allowed.iter();
                allowed.any(|(peer, ports)| peer.allows(other) && ports.allow(to, protocol, port))
            })
        };
        judge(self.egress.get(&from), &self.senders, to)
            && judge(self.ingress.get(&to), &self.receivers, from)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// The plan for the Pods that are local.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let rules: Vec<Rules<'_>> = observed.policies.iter().filter_map(|policy| Rules::of(policy)).collect();
    for pod in observed.pods.iter().filter(|pod| pod.local) {
        let mine: Vec<&Rules<'_>> = rules.iter().filter(|rules| rules.isolate(pod)).collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            let mine: Vec<&Rules<'_>> =
                mine.iter().copied().filter(|rules| rules.speaks_of(direction)).collect();
            if mine.is_empty() {
                continue;
            }
            let policies: BTreeSet<String> = mine.iter().map(|rules| rules.name.clone()).collect();
            let (isolated, by) = match direction {
                Direction::Ingress => (&mut plan.ingress, &mut plan.receivers),
                Direction::Egress => (&mut plan.egress, &mut plan.senders),
            };
            isolated.insert(pod.ip, policies.clone());
            by.entry(policies).or_insert_with_key(|policies| Isolation {
                policies: policies.clone(),
                allowed: mine.iter().flat_map(|rules| rules.allowed(observed, direction)).collect(),
            });
        }
    }
    plan
}

/// One policy, with what is asked of it more than once.
struct Rules<'a> {
    name: String,
    namespace: &'a str,
    spec: &'a NetworkPolicySpec,
}

impl<'a> Rules<'a> {
    fn of(policy: &'a NetworkPolicy) -> Option<Self> {
        let namespace = policy.metadata.namespace.as_deref()?;
        let name = format!("{namespace}/{}", policy.metadata.name.as_deref()?);
        Some(Self { name, namespace, spec: policy.spec.as_ref()? })
    }

    fn isolate(&self, pod: &Member) -> bool {
        let all = LabelSelector::default();
        pod.namespace == self.namespace
            && selects(self.spec.pod_selector.as_ref().unwrap_or(&all), Some(&pod.labels))
    }

    /// Without policyTypes, ingress always and egress where it has rules, as upstream defaults it.
    fn speaks_of(&self, direction: Direction) -> bool {
        let types = self.spec.policy_types.as_deref().unwrap_or_default();
        match direction {
            _ if !types.is_empty() => {
                let word = if direction == Direction::Ingress { "Ingress" } else { "Egress" };
                types.iter().any(|kind| kind == word)
            }
            Direction::Ingress => true,
            Direction::Egress => self.spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        }
    }

    fn allowed(&self, observed: &Observed, direction: Direction) -> Vec<(Match, Ports)> {
        let mut allowed = Vec::new();
        let mut add = |peers: &[NetworkPolicyPeer], ports: &[NetworkPolicyPort]| {
            for peer in self.matches(observed, peers) {
                let receivers = self.receivers(observed, &peer, direction);
                allowed
                    .extend(port_matches(ports, &receivers).into_iter().map(|ports| (peer.clone(), ports)));
            }
        };
        match direction {
            Direction::Ingress => self.spec.ingress.iter().flatten().for_each(|rule| {
                add(rule.from.as_deref().unwrap_or_default(), rule.ports.as_deref().unwrap_or_default());
            }),
            Direction::Egress => self.spec.egress.iter().flatten().for_each(|rule| {
                add(rule.to.as_deref().unwrap_or_default(), rule.ports.as_deref().unwrap_or_default());
            }),
        }
        allowed
    }

    /// Whose named ports are meant: those of the Pods that receive.
    fn receivers<'o>(&self, observed: &'o Observed, peer: &Match, direction: Direction) -> Vec<&'o Member> {
        let all = observed.pods.iter();
        match direction {
            Direction::Ingress => all.filter(|pod| pod.local && self.isolate(pod)).collect(),
            Direction::Egress => all.filter(|pod| peer.allows(pod.ip)).collect(),
        }
    }

    /// No peers: everybody. All Pods that any of the selectors picks are one match.
    fn matches(&self, observed: &Observed, peers: &[NetworkPolicyPeer]) -> Vec<Match> {
        if peers.is_empty() {
            return vec![Match::Everybody];
        }
        let selectors: Vec<_> = peers.iter().filter(|peer| peer.ip_block.is_none()).collect();
        let picked = |pod: &&Member| selectors.iter().any(|peer| self.picks(observed, peer, pod));
        let pods: BTreeSet<Ipv4Addr> = observed.pods.iter().filter(picked).map(|pod| pod.ip).collect();
        let mut matches: Vec<Match> =
            peers.iter().filter_map(|peer| block(peer.ip_block.as_ref()?)).collect();
        if !selectors.is_empty() {
            matches.push(Match::Pods(pods));
        }
        matches
    }

    fn picks(&self, observed: &Observed, peer: &NetworkPolicyPeer, pod: &Member) -> bool {
        let namespace = match &peer.namespace_selector {
            None => pod.namespace == self.namespace,
            Some(selector) => {
                observed.namespaces.get(&pod.namespace).is_some_and(|labels| selects(selector, Some(labels)))
            }
        };
        namespace && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, Some(&pod.labels)))
    }
}

/// Blocks of IPv6 addresses concern nobody here.
fn block(block: &IPBlock) -> Option<Match> {
    let within: Ipv4Net = block.cidr.parse().ok()?;
    let except = block.except.iter().flatten().filter_map(|net| net.parse().ok()).collect();
    Some(Match::Block { within: within.trunc(), except })
}

fn port_matches(ports: &[NetworkPolicyPort], receivers: &[&Member]) -> Vec<Ports> {
    if ports.is_empty() {
        return vec![Ports::All];
    }
    let one = |port: &NetworkPolicyPort| {
        let protocol = Protocol::parse(port.protocol.as_deref());
        match &port.port {
            None => Some(Ports::Protocol(protocol)),
            Some(IntOrString::Int(first)) => {
                let last = port.end_port.unwrap_or(*first);
                Some(Ports::Range(protocol, u16::try_from(*first).ok()?, u16::try_from(last).ok()?))
            }
            Some(IntOrString::String(name)) => {
                let named = receivers.iter().flat_map(|pod| {
                    let ports = pod.ports.iter().filter(|(own, kind, _)| own == name && *kind == protocol);
                    ports.map(|(_, _, number)| (pod.ip, *number))
                });
                Some(Ports::Of(protocol, named.collect()))
            }
        }
    };
    ports.iter().filter_map(one).collect()
}
