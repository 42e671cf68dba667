//! Reads static Pods from their folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::mirror::{CONFIG_HASH, CONFIG_SOURCE, FILE};
use crate::kubelet::spec;
use api::resources::builtin;
use api::schema::FieldValidation;

/// The folder that kubeadm's nodes have, too.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// What the folder describes.
#[derive(Debug, Default)]
pub struct FoundPods {
    pub pods: Vec<Pod>,
    /// Why a file describes none, where that is news.
    pub troubles: Vec<String>,
}

/// A folder of Pods' manifests.
pub struct Folder {
    path: PathBuf,
    node: String,
    /// By file: its text, and what came of it.
    known: BTreeMap<PathBuf, (Vec<u8>, Option<Pod>)>,
}

impl Folder {
    /// The folder of this node; made when it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn of_node(node: &str) -> std::io::Result<Self> {
        fs::create_dir_all(MANIFESTS)?;
        Ok(Self::at(Path::new(MANIFESTS), node))
    }

    fn at(path: &Path, node: &str) -> Self {
        Self { path: path.to_owned(), node: node.to_owned(), known: BTreeMap::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the folder. A file whose new text is no Pod keeps the Pod it described before: it may be half written.
    pub fn read(&mut self) -> FoundPods {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        let hidden =
            |path: &PathBuf| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let files: Vec<PathBuf> = entries.filter(|path| !hidden(path) && path.is_file()).collect();
        let mut found = FoundPods::default();
        let mut known = BTreeMap::new();
        for file in files {
            let before = self.known.remove(&file);
            let Ok(text) = fs::read(&file) else { continue };
            let now = match before {
                Some((old, pod)) if old == text => (text, pod),
                before => match parse(&text, &self.node) {
                    Ok(pod) => (text, Some(pod)),
                    Err(why) => {
                        found.troubles.push(format!("{}: {why}", file.display()));
                        (text, before.and_then(|(_, pod)| pod))
                    }
                },
            };
            known.insert(file, now);
        }
        self.known = known;
        let mut names = std::collections::HashSet::new();
        for (file, (_, pod)) in &self.known {
            let Some(pod) = pod else { continue };
            if names.insert((pod.metadata.namespace.clone(), pod.metadata.name.clone())) {
                found.pods.push(pod.clone());
            } else {
                found.troubles.push(format!("{}: another file describes a Pod of that name", file.display()));
            }
        }
        found
    }
}

/// The Pod that a manifest describes, on this node.
fn parse(text: &[u8], node: &str) -> Result<Pod, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let value: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("it is no Pod (apiVersion: v1, kind: Pod)".to_owned());
    }
    let rows = builtin();
    let pods =
        rows.iter().find(|row| row.group.is_empty() && row.plural == "pods").ok_or("no Pods are known")?;
    let schema = pods.schema().ok_or("Pods have no schema")?;
    let (mut value, _) = schema.convert(&value, FieldValidation::Warn).map_err(|error| error.to_string())?;
    let hash = digest(&SHA256, format!("{node}\n{text}").as_bytes());
    place(&mut value, node, &hex::encode(&hash.as_ref()[..16]));
    pods.default(&mut value);
    let errors = pods.judge(&value, None).errors;
    if !errors.is_empty() {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(all.join("; "));
    }
    let pod: Pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
    match refers(&pod) {
        Some(what) => Err(format!("static Pods may not refer to {what}")),
        None => Ok(pod),
    }
}

/// Names the Pod after its node, and puts it there.
fn place(pod: &mut Value, node: &str, hash: &str) {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let namespace =
        pod["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("default");
    let (name, namespace) = (format!("{name}-{node}").to_lowercase(), namespace.to_owned());
    let metadata = &mut pod["metadata"];
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(namespace);
    metadata["uid"] = json!(hash);
    metadata["annotations"][CONFIG_HASH] = json!(hash);
    metadata["annotations"][CONFIG_SOURCE] = json!(FILE);
    let spec = &mut pod["spec"];
    spec["nodeName"] = json!(node);
    // Nothing on the node's taints concerns it.
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match spec["tolerations"].as_array_mut() {
        Some(all) => all.push(everything),
        None => spec["tolerations"] = json!([everything]),
    }
}

/// What of the API server's a Pod refers to, if anything: a static Pod must run without it.
fn refers(pod: &Pod) -> Option<&'static str> {
    let spec = spec(pod);
    if spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Some("ServiceAccounts");
    }
    let claims = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() || volume.csi.is_some()
    };
    if spec.volumes.iter().flatten().any(claims) {
        return Some("PersistentVolumeClaims or storage drivers");
    }
    if !crate::kubelet::objects::references(pod).is_empty() {
        return Some("ConfigMaps or Secrets");
    }
    let token =
        |source: &k8s_openapi::api::core::v1::VolumeProjection| source.service_account_token.is_some();
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let mut sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.any(token).then_some("ServiceAccounts")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: nginx}]\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_its_node() {
        let pod = parse(WEB.as_bytes(), "n1").expect("a Pod");
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(spec(&pod).node_name.as_deref(), Some("n1"));
        assert_eq!(spec(&pod).restart_policy.as_deref(), Some("Always"), "filled in");
        let uid = pod.metadata.uid.clone().expect("a uid");
        assert_eq!(
            parse(WEB.as_bytes(), "n1").expect("a Pod").metadata.uid,
            Some(uid.clone()),
            "the same Pod"
        );
        assert_ne!(parse(WEB.as_bytes(), "n2").expect("a Pod").metadata.uid, Some(uid));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let check = |from: &str, to: &str, expect: &str| {
            let why = parse(WEB.replace(from, to).as_bytes(), "n1").expect_err(to);
            assert!(why.contains(expect), "{why}");
        };
        check("kind: Pod", "kind: Service", "it is no Pod");
        check("image: nginx", "imagine: nginx", "spec.containers[0].image: Required value");
        check("image: nginx", "image: [", "");
        check("spec:\n", "spec:\n  serviceAccountName: robot\n", "may not refer to ServiceAccounts");
        let volume = "spec:\n  volumes: [{name: v, configMap: {name: m}}]\n";
        check("spec:\n", volume, "may not refer to ConfigMaps or Secrets");
        let claim = "spec:\n  volumes: [{name: v, persistentVolumeClaim: {claimName: m}}]\n";
        check("spec:\n", claim, "may not refer to PersistentVolumeClaims");
    }

    #[test]
    fn the_folder_is_read_again_and_again() {
        let dir = tempfile::tempdir().expect("folder");
        let mut folder = Folder::at(dir.path(), "n1");
        assert!(folder.read().pods.is_empty());
        let file = dir.path().join("web.yaml");
        fs::write(&file, WEB).expect("written");
        fs::write(dir.path().join(".web.yaml.swp"), "x").expect("written");
        let first = folder.read();
        assert_eq!((first.pods.len(), first.troubles.len()), (1, 0));
        fs::write(&file, "apiVersion: v1\nki").expect("half written");
        let half = folder.read();
        assert_eq!((half.pods.len(), half.troubles.len()), (1, 1), "what was there stays");
        assert_eq!(half.pods[0].metadata.uid, first.pods[0].metadata.uid);
        assert!(folder.read().troubles.is_empty(), "said once");
        fs::write(&file, WEB.replace("nginx", "nginx:2")).expect("written");
        assert_ne!(folder.read().pods[0].metadata.uid, first.pods[0].metadata.uid);
        fs::write(dir.path().join("z.yaml"), WEB).expect("written");
        let two = folder.read();
        assert_eq!((two.pods.len(), two.troubles.len()), (1, 1), "one of a name");
        fs::remove_file(&file).expect("removed");
        assert_eq!(folder.read().pods[0].metadata.uid, first.pods[0].metadata.uid, "the other file's");
    }
}
