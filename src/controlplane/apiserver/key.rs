//! How storage keys are spelled: `/<group or core>/<plural>/[<namespace>/]<name>`. Nobody else builds one or takes one apart.

/// The key of a collection: the group and plural under which its objects are stored (versions and, for events, two groups
/// share one), and whether its objects have a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionKey<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub namespaced: bool,
}

impl<'a> CollectionKey<'a> {
    /// A collection whose objects have a namespace.
    pub const fn namespaced(group: &'a str, plural: &'a str) -> Self {
        Self { group, plural, namespaced: true }
    }

    /// A collection at the cluster's scope.
    pub const fn cluster(group: &'a str, plural: &'a str) -> Self {
        Self { group, plural, namespaced: false }
    }

    fn folder(&self) -> &str {
        if self.group.is_empty() { "core" } else { self.group }
    }

    /// The prefix of all keys; with a namespace, of those in it. Ends with a slash.
    pub fn prefix(&self, namespace: &str) -> String {
        let mut prefix =
            String::with_capacity(self.folder().len() + self.plural.len() + namespace.len() + 40);
        for part in ["/", self.folder(), "/", self.plural, "/"] {
            prefix.push_str(part);
        }
        if self.namespaced && !namespace.is_empty() {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        prefix
    }

    /// One object's key.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let mut key = self.prefix(namespace);
        key.push_str(name);
        key
    }

    /// Whether an object of this collection stands at `key`.
    pub fn holds(&self, key: &str) -> bool {
        ObjectKey::parse(key).is_some_and(|key| key.is_in(self))
    }
}

/// An object's key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKey<'k> {
    /// Empty for core.
    pub group: &'k str,
    pub plural: &'k str,
    /// Empty at the cluster's scope.
    pub namespace: &'k str,
    pub name: &'k str,
}

impl<'k> ObjectKey<'k> {
    /// `None` if no object can stand at `key`.
    pub fn parse(key: &'k str) -> Option<Self> {
        let mut parts = key.strip_prefix('/')?.split('/');
        let group = parts.next().map(|group| if group == "core" { "" } else { group })?;
        let (plural, first) = (parts.next()?, parts.next()?);
        let (namespace, name) = parts.next().map_or(("", first), |name| (first, name));
        let whole = !name.is_empty() && parts.next().is_none();
        whole.then_some(Self { group, plural, namespace, name })
    }

    /// Whether it is a key of `collection`.
    pub fn is_in(&self, collection: &CollectionKey<'_>) -> bool {
        self.plural == collection.plural
            && self.group == collection.group
            && self.namespace.is_empty() != collection.namespaced
    }
}

/// Group (empty for core) and plural of what a key or a prefix of keys is about; empty where that is several.
pub fn resource_of(key: &str) -> (&str, &str) {
    let mut parts = key.strip_prefix('/').unwrap_or_default().split('/');
    let group = parts.next().filter(|group| *group != "core").unwrap_or_default();
    (group, parts.next().unwrap_or_default())
}

/// The object's name, from its key.
pub fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

/// The object's namespace, from the key of a namespaced object.
pub fn namespace_of(key: &str) -> &str {
    key.rsplit('/').nth(1).unwrap_or_default()
}

/// Groups whose objects upstream keeps under their plural alone, beside those whose names have no dot.
const BARE: &[&str] = &[
    "admissionregistration.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Returns a key as upstream spells it behind its prefix, for an etcd that people look into: `/pods/default/web` of
/// `/core/pods/default/web`. Custom resources, and the two groups that upstream added as such, keep their group.
pub fn upstream_path(key: &str) -> String {
    let mut parts = key.trim_start_matches('/').splitn(3, '/');
    let (Some(group), Some(plural), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return key.to_owned();
    };
    if group.contains('.') && !BARE.contains(&group) {
        return key.to_owned();
    }
    let folder = match (group, plural) {
        ("core", "nodes") => "minions",
        ("core", "services") => "services/specs",
        ("core", "endpoints") => "services/endpoints",
        ("core", "replicationcontrollers") => "controllers",
        ("networking.k8s.io", "ingresses") => "ingress",
        _ => plural,
    };
    format!("/{folder}/{rest}")
}

/// Collections that the server itself reads.
pub mod collections {
    use super::CollectionKey;

    const RBAC: &str = "rbac.authorization.k8s.io";
    const ADMISSION: &str = "admissionregistration.k8s.io";

    pub const API_SERVICES: CollectionKey<'_> =
        CollectionKey::cluster("apiregistration.k8s.io", "apiservices");
    pub const CONFIG_MAPS: CollectionKey<'_> = CollectionKey::namespaced("", "configmaps");
    pub const ROLES: CollectionKey<'_> = CollectionKey::namespaced(RBAC, "roles");
    pub const ENDPOINT_SLICES: CollectionKey<'_> =
        CollectionKey::namespaced("discovery.k8s.io", "endpointslices");
    pub const INGRESS_CLASSES: CollectionKey<'_> =
        CollectionKey::cluster("networking.k8s.io", "ingressclasses");
    pub const MUTATING_WEBHOOKS: CollectionKey<'_> =
        CollectionKey::cluster(ADMISSION, "mutatingwebhookconfigurations");
    pub const VALIDATING_WEBHOOKS: CollectionKey<'_> =
        CollectionKey::cluster(ADMISSION, "validatingwebhookconfigurations");
    pub const MUTATING_POLICIES: CollectionKey<'_> =
        CollectionKey::cluster(ADMISSION, "mutatingadmissionpolicies");
    pub const MUTATING_BINDINGS: CollectionKey<'_> =
        CollectionKey::cluster(ADMISSION, "mutatingadmissionpolicybindings");
    pub const VALIDATING_POLICIES: CollectionKey<'_> =
        CollectionKey::cluster(ADMISSION, "validatingadmissionpolicies");
    pub const VALIDATING_BINDINGS: CollectionKey<'_> =
        CollectionKey::cluster(ADMISSION, "validatingadmissionpolicybindings");
    pub const STORAGE_CLASSES: CollectionKey<'_> = CollectionKey::cluster("storage.k8s.io", "storageclasses");
    pub const DEFINITIONS: CollectionKey<'_> =
        CollectionKey::cluster("apiextensions.k8s.io", "customresourcedefinitions");
    pub const GATEWAYS: CollectionKey<'_> =
        CollectionKey::namespaced("gateway.networking.k8s.io", "gateways");
    pub const INGRESSES: CollectionKey<'_> = CollectionKey::namespaced("networking.k8s.io", "ingresses");
    pub const LIMIT_RANGES: CollectionKey<'_> = CollectionKey::namespaced("", "limitranges");
    pub const NAMESPACES: CollectionKey<'_> = CollectionKey::cluster("", "namespaces");
    pub const NODES: CollectionKey<'_> = CollectionKey::cluster("", "nodes");
    pub const PODS: CollectionKey<'_> = CollectionKey::namespaced("", "pods");
    pub const PRIORITY_CLASSES: CollectionKey<'_> =
        CollectionKey::cluster("scheduling.k8s.io", "priorityclasses");
    pub const QUOTAS: CollectionKey<'_> = CollectionKey::namespaced("", "resourcequotas");
    pub const RUNTIME_CLASSES: CollectionKey<'_> = CollectionKey::cluster("node.k8s.io", "runtimeclasses");
    pub const SECRETS: CollectionKey<'_> = CollectionKey::namespaced("", "secrets");
    pub const SERVICE_ACCOUNTS: CollectionKey<'_> = CollectionKey::namespaced("", "serviceaccounts");
    pub const VOLUMES: CollectionKey<'_> = CollectionKey::cluster("", "persistentvolumes");
    pub const SERVICES: CollectionKey<'_> = CollectionKey::namespaced("", "services");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_spelled_as_upstream_does() {
        let check = |key: &str, expect: &str| assert_eq!(upstream_path(key), expect);
        check("/core/pods/default/web", "/pods/default/web");
        check("/core/nodes/a", "/minions/a");
        check("/core/services/default/web", "/services/specs/default/web");
        check("/core/endpoints/default/web", "/services/endpoints/default/web");
        check("/core/replicationcontrollers/default/web", "/controllers/default/web");
        check("/apps/deployments/default/web", "/deployments/default/web");
        check("/rbac.authorization.k8s.io/clusterroles/admin", "/clusterroles/admin");
        check("/networking.k8s.io/ingresses/default/web", "/ingress/default/web");
        check("/apiregistration.k8s.io/apiservices/v1.apps", "/apiregistration.k8s.io/apiservices/v1.apps");
        check("/gateway.networking.k8s.io/gateways/a/b", "/gateway.networking.k8s.io/gateways/a/b");
        check("/example.com/things/a/b", "/example.com/things/a/b");
    }

    #[test]
    fn keys_are_paths() {
        let pods = collections::PODS;
        assert_eq!(pods.prefix(""), "/core/pods/");
        assert_eq!(pods.prefix("a"), "/core/pods/a/");
        let key = pods.key("a", "b");
        assert_eq!((name_of(&key), namespace_of(&key)), ("b", "a"));
        assert_eq!(collections::NODES.key("", "n"), "/core/nodes/n");
        assert!(pods.holds(&key) && !collections::SECRETS.holds(&key));
        let role = collections::ROLES.key("a", "b");
        let expect =
            ObjectKey { group: "rbac.authorization.k8s.io", plural: "roles", namespace: "a", name: "b" };
        assert_eq!(ObjectKey::parse(&role), Some(expect));
        for wrong in ["", "/core/pods/", "/core/pods/a/", "core/pods/a/b", "/core/pods/a/b/c", "/core/pods"] {
            assert_eq!(ObjectKey::parse(wrong), None, "{wrong}");
        }
    }
}
