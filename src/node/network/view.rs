//! The observed Services, endpoints and nodes, in memory, shared by everything on the node that reads them.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

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
}

impl View {
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
        self.services().find(|service| service.cluster_ip == Some(ip))
    }

    /// Whether any Service lives in a namespace: then its name exists in DNS.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let from = ServiceKey::new(namespace, "");
        self.services.range(from..).next().is_some_and(|(key, _)| key.namespace == namespace)
    }

    /// Takes in a Service as it is now.
    pub fn put_service(&mut self, service: Service) -> Change {
        put(&mut self.services, service.key.clone(), service, Change::Services)
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, key: &ServiceKey) -> Change {
        self.services.remove(key).map_or(Change::Nothing, |_| Change::Services)
    }

    /// Takes in a slice as it is now. It may have moved from another Service: labels can be edited.
    pub fn put_slice(&mut self, slice: Slice) -> Change {
        let moved = self.take_slice(&slice.service.namespace, &slice.name, Some(&slice.service));
        let owned = (slice.service.namespace.clone(), slice.name.clone());
        self.owners.insert(owned, slice.service.clone());
        let slices = self.slices.entry(slice.service.clone()).or_default();
        match put(slices, slice.name.clone(), slice, Change::Services) {
            Change::Nothing if moved => Change::Services,
            change => change,
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
        true
    }

    /// Takes in a node as it is now.
    pub fn put_node(&mut self, node: Node) -> Change {
        put(&mut self.nodes, node.name.clone(), node, Change::Nodes)
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) -> Change {
        self.nodes.remove(name).map_or(Change::Nothing, |_| Change::Nodes)
    }

    /// Replaces all Services: what a new list says.
    pub fn replace_services(&mut self, services: Vec<Service>) {
        self.services = services.into_iter().map(|s| (s.key.clone(), Arc::new(s))).collect();
    }

    /// Replaces all slices: what a new list says.
    pub fn replace_slices(&mut self, slices: Vec<Slice>) {
        self.slices.clear();
        self.owners.clear();
        for slice in slices {
            self.put_slice(slice);
        }
    }

    /// Replaces all nodes: what a new list says.
    pub fn replace_nodes(&mut self, nodes: Vec<Node>) {
        self.nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n))).collect();
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
