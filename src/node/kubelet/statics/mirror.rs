//! What the API server is shown of static Pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Annotations of static Pods and of their mirrors, as upstream names them.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub const FILE: &str = "file";
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the Pod is shown by a kubelet, and not to be run.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

/// Whether the Pod comes from a file of this node.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE) == Some(FILE) && !is_mirror(pod)
}

/// Whether the mirror shows just this static Pod, and goes on doing so.
fn shows(mirror: &Pod, pod: &Pod) -> bool {
    annotation(mirror, CONFIG_MIRROR) == pod.metadata.uid.as_deref()
        && mirror.metadata.deletion_timestamp.is_none()
}

/// The static Pod, with what the API server last knew of its status.
pub fn with_mirror(pod: &Pod, mirror: Option<&Pod>) -> Pod {
    let mirror = mirror.filter(|mirror| shows(mirror, pod));
    let mut pod = pod.clone();
    pod.status = mirror.and_then(|mirror| mirror.status.clone());
    pod.metadata.resource_version = mirror.and_then(|mirror| mirror.metadata.resource_version.clone());
    pod
}

type Name = (String, String);

fn name(pod: &Pod) -> Name {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// The mirror Pods of this node that the API server has.
#[derive(Default)]
pub struct Mirrors(Mutex<HashMap<Name, Arc<Pod>>>);

impl Mirrors {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<Pod>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, mirror: Arc<Pod>) {
        self.lock().insert(name(&mirror), mirror);
    }

    pub fn remove(&self, mirror: &Pod) {
        let mut all = self.lock();
        if all.get(&name(mirror)).is_some_and(|there| there.metadata.uid == mirror.metadata.uid) {
            all.remove(&name(mirror));
        }
    }

    /// Forgets those of other uids.
    pub fn retain(&self, uid: impl Fn(&str) -> bool) {
        self.lock().retain(|_, mirror| mirror.metadata.uid.as_deref().is_some_and(&uid));
    }

    /// What stands at the API server for a static Pod of that name.
    pub fn of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.lock().get(&name(pod)).cloned()
    }

    /// The mirror that shows just this static Pod.
    pub fn showing(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.of(pod).filter(|mirror| shows(mirror, pod))
    }

    fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().values().cloned().collect()
    }
}

/// What the API server is to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Create(Box<Pod>),
    /// Namespace, name and uid of a mirror whose Pod is gone, or another one now, or that somebody deletes.
    Delete(String, String, String),
}

/// What is to be done so that just the static Pods are shown. One that is to be replaced is made after the old one is gone.
pub fn steps(pods: &[Arc<Pod>], mirrors: &Mirrors, node: &Node) -> Vec<Step> {
    let missing = pods.iter().filter(|pod| mirrors.of(pod).is_none());
    let mut steps: Vec<Step> = missing.map(|pod| Step::Create(Box::new(mirror_of(pod, node)))).collect();
    let wrong = |mirror: &Arc<Pod>| !pods.iter().any(|pod| name(pod) == name(mirror) && shows(mirror, pod));
    steps.extend(mirrors.all().into_iter().filter(wrong).map(|mirror| {
        let (namespace, name) = name(&mirror);
        Step::Delete(namespace, name, mirror.metadata.uid.clone().unwrap_or_default())
    }));
    steps
}

fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let uid = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.resource_version = None;
    mirror.status = None;
    mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR.to_owned(), uid);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing::pod;
    use serde_json::json;

    #[test]
    fn each_static_pod_has_its_mirror() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "uid": "n"}})).expect("a Node");
        let web = |uid: &str| {
            Arc::new(pod(json!({"metadata": {"name": "web-n1", "namespace": "default", "uid": uid,
                "annotations": {CONFIG_SOURCE: FILE}}, "spec": {"containers": []}})))
        };
        let mirrors = Mirrors::default();
        assert!(is_static(&web("1")) && !is_mirror(&web("1")));
        let made = steps(&[web("1")], &mirrors, &node);
        let [Step::Create(mirror)] = made.as_slice() else { panic!("{made:?}") };
        assert!(is_mirror(mirror) && !is_static(mirror));
        assert_eq!(mirror.metadata.owner_references.as_ref().map(|all| all[0].uid.as_str()), Some("n"));
        let mut there = (**mirror).clone();
        there.metadata.uid = Some("api".to_owned());
        there.metadata.resource_version = Some("7".to_owned());
        mirrors.put(Arc::new(there.clone()));
        assert_eq!(steps(&[web("1")], &mirrors, &node), []);
        assert_eq!(with_mirror(&web("1"), Some(&there)).metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(with_mirror(&web("2"), Some(&there)).metadata.resource_version, None);
        let gone = Step::Delete("default".to_owned(), "web-n1".to_owned(), "api".to_owned());
        assert_eq!(
            steps(&[web("2")], &mirrors, &node),
            vec![gone.clone()],
            "another Pod: first the old one goes"
        );
        assert_eq!(steps(&[], &mirrors, &node), vec![gone.clone()]);
        // Somebody deletes it: it is let go, and made anew.
        there.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        mirrors.put(Arc::new(there.clone()));
        assert_eq!(steps(&[web("1")], &mirrors, &node), [gone]);
        mirrors.remove(&there);
        assert!(matches!(steps(&[web("1")], &mirrors, &node).as_slice(), [Step::Create(_)]));
    }
}
