use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::controlplane::apiserver::rbac::{Rbac, RbacKind};

/// Collections whose objects are kept as they are.
const KEPT: &[&str] = &[
    "/core/limitranges/",
    "/core/namespaces/",
    "/core/resourcequotas/",
    "/core/serviceaccounts/",
    "/core/services/",
    "/node.k8s.io/runtimeclasses/",
    "/scheduling.k8s.io/priorityclasses/",
    // Only these Secrets: they authenticate.
    "/core/secrets/kube-system/bootstrap-token-",
];
const RBAC: &str = "/rbac.authorization.k8s.io/";

/// Whether a role or binding is stored at this key.
pub(super) fn is_rbac(key: &str) -> bool {
    key.starts_with(RBAC)
}

/// What the index knows.
#[derive(Default)]
pub struct Known {
    pub rbac: Rbac,
    rbac_keys: HashSet<String>,
    objects: BTreeMap<String, Arc<Value>>,
}

impl Known {
    /// Whether the index keeps the object at this storage key.
    pub(super) fn wants(key: &str) -> bool {
        key.starts_with(RBAC) || KEPT.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Takes an object in or out; answers what stood there before (roles and bindings are kept compiled only).
    pub(super) fn set(&mut self, key: &str, object: Option<Arc<Value>>) -> Option<Arc<Value>> {
        if let Some(rest) = key.strip_prefix(RBAC) {
            let mut parts = rest.split('/');
            let kind = parts.next().and_then(RbacKind::of)?;
            let (namespace, name) = match (parts.next(), parts.next()) {
                (Some(namespace), Some(name)) => (namespace, name),
                (Some(name), None) => ("", name),
                _ => return None,
            };
            self.rbac.set(kind, namespace, name, object.as_deref());
            match object {
                Some(_) => self.rbac_keys.insert(key.to_owned()),
                None => self.rbac_keys.remove(key),
            };
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
        let all = self.objects.keys().chain(&self.rbac_keys);
        all.filter(|key| !present.contains(key.as_str())).cloned().collect()
    }

    /// Whether a role or binding stands at this storage key.
    pub fn has_rbac(&self, key: &str) -> bool {
        self.rbac_keys.contains(key)
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
        self.get(&format!("/core/namespaces/{name}"))
    }

    pub fn service_account(&self, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.get(&format!("/core/serviceaccounts/{namespace}/{name}"))
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.get(&format!("/core/services/{namespace}/{name}"))
    }

    pub fn priority_class(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(&format!("/scheduling.k8s.io/priorityclasses/{name}"))
    }

    pub fn priority_classes(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.under("/scheduling.k8s.io/priorityclasses/")
    }

    pub fn runtime_class(&self, name: &str) -> Option<&Arc<Value>> {
        self.get(&format!("/node.k8s.io/runtimeclasses/{name}"))
    }

    pub fn limit_ranges<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.under(&format!("/core/limitranges/{namespace}/"))
    }

    pub fn quotas<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.under(&format!("/core/resourcequotas/{namespace}/"))
    }

    /// All namespaces that have a quota.
    pub fn has_quota(&self, namespace: &str) -> bool {
        self.quotas(namespace).next().is_some()
    }

    /// The Secret of a bootstrap token.
    pub fn bootstrap_token(&self, id: &str) -> Option<&Arc<Value>> {
        self.get(&format!("/core/secrets/kube-system/bootstrap-token-{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_what_it_wants_by_key() {
        assert!(Known::wants("/core/services/default/web"));
        assert!(Known::wants("/rbac.authorization.k8s.io/roles/default/x"));
        assert!(Known::wants("/core/secrets/kube-system/bootstrap-token-abcdef"));
        assert!(!Known::wants("/core/secrets/default/bootstrap-token-abcdef"));
        assert!(!Known::wants("/core/pods/default/web"));
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
