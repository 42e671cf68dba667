//! What the cluster's names mean, as a function of the view: the Kubernetes DNS specification.
//!
//! Every path ends in one of: records, no record of that type (the name exists), no such name, or not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hickory_server::proto::rr::{Name, Record, RecordType};
use ipnet::Ipv4Net;

use super::records::{a, cname, ns, ptr, soa, srv, txt};
use super::{Error, Options};
use crate::network::{Kind, Service, ServiceKey, View};

/// What a question comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name is another's: this record, and whatever the target has.
    Alias {
        record: Box<Record>,
        target: Name,
    },
    /// The name exists, but has nothing of the type asked for.
    NoData,
    NoSuchName,
    /// Outside the cluster's domains.
    Elsewhere,
}

/// The domains that are answered for.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: Name,
    /// Its labels, lower case.
    labels: Vec<String>,
    server: Name,
    mailbox: Name,
    dns_ip: Ipv4Addr,
    networks: Vec<Ipv4Net>,
}

/// An address under a Service, with the label that names it there.
struct Host {
    label: String,
    ip: Ipv4Addr,
    ports: Vec<(String, &'static str, u16)>,
}

impl Zone {
    /// The zone for a cluster domain such as `cluster.local`.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let domain_error = |source| Error::Domain { domain: options.cluster_domain.clone(), source };
        let mut domain = Name::from_ascii(options.cluster_domain.trim_end_matches('.'))
            .map_err(domain_error)?
            .to_lowercase();
        domain.set_fqdn(true);
        let below = |label: &str| domain.prepend_label(label).map_err(domain_error);
        let server = below("dns").and_then(|dns| dns.prepend_label("ns").map_err(domain_error))?;
        Ok(Self {
            labels: labels(&domain),
            mailbox: below("hostmaster")?,
            server,
            domain,
            dns_ip: options.dns_ip,
            networks: options.networks.clone(),
        })
    }

    /// The record that goes with "no data" and "no such name" for `name`.
    pub fn authority(&self, name: &Name) -> Record {
        let zone = if self.domain.zone_of(name) { self.domain.clone() } else { name.base_name() };
        soa(&zone, self.server.clone(), self.mailbox.clone())
    }

    /// Answers for `name`, spelled in whatever case: answers repeat its spelling.
    pub fn answer(&self, view: &View, name: &Name, kind: RecordType) -> Answer {
        let labels = labels(name);
        if let Some(at) = labels.len().checked_sub(self.labels.len())
            && labels[at..] == self.labels
        {
            let path: Vec<&str> = labels[..at].iter().map(String::as_str).collect();
            return self.below(view, name, &path, kind);
        }
        match reverse(&labels) {
            Some(ip) => self.reverse(view, name, ip, kind),
            None => Answer::Elsewhere,
        }
    }

    /// What a client means by `X.<namespace>.svc.<domain>`, where that is no name and X has a dot: the names that it would
    /// ask for next, by the search list that Pods have. None where the name was not made by such a list.
    pub fn searched(&self, view: &View, name: &Name) -> Option<Vec<Name>> {
        let count = usize::from(name.num_labels());
        let own = count.checked_sub(self.labels.len() + 2).filter(|own| *own >= 2)?;
        let labels = labels(name);
        let by_list = labels[own + 2..] == self.labels && labels[own + 1] == "svc";
        if !by_list || !view.has_namespace(&labels[own]) {
            return None;
        }
        let bare = Name::from_labels(name.iter().take(own)).ok()?;
        let below = |suffix: Name| bare.clone().append_domain(&suffix).ok();
        let services = self.domain.prepend_label("svc").ok()?;
        Some([services, self.domain.clone(), Name::root()].into_iter().filter_map(below).collect())
    }

    fn below(&self, view: &View, name: &Name, path: &[&str], kind: RecordType) -> Answer {
        match path {
            [] => match kind {
                RecordType::SOA => records(vec![self.authority(name)]),
                RecordType::NS => records(vec![ns(name, self.server.clone())]),
                _ => Answer::NoData,
            },
            ["dns-version"] if wants(kind, RecordType::TXT) => records(vec![txt(name, "1.1.0")]),
            ["ns", "dns"] if wants(kind, RecordType::A) => records(vec![a(name, self.dns_ip)]),
            ["dns-version"] | ["ns", "dns"] | ["dns"] | ["svc"] | ["pod"] => Answer::NoData,
            [rest @ .., namespace, "svc"] => self.service_name(view, name, rest, namespace, kind),
            [rest @ .., namespace, "pod"] => pod_name(view, name, rest, namespace, kind),
            _ => Answer::NoSuchName,
        }
    }

    fn service_name(
        &self,
        view: &View,
        name: &Name,
        path: &[&str],
        namespace: &str,
        kind: RecordType,
    ) -> Answer {
        let [rest @ .., service] = path else {
            return if view.has_namespace(namespace) { Answer::NoData } else { Answer::NoSuchName };
        };
        let Some(service) = view.service(&ServiceKey::new(namespace, *service)) else {
            return Answer::NoSuchName;
        };
        if let Kind::ExternalName(target) = &service.kind {
            return external_name(name, rest, target);
        }
        match rest {
            [] => self.service_itself(view, service, name, kind),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                self.named_port(view, service, name, &port[1..], &protocol[1..], kind)
            }
            // Something may exist below it.
            ["_tcp" | "_udp" | "_sctp"] => Answer::NoData,
            [label] => {
                let hosts = hosts(view, service);
                let ips: BTreeSet<_> = hosts.iter().filter(|h| h.label == *label).map(|h| h.ip).collect();
                addresses(name, ips, kind, !hosts.iter().any(|h| h.label == *label))
            }
            _ => Answer::NoSuchName,
        }
    }

    fn service_itself(&self, view: &View, service: &Service, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SRV => self.ports(view, service, name, |_, _| true),
            _ if service.headless => {
                let ips = hosts(view, service).iter().map(|host| host.ip).collect();
                addresses(name, ips, kind, false)
            }
            _ => addresses(name, service.cluster_ip.into_iter().collect(), kind, false),
        }
    }

    fn named_port(
        &self,
        view: &View,
        service: &Service,
        name: &Name,
        port: &str,
        protocol: &str,
        kind: RecordType,
    ) -> Answer {
        let is_it = |p: &str, of: &str| p == port && of == protocol;
        let exists = if service.headless {
            hosts(view, service).iter().flat_map(|h| &h.ports).any(|(p, of, _)| is_it(p, of))
        } else {
            service.ports.iter().any(|p| is_it(&p.name, p.protocol.lower()))
        };
        match (exists, wants(kind, RecordType::SRV)) {
            (false, _) => Answer::NoSuchName,
            (true, false) => Answer::NoData,
            (true, true) => self.ports(view, service, name, is_it),
        }
    }

    /// SRV records of the ports that `pick` (name, protocol) takes, with the addresses of what they point to.
    fn ports(
        &self,
        view: &View,
        service: &Service,
        name: &Name,
        pick: impl Fn(&str, &str) -> bool,
    ) -> Answer {
        let mut found = Vec::<(u16, Name)>::new();
        let mut additionals = BTreeMap::new();
        let own = self.name_of(&service.key);
        if service.headless {
            for host in hosts(view, service) {
                let Ok(target) = own.prepend_label(host.label.as_str()) else { continue };
                for (_, _, port) in host.ports.iter().filter(|(p, of, _)| pick(p, of)) {
                    found.push((*port, target.clone()));
                    additionals.insert((target.clone(), host.ip), a(&target, host.ip));
                }
            }
        } else if let Some(ip) = service.cluster_ip {
            let ports = service.ports.iter().filter(|p| pick(&p.name, p.protocol.lower()));
            found.extend(ports.map(|p| (p.port, own.clone())));
            if !found.is_empty() {
                additionals.insert((own.clone(), ip), a(&own, ip));
            }
        }
        if found.is_empty() {
            return Answer::NoData;
        }
        // Weights share 100 among equals, as CoreDNS gives them.
        let weight = u16::try_from(100 / found.len()).unwrap_or(1).max(1);
        let answers = found.into_iter().map(|(port, target)| srv(name, weight, port, target)).collect();
        Answer::Records { answers, additionals: additionals.into_values().collect() }
    }

    /// `service.namespace.svc.<domain>`.
    fn name_of(&self, key: &ServiceKey) -> Name {
        let path = [key.name.as_str(), key.namespace.as_str(), "svc"];
        let below = path.iter().rev().try_fold(self.domain.clone(), |name, label| name.prepend_label(*label));
        // Kubernetes' names are shorter than DNS allows; a hand-made one that is not has no better answer.
        below.unwrap_or_else(|_| self.domain.clone())
    }

    fn reverse(&self, view: &View, name: &Name, ip: Ipv4Addr, kind: RecordType) -> Answer {
        let mut targets = BTreeSet::new();
        if let Some(service) = view.service_at(ip) {
            targets.insert(self.name_of(&service.key));
        }
        for service in view.headless() {
            for host in hosts(view, service).iter().filter(|host| host.ip == ip) {
                targets.extend(self.name_of(&service.key).prepend_label(host.label.as_str()));
            }
        }
        let ours = self.networks.iter().any(|network| network.contains(&ip));
        match (targets.is_empty(), ours) {
            (false, _) if wants(kind, RecordType::PTR) => {
                records(targets.into_iter().map(|target| ptr(name, target)).collect())
            }
            (false, _) => Answer::NoData,
            (true, true) => Answer::NoSuchName,
            (true, false) => Answer::Elsewhere,
        }
    }
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn wants(asked: RecordType, have: RecordType) -> bool {
    asked == have || asked == RecordType::ANY
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn addresses(name: &Name, ips: BTreeSet<Ipv4Addr>, kind: RecordType, missing: bool) -> Answer {
    match (missing, ips.is_empty() || !wants(kind, RecordType::A)) {
        (true, _) => Answer::NoSuchName,
        (false, true) => Answer::NoData,
        (false, false) => records(ips.into_iter().map(|ip| a(name, ip)).collect()),
    }
}

fn external_name(name: &Name, rest: &[&str], target: &str) -> Answer {
    let target = Name::from_ascii(target.trim_end_matches('.'));
    match (rest, target) {
        ([], Ok(mut target)) => {
            target.set_fqdn(true);
            Answer::Alias { record: Box::new(cname(name, target.clone())), target }
        }
        ([], Err(_)) => Answer::NoData,
        _ => Answer::NoSuchName,
    }
}

/// `10-42-0-7.namespace.pod`: the address is in the name, whether or not a Pod has it, as CoreDNS' default is.
fn pod_name(view: &View, name: &Name, path: &[&str], namespace: &str, kind: RecordType) -> Answer {
    match path {
        [] if view.has_namespace(namespace) => Answer::NoData,
        [dashed] => match dashed.replace('-', ".").parse() {
            Ok(ip) => addresses(name, BTreeSet::from([ip]), kind, false),
            Err(_) => Answer::NoSuchName,
        },
        _ => Answer::NoSuchName,
    }
}

/// The endpoints of a Service as DNS shows them: the ready ones, or all where the Service says so. One without a
/// host name goes by its address.
fn hosts(view: &View, service: &Service) -> Vec<Host> {
    let mut hosts = BTreeMap::<(String, Ipv4Addr), Host>::new();
    for slice in view.slices(&service.key) {
        let shown = slice.endpoints.iter().filter(|e| e.ready || service.publish_not_ready);
        for endpoint in shown {
            let dashed = || endpoint.address.to_string().replace('.', "-");
            let label =
                endpoint.hostname.as_ref().map_or_else(dashed, |hostname| hostname.to_ascii_lowercase());
            let host = hosts.entry((label.clone(), endpoint.address)).or_insert_with(|| Host {
                label,
                ip: endpoint.address,
                ports: Vec::new(),
            });
            for port in &slice.ports {
                let port = (port.name.clone(), port.protocol.lower(), port.port);
                if !host.ports.contains(&port) {
                    host.ports.push(port);
                }
            }
        }
    }
    hosts.into_values().collect()
}

/// The address of `4.3.2.1.in-addr.arpa`.
fn reverse(labels: &[String]) -> Option<Ipv4Addr> {
    let [d, c, b, a, in_addr, arpa] = labels else { return None };
    if in_addr != "in-addr" || arpa != "arpa" {
        return None;
    }
    format!("{a}.{b}.{c}.{d}").parse().ok()
}
