//! What the Pods of each node use: the objects that a node's kubelet may read, as upstream's node authorizer finds them in
//! its graph (Pod -> Secret, ConfigMap, claim, ServiceAccount; claim -> volume).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::key::collections as of;
use api::meta::ObjectExt;

/// The Pod that a kubelet shows for a manifest of its own carries this: it gives its node no rights.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// An Ingress names the Secret with the people that it lets in so.
const AUTH_SECRET: &str = "nginx.ingress.kubernetes.io/auth-secret";

/// A kind of object that Pods use by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Used {
    ConfigMap,
    Secret,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

/// What nodes serve at load balancer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Front {
    Ingress,
    Gateway,
}

/// A kind and a name, in the namespace of the Pod.
type Uses = BTreeSet<(Used, String)>;

struct PodUses {
    node: String,
    uses: Uses,
}

/// What a bound volume brings to the nodes of its claim's Pods: namespaces and names.
struct VolumeUses {
    claim: (String, String),
    /// What its driver is given on a node.
    secrets: BTreeSet<(String, String)>,
}

/// The graph. It is fed with Pods and volumes as they are written.
#[derive(Default)]
pub struct NodeUses {
    /// By namespace and name.
    pods: HashMap<(String, String), PodUses>,
    /// Of how many Pods: node, then kind, namespace, name.
    used: HashMap<String, HashMap<(Used, String, String), usize>>,
    /// Volumes that are bound, by name.
    volumes: HashMap<String, VolumeUses>,
    /// The Secrets that each Ingress and each Gateway names, by its kind, namespace and name.
    fronts: HashMap<(Front, String, String), BTreeSet<(String, String)>>,
}

impl NodeUses {
    /// Takes a written Pod in, or a deleted one out.
    pub fn set_pod(&mut self, namespace: &str, name: &str, pod: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(before) = self.pods.remove(&key) {
            self.count(&before, namespace, false);
        }
        let node = pod.and_then(|pod| pod.str_at("/spec/nodeName")).filter(|node| !node.is_empty());
        if let (Some(pod), Some(node)) = (pod, node) {
            let uses = if pod.annotation(MIRROR).is_some() { Uses::default() } else { uses_of(pod) };
            let now = PodUses { node: node.to_owned(), uses };
            self.count(&now, namespace, true);
            self.pods.insert(key, now);
        }
    }

    /// Takes a written volume in, or a deleted one out.
    pub fn set_volume(&mut self, name: &str, volume: Option<&Value>) {
        let named = |volume: &Value, path: &str| {
            let text = |field: &str| volume.str_at(&format!("{path}/{field}")).map(str::to_owned);
            Some((text("namespace")?, text("name")?))
        };
        let uses = volume.and_then(|volume| {
            let of_driver = ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
            let secrets = of_driver.iter().filter_map(|field| named(volume, &format!("/spec/csi/{field}")));
            Some(VolumeUses { claim: named(volume, "/spec/claimRef")?, secrets: secrets.collect() })
        });
        match uses {
            Some(uses) => self.volumes.insert(name.to_owned(), uses),
            None => self.volumes.remove(name),
        };
    }

    fn count(&mut self, pod: &PodUses, namespace: &str, add: bool) {
        let used = self.used.entry(pod.node.clone()).or_default();
        for (kind, name) in &pod.uses {
            let key = (*kind, namespace.to_owned(), name.clone());
            if add {
                *used.entry(key).or_default() += 1;
            } else if let Some(count) = used.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    used.remove(&key);
                }
            }
        }
        if used.is_empty() {
            self.used.remove(&pod.node);
        }
    }

    /// Whether a Pod on the node uses the object.
    pub fn uses(&self, node: &str, kind: Used, namespace: &str, name: &str) -> bool {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.used.get(node).is_some_and(|used| used.contains_key(&key))
    }

    /// Whether a Pod on the node uses the claim that the volume is bound to.
    pub fn uses_volume(&self, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).map(|uses| &uses.claim);
        claim.is_some_and(|(namespace, name)| self.uses(node, Used::Claim, namespace, name))
    }

    /// Whether the driver of a volume that a Pod on the node uses is given the Secret.
    pub fn is_for_driver(&self, node: &str, namespace: &str, secret: &str) -> bool {
        let key = (namespace.to_owned(), secret.to_owned());
        let mut given = self.volumes.values().filter(|uses| uses.secrets.contains(&key));
        given.any(|uses| self.uses(node, Used::Claim, &uses.claim.0, &uses.claim.1))
    }

    /// Takes a written Ingress in, or a deleted one out: every node serves it, with the certificates and people that it names.
    pub fn set_ingress(&mut self, namespace: &str, name: &str, ingress: Option<&Value>) {
        let secrets = ingress.map(|ingress| {
            let all = ingress.array_at("/spec/tls").iter().filter_map(|tls| tls.text("secretName"));
            let all = all.chain(ingress.annotation(AUTH_SECRET));
            all.map(|secret| (namespace.to_owned(), secret.to_owned())).collect()
        });
        self.set_front(Front::Ingress, namespace, name, secrets);
    }

    /// The same for a Gateway, which may name Secrets of other namespaces.
    pub fn set_gateway(&mut self, namespace: &str, name: &str, gateway: Option<&Value>) {
        let secrets = gateway.map(|gateway| {
            let listeners = gateway.array_at("/spec/listeners").iter();
            let all = listeners.flat_map(|listener| listener.array_at("/tls/certificateRefs"));
            let secret = |of: &Value| {
                Some((of.text("namespace").unwrap_or(namespace).to_owned(), of.text("name")?.to_owned()))
            };
            all.filter_map(secret).collect()
        });
        self.set_front(Front::Gateway, namespace, name, secrets);
    }

    fn set_front(
        &mut self,
        kind: Front,
        namespace: &str,
        name: &str,
        secrets: Option<BTreeSet<(String, String)>>,
    ) {
        let key = (kind, namespace.to_owned(), name.to_owned());
        match secrets {
            Some(secrets) => self.fronts.insert(key, secrets),
            None => self.fronts.remove(&key),
        };
    }

    /// Whether an Ingress or a Gateway names the Secret.
    pub fn is_served(&self, namespace: &str, secret: &str) -> bool {
        let named = (namespace.to_owned(), secret.to_owned());
        self.fronts.values().any(|secrets| secrets.contains(&named))
    }

    /// The storage keys of everything that was taken in.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        let pods = self.pods.keys().map(|(namespace, name)| of::PODS.key(namespace, name));
        let fronts = self.fronts.keys().map(|(kind, namespace, name)| match kind {
            Front::Ingress => of::INGRESSES.key(namespace, name),
            Front::Gateway => of::GATEWAYS.key(namespace, name),
        });
        pods.chain(fronts).chain(self.volumes.keys().map(|name| of::VOLUMES.key("", name)))
    }
}

/// Whether the Pod names anything at all that [`uses_of`] finds: a Pod that a kubelet itself makes may not.
pub fn uses_anything(pod: &Value) -> Option<Used> {
    uses_of(pod).into_iter().map(|(kind, _)| kind).next()
}

fn uses_of(pod: &Value) -> Uses {
    let mut uses = Uses::default();
    let mut add = |kind: Used, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            uses.insert((kind, name.to_owned()));
        }
    };
    add(Used::ServiceAccount, pod.str_at("/spec/serviceAccountName"));
    for secret in pod.array_at("/spec/imagePullSecrets") {
        add(Used::Secret, secret.text("name"));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in pod.array_at(&format!("/spec/{list}")) {
            for source in container.array_at("/envFrom") {
                add(Used::ConfigMap, source.str_at("/configMapRef/name"));
                add(Used::Secret, source.str_at("/secretRef/name"));
            }
            for variable in container.array_at("/env") {
                add(Used::ConfigMap, variable.str_at("/valueFrom/configMapKeyRef/name"));
                add(Used::Secret, variable.str_at("/valueFrom/secretKeyRef/name"));
            }
        }
    }
    for claim in pod.array_at("/spec/resourceClaims") {
        add(Used::ResourceClaim, claim.text("resourceClaimName"));
    }
    for claim in pod.array_at("/status/resourceClaimStatuses") {
        add(Used::ResourceClaim, claim.text("resourceClaimName"));
    }
    for volume in pod.array_at("/spec/volumes") {
        add(Used::ConfigMap, volume.str_at("/configMap/name"));
        add(Used::Secret, volume.str_at("/secret/secretName"));
        add(Used::Claim, volume.str_at("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some() {
            let claim = format!("{}-{}", pod.name(), volume.text("name").unwrap_or_default());
            add(Used::Claim, Some(&claim));
        }
        for source in volume.array_at("/projected/sources") {
            add(Used::ConfigMap, source.str_at("/configMap/name"));
            add(Used::Secret, source.str_at("/secret/name"));
        }
        // The other sources name their credentials each in one of these ways.
        for source in volume.as_object().into_iter().flat_map(|volume| volume.values()) {
            for secret in ["/secretRef/name", "/nodePublishSecretRef/name"] {
                add(Used::Secret, source.str_at(secret));
            }
        }
        add(Used::Secret, volume.str_at("/azureFile/secretName"));
    }
    uses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_sees_what_its_pods_use_and_no_longer_than_they_stand() {
        let spec = json!({"nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"envFrom": [{"secretRef": {"name": "env"}}],
                "env": [{"valueFrom": {"configMapKeyRef": {"name": "key"}}}]}],
            "volumes": [{"name": "a", "secret": {"secretName": "files"}}, {"name": "b", "ephemeral": {}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "ca"}}]}},
                {"name": "d", "csi": {"nodePublishSecretRef": {"name": "csi"}}},
                {"name": "e", "persistentVolumeClaim": {"claimName": "data"}}]});
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut graph = NodeUses::default();
        graph.set_pod("a", "p", Some(&pod));
        graph.set_pod("a", "q", Some(&pod));
        let claim = json!({"namespace": "a", "name": "data"});
        let stage = json!({"nodeStageSecretRef": {"namespace": "drivers", "name": "key"}});
        graph.set_volume("pv-1", Some(&json!({"spec": {"claimRef": claim, "csi": stage}})));
        use Used::*;
        for (kind, name) in [
            (ServiceAccount, "robot"),
            (Secret, "pull"),
            (Secret, "env"),
            (ConfigMap, "key"),
            (Secret, "files"),
            (Claim, "p-b"),
            (ConfigMap, "ca"),
            (Secret, "csi"),
            (Claim, "data"),
        ] {
            assert!(graph.uses("n1", kind, "a", name), "{kind:?} {name}");
            assert!(
                !graph.uses("n2", kind, "a", name) && !graph.uses("n1", kind, "b", name),
                "{kind:?} {name}"
            );
        }
        assert!(graph.uses_volume("n1", "pv-1") && !graph.uses_volume("n2", "pv-1"));
        assert!(graph.is_for_driver("n1", "drivers", "key") && !graph.is_for_driver("n2", "drivers", "key"));
        graph.set_pod("a", "p", None);
        assert!(graph.uses("n1", Secret, "a", "env"), "the other Pod still does");
        graph.set_pod("a", "q", None);
        assert!(graph.used.is_empty() && graph.pods.is_empty());
        let mut mirror = pod;
        mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
        graph.set_pod("a", "m", Some(&mirror));
        assert!(!graph.uses("n1", Secret, "a", "env"));
    }
}
