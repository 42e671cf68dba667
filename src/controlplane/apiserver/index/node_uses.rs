//! What the Pods of each node use: the objects that a node's kubelet may read, as upstream's node authorizer finds them in
//! its graph (Pod -> Secret, ConfigMap, claim, ServiceAccount; claim -> volume).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::api::meta::ObjectExt;
use crate::controlplane::apiserver::key::collections as of;

/// The Pod that a kubelet shows for a manifest of its own carries this: it gives its node no rights.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A kind of object that Pods use by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Used {
    ConfigMap,
    Secret,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

/// A kind and a name, in the namespace of the Pod.
type Uses = BTreeSet<(Used, String)>;

struct PodUses {
    node: String,
    uses: Uses,
}

/// The graph. It is fed with Pods and volumes as they are written.
#[derive(Default)]
pub struct NodeUses {
    /// By namespace and name.
    pods: HashMap<(String, String), PodUses>,
    /// Of how many Pods: node, then kind, namespace, name.
    used: HashMap<String, HashMap<(Used, String, String), usize>>,
    /// The claim that a volume is bound to, namespace and name, by the volume's name.
    volumes: HashMap<String, (String, String)>,
    /// The Secrets that each Ingress names, by its namespace and name.
    ingresses: HashMap<(String, String), BTreeSet<String>>,
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
        let claim = volume.and_then(|volume| {
            let claim = volume.map_at("/spec/claimRef")?;
            let text = |field: &str| claim.get(field).and_then(Value::as_str).map(str::to_owned);
            Some((text("namespace")?, text("name")?))
        });
        match claim {
            Some(claim) => self.volumes.insert(name.to_owned(), claim),
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
        let claim = self.volumes.get(volume);
        claim.is_some_and(|(namespace, name)| self.uses(node, Used::Claim, namespace, name))
    }

    /// Takes a written Ingress in, or a deleted one out: every node serves it, with the certificates that it names.
    pub fn set_ingress(&mut self, namespace: &str, name: &str, ingress: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        let secrets = |ingress: &Value| -> BTreeSet<String> {
            let all = ingress.array_at("/spec/tls").iter();
            all.filter_map(|tls| tls.text("secretName")).map(str::to_owned).collect()
        };
        match ingress.map(secrets) {
            Some(secrets) => self.ingresses.insert(key, secrets),
            None => self.ingresses.remove(&key),
        };
    }

    /// Whether an Ingress names the Secret.
    pub fn is_served(&self, namespace: &str, secret: &str) -> bool {
        self.ingresses.iter().any(|((of, _), secrets)| of == namespace && secrets.contains(secret))
    }

    /// The storage keys of everything that was taken in.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        let pods = self.pods.keys().map(|(namespace, name)| of::PODS.key(namespace, name));
        let ingresses = self.ingresses.keys().map(|(namespace, name)| of::INGRESSES.key(namespace, name));
        pods.chain(ingresses).chain(self.volumes.keys().map(|name| of::VOLUMES.key("", name)))
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
        graph.set_volume("pv-1", Some(&json!({"spec": {"claimRef": {"namespace": "a", "name": "data"}}})));
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
