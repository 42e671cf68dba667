//! The observed Services, endpoints and nodes, in memory, shared by everything on the node that reads them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::journal::{Changed, Journal};
use super::model::{Endpoint, Node, Port, Service, ServiceKey, Slice};

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// Services or their endpoints.
    Services,
    Nodes,
}

/// Everything observed. Objects are shared, so that a copy for planning costs references only.
#[derive(Clone, Debug, Default)]
pub struct View {
    services: BTreeMap<ServiceKey, Arc<Service>>,
    slices: BTreeMap<ServiceKey, BTreeMap<String, Arc<Slice>>>,
    /// The Service of each slice, by the slice's namespace and name.
    owners: HashMap<(String, String), ServiceKey>,
    nodes: BTreeMap<String, Arc<Node>>,
    /// Services by their ClusterIP.
    addresses: HashMap<Ipv4Addr, ServiceKey>,
    /// Services without one, whose names lead to their endpoints.
    headless: BTreeSet<ServiceKey>,
    /// Services for whose address some node answers.
    announced: BTreeSet<ServiceKey>,
    journal: Journal,
}

impl View {
    /// The number of the latest change of Services, of their endpoints or of what chooses among them.
    pub fn revision(&self) -> u64 {
        self.journal.now()
    }

    /// What changed after the revision `seen`; everything, to those who have seen nothing.
    pub fn changed_since(&self, seen: Option<u64>) -> Changed {
        seen.map_or(Changed::Everything, |seen| self.journal.since(seen))
    }

    /// Stands for another view from now on, of which readers have seen some.
    pub(super) fn succeed(&mut self, other: &Self) {
        self.journal.everything_changed(other.revision());
    }

    /// All Services, by key.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }

    /// One Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(Arc::as_ref)
    }

    /// The slices of one Service, by name.
    pub fn slices(&self, key: &ServiceKey) -> impl Iterator<Item = &Slice> {
        self.slices.get(key).into_iter().flat_map(|slices| slices.values().map(Arc::as_ref))
    }

    /// Where the port of a Service that `is_it` picks takes connections now: its ready endpoints, else those that end but
    /// still serve.
    pub fn serving(&self, key: &ServiceKey, is_it: impl Fn(&Port) -> bool) -> Vec<SocketAddr> {
        let Some(port) = self.service(key).and_then(|service| service.ports.iter().find(|port| is_it(port)))
        else {
            return Vec::new();
        };
        let of = |wanted: fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
            let slices = self.slices(key).flat_map(|slice| {
                let ports = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
                ports.flat_map(move |p| slice.endpoints.iter().map(move |endpoint| (endpoint, p.port)))
            });
            let picked = slices.filter(|(endpoint, _)| wanted(endpoint));
            picked.map(|(endpoint, port)| SocketAddr::from((endpoint.address, port))).collect()
        };
        let ready = of(|endpoint| endpoint.ready);
        if ready.is_empty() { of(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// The zone that a node is in.
    pub fn zone(&self, node: &str) -> Option<&str> {
        self.nodes.get(node)?.zone.as_deref()
    }

    /// The Service that owns a ClusterIP.
    pub fn service_at(&self, ip: Ipv4Addr) -> Option<&Service> {
        self.service(self.addresses.get(&ip)?)
    }

    /// The Services without a ClusterIP, by key.
    pub fn headless(&self) -> impl Iterator<Item = &Service> {
        self.headless.iter().filter_map(|key| self.service(key))
    }

    /// Whether any Service lives in a namespace: then its name exists in DNS.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let from = ServiceKey::new(namespace, "");
        self.services.range(from..).next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    /// The Services for whose address some node answers, by key.
    pub fn announced(&self) -> impl Iterator<Item = &Service> {
        self.announced.iter().filter_map(|key| self.service(key))
    }

    /// Takes in a Service as it is now.
    pub fn put_service(&mut self, service: Service) -> Change {
        let key = service.key.clone();
        if self.services.get(&key).is_some_and(|old| **old == service) {
            return Change::Nothing;
        }
        self.take_service(&key);
        self.add_service(service);
        self.note(&key)
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, key: &ServiceKey) -> Change {
        if self.take_service(key) { self.note(key) } else { Change::Nothing }
    }

    fn add_service(&mut self, service: Service) {
        let key = service.key.clone();
        if let Some(ip) = service.cluster_ip {
            self.addresses.insert(ip, key.clone());
        }
        if service.headless {
            self.headless.insert(key.clone());
        }
        if service.announced_by.is_some() {
            self.announced.insert(key.clone());
        }
        self.services.insert(key, Arc::new(service));
    }

    fn take_service(&mut self, key: &ServiceKey) -> bool {
        let Some(old) = self.services.remove(key) else { return false };
        self.headless.remove(key);
        self.announced.remove(key);
        if let Some(ip) = old.cluster_ip
            && self.addresses.get(&ip) == Some(key)
        {
            self.addresses.remove(&ip);
        }
        true
    }

    fn note(&mut self, key: &ServiceKey) -> Change {
        self.journal.changed(key);
        Change::Services
    }

    /// Takes in a slice as it is now. It may have moved from another Service: labels can be edited.
    pub fn put_slice(&mut self, slice: Slice) -> Change {
        let key = slice.service.clone();
        let moved = self.take_slice(&key.namespace, &slice.name, Some(&key));
        self.owners.insert((key.namespace.clone(), slice.name.clone()), key.clone());
        let slices = self.slices.entry(key.clone()).or_default();
        match put(slices, slice.name.clone(), slice, Change::Services) {
            Change::Nothing if moved => Change::Services,
            Change::Nothing => Change::Nothing,
            _ => self.note(&key),
        }
    }

    /// Forgets the slice of this namespace and name.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) -> Change {
        if self.take_slice(namespace, name, None) { Change::Services } else { Change::Nothing }
    }

    fn take_slice(&mut self, namespace: &str, name: &str, except: Option<&ServiceKey>) -> bool {
        let owned = (namespace.to_owned(), name.to_owned());
        if self.owners.get(&owned).is_none_or(|owner| Some(owner) == except) {
            return false;
        }
        let Some(owner) = self.owners.remove(&owned) else { return false };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.note(&owner);
        true
    }

    /// Takes in a node as it is now.
    pub fn put_node(&mut self, node: Node) -> Change {
        // Endpoints are chosen by zones: of every Service.
        if self.zone(&node.name) != node.zone.as_deref() {
            self.journal.everything_changed(0);
        }
        put(&mut self.nodes, node.name.clone(), node, Change::Nodes)
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) -> Change {
        if self.zone(name).is_some() {
            self.journal.everything_changed(0);
        }
        self.nodes.remove(name).map_or(Change::Nothing, |_| Change::Nodes)
    }

    /// Replaces all Services: what a new list says.
    pub fn replace_services(&mut self, services: Vec<Service>) {
        self.services.clear();
        self.addresses.clear();
        self.headless.clear();
        self.announced.clear();
        services.into_iter().for_each(|service| self.add_service(service));
        self.journal.everything_changed(0);
    }

    /// Replaces all slices: what a new list says.
    pub fn replace_slices(&mut self, slices: Vec<Slice>) {
        self.slices.clear();
        self.owners.clear();
        for slice in slices {
            self.put_slice(slice);
        }
        self.journal.everything_changed(0);
    }

    /// Replaces all nodes: what a new list says.
    pub fn replace_nodes(&mut self, nodes: Vec<Node>) {
        self.nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n))).collect();
        self.journal.everything_changed(0);
    }
}

fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, Arc<V>>, key: K, value: V, change: Change) -> Change {
    if map.get(&key).is_some_and(|old| **old == value) {
        return Change::Nothing;
    }
    map.insert(key, Arc::new(value));
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str) -> Slice {
        let service = ServiceKey::new("shop", service);
        Slice { name: name.into(), service, ports: Vec::new(), endpoints: Vec::new() }
    }

    #[test]
    fn only_differences_wake_readers() {
        let mut view = View::default();
        assert_eq!(view.put_slice(slice("a", "web")), Change::Services);
        assert_eq!(view.put_slice(slice("a", "web")), Change::Nothing);
        assert_eq!(view.remove_slice("shop", "b"), Change::Nothing);
        assert_eq!(view.remove_slice("shop", "a"), Change::Services);
        assert_eq!(view.remove_node("n"), Change::Nothing);
    }

    #[test]
    fn addresses_lead_to_the_service_that_has_them_now() {
        let service = |name: &str, ip: &str| {
            let object = serde_json::json!({ "metadata": { "namespace": "shop", "name": name }, "spec": { "clusterIP": ip } });
            Service::from_api(&serde_json::from_value(object).expect("a Service"))
        };
        let mut view = View::default();
        let at = |view: &View, ip: &str| {
            view.service_at(ip.parse().expect("an address")).map(|service| service.key.name.clone())
        };
        view.put_service(service("web", "10.43.0.9"));
        assert_eq!(at(&view, "10.43.0.9").as_deref(), Some("web"));
        view.put_service(service("web", "None"));
        assert_eq!((at(&view, "10.43.0.9"), view.headless().count()), (None, 1));
        view.put_service(service("api", "10.43.0.9"));
        let seen = view.revision();
        view.remove_service(&ServiceKey::new("shop", "web"));
        assert_eq!((at(&view, "10.43.0.9").as_deref(), view.headless().count()), (Some("api"), 0));
        assert_eq!(view.changed_since(Some(seen)), Changed::Of([ServiceKey::new("shop", "web")].into()));
        assert_eq!(view.changed_since(None), Changed::Everything);
        view.replace_services(vec![service("web", "10.43.0.7")]);
        assert_eq!((at(&view, "10.43.0.9"), at(&view, "10.43.0.7").as_deref()), (None, Some("web")));
        assert_eq!(view.changed_since(Some(seen)), Changed::Everything);
    }

    #[test]
    fn a_slice_whose_label_changes_leaves_its_service() {
        let mut view = View::default();
        view.put_slice(slice("a", "web"));
        view.put_slice(slice("b", "web"));
        assert_eq!(view.put_slice(slice("a", "api")), Change::Services);
        let names = |service: &str| -> Vec<String> {
            view.slices(&ServiceKey::new("shop", service)).map(|s| s.name.clone()).collect()
        };
        assert_eq!((names("web"), names("api")), (vec!["b".to_owned()], vec!["a".to_owned()]));
    }
}
