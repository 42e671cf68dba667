//! Services of type LoadBalancer: gives each an address of the cluster's own pool and a Ready node that
//! announces it. The agent on that node answers for the address; the service proxy does the rest.

mod pools;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use self::pools::{CONFIG_MAP, POOL, Pool, Pools};
use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::heartbeat::Heartbeats;
use client::informer::{Cache, Key};
use client::typed::{ANNOUNCED_BY, CONTROL_PLANE, SERVICE_NAME, node_is_ready};

/// The class this controller serves, beside Services without one.
const CLASS: &str = "minik.dev/loadbalancer";
/// Nodes with this label are left out, as upstream defines.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS)
    }) && service.metadata.deletion_timestamp.is_none()
}

fn address(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_deref()?.parse().ok()
}

fn announcer(service: &Service) -> Option<&String> {
    service.annotations().get(ANNOUNCED_BY)
}

/// How other Services use an address.
#[derive(Clone, Debug, Default, PartialEq)]
struct Use {
    /// Protocols and numbers.
    ports: BTreeSet<(String, i32)>,
    announcer: Option<String>,
    /// Its traffic stays where its endpoints are: such an address is nobody else's.
    local: bool,
}

/// The addresses of all other Services.
type Used = BTreeMap<Ipv4Addr, Use>;

fn ports(service: &Service) -> BTreeSet<(String, i32)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".into()), port.port)).collect()
}

/// Why `service` cannot have an address that others use; Services whose ports differ share one.
fn conflict(service: &Service, ip: Ipv4Addr, used: &Used) -> Option<String> {
    let other = used.get(&ip)?;
    let own = ports(service);
    if other.local || is_local(service) {
        return Some(format!(
            "{ip} is used by another Service, and is not shared with externalTrafficPolicy Local"
        ));
    }
    if own.is_empty() || other.ports.is_empty() {
        return Some(format!("{ip} is used by another Service"));
    }
    let (protocol, port) = own.intersection(&other.ports).next()?;
    Some(format!("port {port}/{protocol} of {ip} is used by another Service"))
}

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    /// Give it this address, announced by this node (none while no node is Ready).
    Serve {
        ip: Ipv4Addr,
        node: Option<String>,
    },
    /// Take back what it has.
    Release,
    Refuse(String),
}

/// How gladly a node is asked to announce: the least of them is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Burden {
    /// A server only where there is nobody else: when it goes, so may the controller that would give its addresses to others.
    server: bool,
    /// What it announces already.
    addresses: usize,
}

/// Decides for one Service. `used` are the addresses of all others; `nodes` those that may announce.
fn plan(service: &Service, pools: &Pools, used: &Used, nodes: &BTreeMap<String, Burden>) -> Plan {
    let (has, by) = (address(service), announcer(service));
    if !is_ours(service) {
        let given = has.is_some_and(|ip| pools.contains(ip));
        return if by.is_some() || given && service.metadata.deletion_timestamp.is_none() {
            Plan::Release
        } else {
            Plan::Nothing
        };
    }
    let pool = match pools.of(service.annotations().get(POOL).map(String::as_str)) {
        Ok(pool) => pool,
        Err(why) => return Plan::Refuse(why),
    };
    let asked = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    let ip = match asked.filter(|ip| !ip.is_empty()) {
        Some(asked) => match asked.parse::<Ipv4Addr>() {
            Ok(ip) if !pool.contains(ip) => {
                return Plan::Refuse(format!("{ip} is not in the pool {pool}"));
            }
            Ok(ip) => match conflict(service, ip, used) {
                Some(why) => return Plan::Refuse(why),
                None => ip,
            },
            Err(_) => return Plan::Refuse(format!("{asked:?} is not an IPv4 address")),
        },
        None => match has
            .filter(|ip| pool.contains(*ip) && conflict(service, *ip, used).is_none())
            .or_else(|| pool.addresses().find(|ip| !used.contains_key(ip)))
        {
            Some(ip) => ip,
            None => return Plan::Refuse(format!("no free address in the pool {pool}")),
        },
    };
    // One node answers for an address, however many Services share it.
    let shared = used.get(&ip).and_then(|other| other.announcer.as_ref());
    let stays = shared.or(by).filter(|node| nodes.contains_key(*node)).cloned();
    let node =
        stays.or_else(|| nodes.iter().min_by_key(|(_, burden)| **burden).map(|(name, _)| name.clone()));
    if has == Some(ip) && by == node.as_ref() { Plan::Nothing } else { Plan::Serve { ip, node } }
}

struct Reconciler {
    context: Context,
    services: Cache<Service>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    /// All that the cluster has.
    whole: Pool,
    pools: Cache<ConfigMap>,
    heartbeats: Arc<Heartbeats>,
    /// What was given and may not be seen in the cache yet.
    given: Arc<Mutex<BTreeMap<Key, Ipv4Addr>>>,
}

pub(super) fn start(context: &Context) {
    let (services, nodes) = (context.cache::<Service>(), context.cache::<Node>());
    let slices = context.cache::<EndpointSlice>();
    let given = Arc::new(Mutex::new(BTreeMap::new()));
    let mut harness = Harness::new(context);
    watch(&mut harness, &services, &nodes, &given);
    watch_local(&mut harness, &services, &slices);
    let whole = Pool::range(context.settings.lb_first, context.settings.lb_last);
    let pools = watch_pools(&mut harness, context, &services, &whole);
    let heartbeats = Heartbeats::start(context, &services, &nodes, harness.queue());
    let context = context.clone();
    // One worker: addresses are given one after the other.
    harness
        .run(1, Arc::new(Reconciler { context, services, nodes, slices, whole, pools, heartbeats, given }));
}

fn watch(
    harness: &mut Harness<Key>,
    services: &Cache<Service>,
    nodes: &Cache<Node>,
    given: &Arc<Mutex<BTreeMap<Key, Ipv4Addr>>>,
) {
    let (all, freed) = (services.clone(), Arc::clone(given));
    harness.watches(services, move |change, changed| {
        let Some(service) = change.latest() else { return };
        let ours = |service: &Arc<Service>| is_ours(service);
        let (is, was) = (change.new.is_some_and(ours), change.old.is_some_and(ours));
        if is || was {
            changed.add(Key::of(&service.metadata));
        }
        if was && !is {
            freed.lock().unwrap_or_else(PoisonError::into_inner).remove(&Key::of(&service.metadata));
            let waiting = all.list().into_iter().filter(|other| is_ours(other) && address(other).is_none());
            waiting.for_each(|other| changed.add(Key::of(&other.metadata)));
        }
    });
    let all = services.clone();
    harness.watches(nodes, move |change, moved| {
        let able = |node: &Arc<Node>| can_announce(node);
        if change.new.is_some_and(able) != change.old.is_some_and(able) {
            all.list().into_iter().filter(|s| is_ours(s)).for_each(|s| moved.add(Key::of(&s.metadata)));
        }
    });
}

/// Other pools may be other addresses; what is wrong with them is said where they are.
fn watch_pools(
    harness: &mut Harness<Key>,
    context: &Context,
    services: &Cache<Service>,
    whole: &Pool,
) -> Cache<ConfigMap> {
    let (namespace, name) = CONFIG_MAP;
    let maps = context
        .informers
        .selected::<ConfigMap>(&format!("metadata.namespace={namespace},metadata.name={name}"));
    let (all, recorder, whole) = (services.clone(), context.recorder.clone(), whole.clone());
    harness.watches(&maps, move |change, queue| {
        let data = |map: Option<&Arc<ConfigMap>>| map.and_then(|map| map.data.clone());
        if data(change.old) == data(change.new) {
            return;
        }
        if let Some(map) = change.new {
            let (_, problems) = Pools::parse(whole.clone(), &map.data.clone().unwrap_or_default());
            problems.into_iter().for_each(|why| recorder.warning(map.object_ref(&()), "InvalidPool", why));
        }
        all.list().iter().filter(|service| is_ours(service)).for_each(|s| queue.add(Key::of(&s.metadata)));
    });
    maps
}

/// A Service that keeps traffic local follows its endpoints from node to node.
fn watch_local(harness: &mut Harness<Key>, services: &Cache<Service>, slices: &Cache<EndpointSlice>) {
    let services = services.clone();
    harness.watches(slices, move |change, queue| {
        for slice in change.both() {
            let Some(name) = slice.labels().get(SERVICE_NAME) else { continue };
            let key = Key::new(slice.namespace().unwrap_or_default(), name);
            if services.get(&key).is_some_and(|service| is_ours(&service) && is_local(&service)) {
                queue.add(key);
            }
        }
    });
}

fn is_local(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
    policy == Some("Local")
}

fn can_announce(node: &Node) -> bool {
    node_is_ready(node) && node.metadata.deletion_timestamp.is_none() && !node.labels().contains_key(EXCLUDED)
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(service) = self.services.get(key) else { return Ok(Outcome::Done) };
        let (used, nodes) = self.others(key, &service);
        let about = || service.object_ref(&());
        let recorder = &self.context.recorder;
        match plan(&service, &self.pools(), &used, &nodes) {
            Plan::Nothing => {}
            Plan::Serve { ip, node } => {
                self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), ip);
                let new = address(&service) != Some(ip);
                if new {
                    recorder.normal(about(), "EnsuringLoadBalancer", "Ensuring load balancer");
                }
                self.write(key, &service, Some(ip), node).await?;
                if new {
                    recorder.normal(about(), "EnsuredLoadBalancer", "Ensured load balancer");
                }
            }
            Plan::Release => {
                self.write(key, &service, None, None).await?;
                recorder.normal(about(), "DeletedLoadBalancer", "Deleted load balancer");
            }
            Plan::Refuse(why) => {
                if address(&service).is_some() {
                    self.write(key, &service, None, None).await?;
                }
                let message = format!("Error syncing load balancer: failed to ensure load balancer: {why}");
                recorder.warning(about(), "SyncLoadBalancerFailed", message);
            }
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    /// The pools as they are now.
    fn pools(&self) -> Pools {
        let (namespace, name) = CONFIG_MAP;
        let data = self.pools.named(namespace, name).and_then(|map| map.data.clone()).unwrap_or_default();
        Pools::parse(self.whole.clone(), &data).0
    }

    fn can_announce(&self, node: &Node) -> bool {
        can_announce(node) && !self.heartbeats.is_silent(&node.name_any())
    }

    /// The addresses other Services have, and the nodes that may announce this one.
    fn others(&self, key: &Key, service: &Service) -> (Used, BTreeMap<String, Burden>) {
        let all = self.services.list();
        let others = all.iter().filter(|other| Key::of(&other.metadata) != *key && is_ours(other));
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut used = Used::new();
        for other in others.clone() {
            let given = given.get(&Key::of(&other.metadata)).copied();
            let Some(ip) = address(other).or(given) else { continue };
            let known = used.entry(ip).or_default();
            known.ports.extend(ports(other));
            known.announcer = known.announcer.take().or_else(|| announcer(other).cloned());
            known.local |= is_local(other);
        }
        let burden = |node: &Node| Burden { server: node.labels().contains_key(CONTROL_PLANE), addresses: 0 };
        let nodes = self.nodes.list();
        let able = nodes.iter().filter(|node| self.can_announce(node));
        let mut nodes: BTreeMap<String, Burden> = able.map(|node| (node.name_any(), burden(node))).collect();
        for other in others {
            if let Some(burden) = announcer(other).and_then(|name| nodes.get_mut(name)) {
                burden.addresses += 1;
            }
        }
        if is_local(service) {
            let mut local = nodes.clone();
            let with_endpoints = self.ready_nodes(key);
            local.retain(|name, _| with_endpoints.contains(name));
            if !local.is_empty() {
                nodes = local;
            }
        }
        (used, nodes)
    }

    fn ready_nodes(&self, key: &Key) -> BTreeSet<String> {
        let slices = self.slices.in_namespace(&key.namespace).into_iter();
        let mine = slices.filter(|s| s.labels().get(SERVICE_NAME) == Some(&key.name));
        let mut names = BTreeSet::new();
        for slice in mine {
            for endpoint in slice.endpoints.iter().flatten() {
                let ready = endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false);
                names.extend(endpoint.node_name.clone().filter(|_| ready));
            }
        }
        names
    }

    /// Address and announcing node in one write: whoever sees the address finds a node that answers for it, and nodes
    /// change their rules once.
    async fn write(
        &self,
        key: &Key,
        service: &Service,
        ip: Option<Ipv4Addr>,
        node: Option<String>,
    ) -> Result<(), Error> {
        let mut patch = json!({});
        if announcer(service) != node.as_ref() {
            patch["metadata"] = json!({"annotations": {ANNOUNCED_BY: node}});
        }
        if address(service) != ip {
            let ingress = ip.map(|ip| json!([{"ip": ip, "ipMode": "VIP"}]));
            patch["status"] = json!({"loadBalancer": {"ingress": ingress}});
        }
        let api = self.context.api::<Service>(&key.namespace);
        ignore_not_found(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;

    fn pools(named: &[(&str, &str)]) -> Pools {
        let data = named.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let whole = Pool::range("10.0.0.10".parse().unwrap(), "10.0.0.11".parse().unwrap());
        Pools::parse(whole, &data).0
    }

    #[test]
    fn addresses_and_announcers() {
        let pools = pools(&[("small", "10.0.0.11")]);
        let check = |service: Value, used: &[&str], nodes: &[(&str, usize)], expect: Plan| {
            let parsed: Service = from_value(service.clone()).unwrap();
            let used = used.iter().map(|ip| (ip.parse().unwrap(), Use::default())).collect();
            let burden = |name: &str, addresses| Burden { server: name.starts_with("server"), addresses };
            let nodes = nodes.iter().map(|(name, load)| ((*name).to_owned(), burden(name, *load))).collect();
            assert_eq!(plan(&parsed, &pools, &used, &nodes), expect, "{service}");
        };
        let serve = |ip: &str, node: Option<&str>| Plan::Serve {
            ip: ip.parse().unwrap(),
            node: node.map(ToOwned::to_owned),
        };
        let two = [("n1", 1), ("n2", 0)];
        let new = json!({"spec": {"type": "LoadBalancer"}});
        check(new.clone(), &[], &two, serve("10.0.0.10", Some("n2")));
        check(new.clone(), &["10.0.0.10"], &[], serve("10.0.0.11", None));
        check(new.clone(), &[], &[("n1", 9), ("server", 0)], serve("10.0.0.10", Some("n1")));
        check(new.clone(), &[], &[("server", 0)], serve("10.0.0.10", Some("server")));
        let full = "no free address in the pool 10.0.0.10-10.0.0.11".to_owned();
        check(new, &["10.0.0.10", "10.0.0.11"], &two, Plan::Refuse(full));
        let with = |kind: &str, asked: &str, ip: &str, node: &str| {
            json!({"metadata": {"annotations": {ANNOUNCED_BY: node}},
                "spec": {"type": kind, "loadBalancerIP": asked},
                "status": {"loadBalancer": {"ingress": [{"ip": ip}]}}})
        };
        check(with("LoadBalancer", "", "10.0.0.11", "n1"), &[], &two, Plan::Nothing);
        check(with("LoadBalancer", "", "10.0.0.11", "dead"), &[], &two, serve("10.0.0.11", Some("n2")));
        check(
            with("LoadBalancer", "", "10.0.0.11", "n1"),
            &["10.0.0.11"],
            &two,
            serve("10.0.0.10", Some("n1")),
        );
        check(
            with("LoadBalancer", "10.0.0.10", "10.0.0.11", "n1"),
            &[],
            &two,
            serve("10.0.0.10", Some("n1")),
        );
        let foreign = "10.9.9.9 is not in the pool 10.0.0.10-10.0.0.11".to_owned();
        check(with("LoadBalancer", "10.9.9.9", "10.0.0.11", "n1"), &[], &two, Plan::Refuse(foreign));
        let of =
            |pool: &str| json!({"metadata": {"annotations": {POOL: pool}}, "spec": {"type": "LoadBalancer"}});
        check(of("small"), &[], &two, serve("10.0.0.11", Some("n2")));
        let full = "no free address in the pool 10.0.0.11-10.0.0.11".to_owned();
        check(of("small"), &["10.0.0.11"], &two, Plan::Refuse(full));
        let missing = "there is no pool \"x\": pools are keys of ConfigMap kube-system/minik-loadbalancer";
        check(of("x"), &[], &two, Plan::Refuse(missing.to_owned()));
        check(with("ClusterIP", "", "10.0.0.11", "n1"), &[], &two, Plan::Release);
        check(json!({"spec": {"type": "ClusterIP"}}), &[], &two, Plan::Nothing);
        check(
            json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "x/y"}}),
            &[],
            &two,
            Plan::Nothing,
        );
    }

    #[test]
    fn an_address_is_shared_by_port() {
        let pools = pools(&[]);
        let ip: Ipv4Addr = "10.0.0.10".parse().unwrap();
        let burden = |addresses| Burden { server: false, addresses };
        let nodes = BTreeMap::from([("n1".to_owned(), burden(0)), ("n2".to_owned(), burden(1))]);
        let other =
            |local| Use { ports: [("TCP".to_owned(), 80)].into(), announcer: Some("n2".into()), local };
        let check = |port: i32, protocol: &str, policy: &str, local: bool, expect: Plan| {
            let service = json!({"spec": {"type": "LoadBalancer", "loadBalancerIP": "10.0.0.10",
                "externalTrafficPolicy": policy, "ports": [{"port": port, "protocol": protocol}]}});
            let service: Service = from_value(service).unwrap();
            let used = Used::from([(ip, other(local))]);
            assert_eq!(plan(&service, &pools, &used, &nodes), expect, "{port}/{protocol} {policy}");
        };
        let serve = || Plan::Serve { ip, node: Some("n2".to_owned()) };
        check(443, "TCP", "Cluster", false, serve());
        check(80, "UDP", "Cluster", false, serve());
        let taken = Plan::Refuse("port 80/TCP of 10.0.0.10 is used by another Service".to_owned());
        check(80, "TCP", "Cluster", false, taken);
        let kept = || {
            let why =
                "10.0.0.10 is used by another Service, and is not shared with externalTrafficPolicy Local";
            Plan::Refuse(why.to_owned())
        };
        check(443, "TCP", "Local", false, kept());
        check(443, "TCP", "Cluster", true, kept());
    }
}
