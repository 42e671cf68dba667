//! Files that nodes get beside what minik itself needs: they travel with the cluster's record, so that a node that is made
//! anew has them too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::plan::PutFile;
use super::record::ClusterRecord;
use super::spec::{NodeSpec, SpecError};
use super::trust;

/// All of them together; the record is read by every command.
const LARGEST: usize = 8 << 20;
/// Where Go's TLS, and so containerd, finds authorities beside the system's own list.
const AUTHORITIES: &str = "etc/ssl/certs";
/// Where kubelets look for credentials that every Pod may pull with.
const CREDENTIALS: &str = "var/lib/kubelet/config.json";

/// What is carried along with a cluster; some of it is secret, so none of it is shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Carried {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CarriedFile>,
    /// Certificates (PEM) of authorities that nodes trust for everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
    /// By registry: `USER:PASSWORD` in base64, as Docker writes it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Carried({} files, {} credentials)", self.files.len(), self.credentials.len())
    }
}

/// A file of the host's for nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarriedFile {
    /// Where it goes, absolute.
    pub target: String,
    pub mode: u32,
    /// In base64.
    pub content: String,
    /// The nodes that get it, by number; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<u32>>,
}

impl CarriedFile {
    /// Fails when the target is no file that minik leaves to others.
    pub fn new(target: &str, mode: u32, content: &[u8], nodes: Option<Vec<u32>>) -> Result<Self, SpecError> {
        let wrong = |why: &str| Err(SpecError::Mount(format!("invalid file {target:?}: {why}")));
        let path = Path::new(target);
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !path.is_absolute() || !plain || target.ends_with('/') {
            return wrong("an absolute path of a file in the node is expected");
        }
        // These are mounted when the container starts, over what was put there before.
        if ["/run", "/tmp", "/proc", "/sys", "/dev"].iter().any(|dir| path.starts_with(dir)) {
            return wrong("/run, /tmp, /proc, /sys and /dev are empty when a node starts");
        }
        if path.starts_with("/var/lib/minik") || target == "/usr/bin/minik" {
            return wrong("this is minik's own");
        }
        Ok(Self { target: target.to_owned(), mode, content: STANDARD.encode(content), nodes })
    }
}

impl Carried {
    /// Fails when it is too much.
    pub fn validate(&self) -> Result<(), SpecError> {
        let size: usize = self.files.iter().map(|file| file.content.len()).sum();
        match size > LARGEST {
            true => Err(SpecError::Mount(format!(
                "the files for nodes are {} MiB in all, at most {} are possible: use a volume",
                size >> 20,
                LARGEST >> 20
            ))),
            false => Ok(()),
        }
    }
}

/// Everything of this kind that a node gets. Pure.
pub(super) fn of_node(record: &ClusterRecord, of: &NodeSpec) -> Vec<PutFile> {
    let Carried { files, authorities, credentials } = &record.carried;
    let mut all = trust::of_spec(&record.spec.registries);
    for (at, pem) in authorities.iter().enumerate() {
        let path = PathBuf::from(AUTHORITIES).join(format!("minik-{at}.pem"));
        all.push((path, pem.clone().into_bytes(), 0o644));
    }
    if !credentials.is_empty() {
        let auths: BTreeMap<_, _> =
            credentials.iter().map(|(host, auth)| (host, serde_json::json!({"auth": auth}))).collect();
        let text = serde_json::json!({"auths": auths}).to_string();
        all.push((CREDENTIALS.into(), text.into_bytes(), 0o600));
    }
    let own = files.iter().filter(|file| file.nodes.as_ref().is_none_or(|list| list.contains(&of.number)));
    all.extend(own.filter_map(|file| {
        let content = STANDARD.decode(&file.content).ok()?;
        Some((PathBuf::from(file.target.trim_start_matches('/')), content, file.mode))
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::super::record::test_drawn;
    use super::super::spec::ClusterSpec;
    use super::*;

    #[test]
    fn nodes_get_their_own_files() {
        let spec = ClusterSpec::new("t".parse().expect("good name"), 2).expect("good");
        let mut record = ClusterRecord::new(spec, test_drawn());
        record.carried = Carried {
            files: vec![
                CarriedFile::new("/etc/all", 0o644, b"a", None).expect("good"),
                CarriedFile::new("/etc/agent", 0o600, b"\xff", Some(vec![1])).expect("good"),
            ],
            authorities: vec!["PEM".to_owned()],
            credentials: [("r.corp".to_owned(), "dTpw".to_owned())].into(),
        };
        let paths = |number: usize| -> Vec<String> {
            let files = of_node(&record, &record.spec.nodes[number]);
            files.iter().map(|(path, ..)| path.display().to_string()).collect()
        };
        let common = ["etc/ssl/certs/minik-0.pem", "var/lib/kubelet/config.json", "etc/all"];
        assert_eq!(paths(0), common);
        assert_eq!(paths(1), [&common[..], &["etc/agent"]].concat());
        let shown = format!("{record:?}");
        assert!(!shown.contains("dTpw"), "secrets are not shown: {shown}");
    }

    #[test]
    fn targets_are_files_of_others() {
        for bad in ["etc/x", "/etc/", "/run/x", "/var/lib/minik/x", "/a/../usr/bin/minik", "/usr/bin/minik"] {
            assert!(CarriedFile::new(bad, 0o644, b"", None).is_err(), "{bad}");
        }
        let large = Carried {
            files: vec![CarriedFile::new("/a", 0o644, &vec![0; LARGEST], None).expect("good")],
            ..Carried::default()
        };
        assert!(large.validate().is_err());
    }
}
