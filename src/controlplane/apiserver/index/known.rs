//! What the index keeps, and how it is asked.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use super::node_uses::NodeUses;
use crate::convert;
use crate::key::{ObjectKey, collections as of, name_of, namespace_of};
use crate::rbac::{Rbac, RbacKind};
use api::meta::ObjectExt;
use api::resources::{Cached, Resource};

const KUBE_SYSTEM: &str = "kube-system";
/// How the names of those Secrets begin that authenticate.
const BOOTSTRAP_TOKEN: &str = "bootstrap-token-";

fn rbac_kind(key: &ObjectKey<'_>) -> Option<RbacKind> {
    RbacKind::of(key.plural).filter(|_| key.group == of::ROLES.group)
}

/// Whether the index keeps an object, by its storage key: the rows of the registry say so.
pub(super) struct Kept {
    prefixes: Vec<String>,
}

impl Kept {
    pub(super) fn of<'a>(rows: impl Iterator<Item = &'a Arc<Resource>>) -> Self {
        let prefix = |row: &Arc<Resource>| {
            let all = convert::collection(row).prefix("");
            match row.cached {
                Cached::No => None,
                Cached::All => Some(all),
                Cached::Below(some) => Some(all + some),
            }
        };
        let mut prefixes: Vec<String> = rows.filter_map(prefix).collect();
        // A kind that a definition brings, and nodes serve.
        prefixes.push(of::GATEWAYS.prefix(""));
        prefixes.sort_unstable();
        Self { prefixes }
    }

    /// Rows' prefixes end in a slash and none stands below another one, so only the nearest one can be the key's.
    pub(super) fn wants(&self, key: &str) -> bool {
        let after = self.prefixes.partition_point(|prefix| prefix.as_str() <= key);
        after.checked_sub(1).is_some_and(|at| key.starts_with(&self.prefixes[at]))
    }
}

/// What the index knows.
#[derive(Default)]
pub struct Known {
    pub rbac: Rbac,
    /// What the Pods of each node use.
    pub nodes: NodeUses,
    rbac_keys: HashSet<String>,
    definitions: HashSet<String>,
    objects: BTreeMap<String, Arc<Value>>,
}

impl Known {
    /// Takes an object in or out; returns what stood there before (roles and bindings are kept compiled only).
    pub(super) fn set(&mut self, key: &str, object: Option<Arc<Value>>) -> Option<Arc<Value>> {
        if let Some(parsed) = ObjectKey::parse(key)
            && let Some(kind) = rbac_kind(&parsed)
        {
            self.rbac.set(kind, parsed.namespace, parsed.name, object.as_deref());
            match object {
                Some(_) => self.rbac_keys.insert(key.to_owned()),
                None => self.rbac_keys.remove(key),
            };
            return None;
        }
        // Only the registry asks for these, and keeps what it needs.
        if of::DEFINITIONS.holds(key) {
            match object {
                Some(_) => self.definitions.insert(key.to_owned()),
                None => self.definitions.remove(key),
            };
            return None;
        }
        if of::PODS.holds(key) {
            self.nodes.set_pod(namespace_of(key), name_of(key), object.as_deref());
            return None;
        }
        if of::INGRESSES.holds(key) {
            self.nodes.set_ingress(namespace_of(key), name_of(key), object.as_deref());
            return None;
        }
        if of::GATEWAYS.holds(key) {
            self.nodes.set_gateway(namespace_of(key), name_of(key), object.as_deref());
            return None;
        }
        if of::VOLUMES.holds(key) {
            self.nodes.set_volume(name_of(key), object.as_deref());
            return None;
        }
        match object {
            Some(object) => self.objects.insert(key.to_owned(), object),
            None => self.objects.remove(key),
        }
    }

    /// Known keys that are not among `present`.
    pub(super) fn keys_but<'a>(&self, present: impl Iterator<Item = &'a str>) -> Vec<String> {
        let present: HashSet<&str> = present.collect();
        let all = self
            .objects
            .keys()
            .chain(&self.rbac_keys)
            .chain(&self.definitions)
            .cloned()
            .chain(self.nodes.keys());
        all.filter(|key| !present.contains(key.as_str())).collect()
    }

    fn get(&self, key: &str) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Objects whose key starts with `prefix`, in key order.
    fn under<'a>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        let owned = prefix.to_owned();
        let from = self.objects.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(&owned)).map(|(_, object)| object)
    }

    pub fn namespace(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(&of::NAMESPACES.key("", name))
    }

    pub fn service_account(&self, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.get(&of::SERVICE_ACCOUNTS.key(namespace, name))
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.get(&of::SERVICES.key(namespace, name))
    }

    /// Where the API server reaches a port of a Service: at its cluster address. Fails, saying why, when there is none.
    pub fn service_address(&self, namespace: &str, name: &str, port: i64) -> Result<SocketAddr, String> {
        let service = self.service(namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
        if !service.array_at("/spec/ports").iter().any(|own| own.int_at("/port") == Some(port)) {
            return Err(format!("no service port {port} found for service {name:?}"));
        }
        let ip = service.str_at("/spec/clusterIP").unwrap_or_default().parse::<IpAddr>();
        let ip = ip.map_err(|_| format!("no address for service {name:?}: it has no cluster IP"))?;
        let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
        Ok(SocketAddr::new(ip, port))
    }

    pub fn api_service(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(&of::API_SERVICES.key("", name))
    }

    pub fn api_services(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.under(&of::API_SERVICES.prefix(""))
    }

    pub fn priority_class(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(&of::PRIORITY_CLASSES.key("", name))
    }

    pub fn priority_classes(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.under(&of::PRIORITY_CLASSES.prefix(""))
    }

    pub fn storage_classes(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.under(&of::STORAGE_CLASSES.prefix(""))
    }

    pub fn ingress_classes(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.under(&of::INGRESS_CLASSES.prefix(""))
    }

    /// Webhook configurations, by name.
    pub fn webhooks(&self, mutating: bool) -> impl Iterator<Item = &Arc<Value>> {
        let collection = if mutating { of::MUTATING_WEBHOOKS } else { of::VALIDATING_WEBHOOKS };
        self.under(&collection.prefix(""))
    }

    /// Admission policies, by name.
    pub fn policies(&self, mutating: bool) -> impl Iterator<Item = &Arc<Value>> {
        self.under(&if mutating { of::MUTATING_POLICIES } else { of::VALIDATING_POLICIES }.prefix(""))
    }

    /// Bindings of admission policies, by name.
    pub fn policy_bindings(&self, mutating: bool) -> impl Iterator<Item = &Arc<Value>> {
        self.under(&if mutating { of::MUTATING_BINDINGS } else { of::VALIDATING_BINDINGS }.prefix(""))
    }

    pub fn runtime_class(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(&of::RUNTIME_CLASSES.key("", name))
    }

    pub fn limit_ranges<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.under(&of::LIMIT_RANGES.prefix(namespace))
    }

    pub fn quotas<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.under(&of::QUOTAS.prefix(namespace))
    }

    /// All namespaces that have a quota.
    pub fn has_quota(&self, namespace: &str) -> bool {
        self.quotas(namespace).next().is_some()
    }

    /// The Secret of a bootstrap token.
    pub fn bootstrap_token(&self, id: &str) -> Option<&Arc<Value>> {
        self.get(&of::SECRETS.key(KUBE_SYSTEM, &format!("{BOOTSTRAP_TOKEN}{id}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_what_it_wants_by_key() {
        let kept = Kept::of(api::resources::builtin().iter());
        assert!(kept.wants("/core/services/default/web"));
        assert!(kept.wants("/rbac.authorization.k8s.io/roles/default/x"));
        assert!(kept.wants("/core/secrets/kube-system/bootstrap-token-abcdef"));
        assert!(!kept.wants("/core/secrets/default/bootstrap-token-abcdef"));
        assert!(kept.wants("/core/pods/default/web"), "for what its node may read");
        assert!(!kept.wants("/core/events/default/web"));
        let mut known = Known::default();
        for name in ["a", "b"] {
            known.set(&format!("/core/limitranges/{name}/x"), Some(Arc::new(json!({"in": name}))));
        }
        known.set("/rbac.authorization.k8s.io/roles/default/x", Some(Arc::new(json!({}))));
        assert_eq!(known.limit_ranges("a").count(), 1);
        assert!(!known.has_quota("a"));
        let gone = known.keys_but(["/core/limitranges/a/x"].into_iter());
        assert_eq!(gone, ["/core/limitranges/b/x", "/rbac.authorization.k8s.io/roles/default/x"]);
    }
}
