//! What an APIService says of the server behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Told;
use api::meta::ObjectExt;
use api::resources::condition;

/// Which Service a server stands behind, and whom to believe that it is it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: i64,
    pub(super) ca_bundle: String,
    pub(super) insecure: bool,
}

impl Backend {
    /// `None` for an APIService that is served here.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let service = object.pointer("/spec/service").filter(|service| service.is_object())?;
        let text = |field: &str| service.text(field).unwrap_or_default().to_owned();
        Some(Self {
            namespace: text("namespace"),
            name: text("name"),
            port: service.int_at("/port").unwrap_or(443),
            ca_bundle: object.str_at("/spec/caBundle").unwrap_or_default().to_owned(),
            insecure: object.bool_at("/spec/insecureSkipTLSVerify").unwrap_or(false),
        })
    }

    /// The authorities to believe, as PEM; `None`: the machine's.
    pub(super) fn authorities(&self) -> Option<String> {
        let pem = STANDARD.decode(&self.ca_bundle).ok().filter(|pem| !pem.is_empty())?;
        String::from_utf8(pem).ok()
    }
}

/// A group and version that another server serves.
#[derive(Clone)]
pub struct Remote {
    /// Of the APIService.
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    /// As its condition says.
    pub available: bool,
    pub told: Arc<Told>,
    pub(super) backend: Backend,
}

impl Remote {
    /// `None` for an APIService that is served here.
    pub fn of(object: &Value, told: Arc<Told>) -> Option<Self> {
        let text = |field: &str| object.str_at(field).unwrap_or_default().to_owned();
        Some(Self {
            name: object.name().to_owned(),
            group: text("/spec/group"),
            version: text("/spec/version"),
            group_priority: object.int_at("/spec/groupPriorityMinimum").unwrap_or_default(),
            version_priority: object.int_at("/spec/versionPriority").unwrap_or_default(),
            available: condition(object, "Available"),
            told,
            backend: Backend::of(object)?,
        })
    }

    /// The same, after its server has told something else of itself.
    #[must_use]
    pub fn telling(&self, told: Arc<Told>) -> Self {
        Self { told, ..self.clone() }
    }

    /// Whether requests and documents are the same as another state's.
    pub fn same_as(&self, other: &Self) -> bool {
        let said = |remote: &Self| (remote.group_priority, remote.version_priority, remote.available);
        self.backend == other.backend && said(self) == said(other) && Arc::ptr_eq(&self.told, &other.told)
    }
}

/// All groups and versions that other servers serve.
#[derive(Clone, Default)]
pub struct Remotes(BTreeMap<(String, String), Arc<Remote>>);

impl Remotes {
    pub fn new(remotes: impl IntoIterator<Item = Arc<Remote>>) -> Self {
        Self(
            remotes
                .into_iter()
                .map(|remote| ((remote.group.clone(), remote.version.clone()), remote))
                .collect(),
        )
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.0.values()
    }

    pub fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(group.to_owned(), version.to_owned()))
    }

    /// Whose a path is: everything below `/apis/<group>/<version>`, and that group and version's OpenAPI document.
    pub fn of_path(&self, path: &str) -> Option<&Arc<Remote>> {
        if self.0.is_empty() {
            return None;
        }
        let rest = path.strip_prefix("/openapi/v3").unwrap_or(path).strip_prefix("/apis/")?;
        let mut parts = rest.split('/');
        self.find(parts.next()?, parts.next()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_their_server() {
        let object = json!({"metadata": {"name": "v1.x.io"}, "spec": {"group": "x.io", "version": "v1",
            "service": {"namespace": "n", "name": "s"}, "caBundle": "UEVN"}});
        let remote = Remote::of(&object, Arc::default()).expect("another server's");
        assert!(!remote.available);
        assert_eq!((remote.backend.port, remote.backend.authorities().as_deref()), (443, Some("PEM")));
        let remotes = Remotes::new([Arc::new(remote)]);
        for path in ["/apis/x.io/v1", "/apis/x.io/v1/", "/apis/x.io/v1/things/a", "/openapi/v3/apis/x.io/v1"]
        {
            assert!(remotes.of_path(path).is_some(), "{path}");
        }
        for path in ["/apis/x.io", "/apis/x.io/v2/things", "/api/v1", "/openapi/v3", "/apis"] {
            assert!(remotes.of_path(path).is_none(), "{path}");
        }
        assert!(Remote::of(&json!({"spec": {"group": "apps"}}), Arc::default()).is_none());
    }
}
