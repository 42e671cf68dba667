//! The resources that are served, at any moment: the built-in ones, and those that definitions bring and take away.
//!
//! ```text
//! index sees a definition change -> its rows are made anew -> a new snapshot takes the old one's place, whole
//! ```
//!
//! A request works with the snapshot that stood when it came. Documents about resources are made once per snapshot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::aggregation::{Remote, Remotes, Told};
use super::index::Follower;
use super::key::ObjectKey;
use super::key::collections::{API_SERVICES, DEFINITIONS};
use super::root::Documents;
use api::meta::ObjectExt;
use api::resources::{Resource, Table, condition, custom_rows};
use rt::Stop;

/// All resources at one moment.
pub struct Snapshot {
    /// Counts up with every change.
    pub version: u64,
    pub table: Table,
    /// What other servers serve.
    pub remotes: Remotes,
    pub documents: Documents,
}

impl Snapshot {
    fn new(rows: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let (remotes, documents) = (Remotes::default(), Documents::default());
        Self { version: 0, table: Table::new(rows), remotes, documents }
    }

    /// What takes this one's place.
    fn next(&self, rows: impl IntoIterator<Item = Arc<Resource>>, remotes: Remotes) -> Self {
        let documents = self.documents.next();
        Self { version: self.version + 1, table: Table::new(rows), remotes, documents }
    }
}

/// What of a definition decides about its rows.
#[derive(PartialEq)]
struct Defined {
    uid: String,
    /// As texts, which take a tenth of the room of values.
    spec: Box<str>,
    names: Box<str>,
    stored: Box<str>,
    served: bool,
}

impl Defined {
    fn of(definition: &Value) -> Self {
        let text =
            |at: &str| definition.pointer(at).map(Value::to_string).unwrap_or_default().into_boxed_str();
        Self {
            uid: definition.uid().to_owned(),
            spec: text("/spec"),
            names: text("/status/acceptedNames"),
            stored: text("/status/storedVersions"),
            served: condition(definition, "Established"),
        }
    }
}

struct Custom {
    defined: Defined,
    leaving: bool,
    end: Stop,
    rows: Vec<Arc<Resource>>,
}

/// What comes and goes.
#[derive(Default)]
struct Parts {
    /// By the definition's name.
    custom: BTreeMap<String, Custom>,
    /// By the APIService's name.
    remote: BTreeMap<String, Arc<Remote>>,
}

/// The registry: the present snapshot, and what it is made from.
pub struct Registry {
    builtin: Vec<Arc<Resource>>,
    parts: Mutex<Parts>,
    /// Counts changes of what the APIServices of this server's own groups follow from.
    api_services: watch::Sender<u64>,
    current: watch::Sender<Arc<Snapshot>>,
    stop: Stop,
}

impl Registry {
    /// A registry of these rows, to which definitions add theirs. Watches of rows that go end at once; all end with `stop`.
    pub fn new(builtin: Vec<Arc<Resource>>, stop: Stop) -> Arc<Self> {
        let first = Arc::new(Snapshot::new(builtin.clone()));
        let (parts, current) = (Mutex::default(), watch::Sender::new(first));
        Arc::new(Self { builtin, parts, api_services: watch::Sender::new(0), current, stop })
    }

    /// The resources there are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// Wakes whenever another snapshot has taken the place of the one before.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Wakes whenever an APIService has changed, or what is served here.
    pub fn api_services(&self) -> watch::Receiver<u64> {
        self.api_services.subscribe()
    }

    /// Takes in what another server told of itself.
    pub fn tell(&self, name: &str, told: Arc<Told>) {
        let mut parts = self.parts();
        if let Some(remote) = parts.remote.get_mut(name) {
            *remote = Arc::new(remote.telling(told));
            self.publish(&parts);
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an APIService's new state in; `None`: it is gone.
    fn serve(&self, name: &str, object: Option<&Value>) {
        let mut parts = self.parts();
        let before = parts.remote.remove(name);
        let told = before.as_ref().map(|before| before.told.clone()).unwrap_or_default();
        let remote = object.and_then(|object| Remote::of(object, told));
        let same = match (&before, &remote) {
            (Some(before), Some(now)) => before.same_as(now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if let Some(remote) = remote {
            parts.remote.insert(name.to_owned(), Arc::new(remote));
        }
        if !same {
            self.publish(&parts);
        }
        self.api_services.send_modify(|count| *count += 1);
    }

    /// Takes a definition's new state in; `None`: it is gone.
    fn define(&self, name: &str, definition: Option<&Value>) {
        let mut parts = self.parts();
        let custom = &mut parts.custom;
        let before = custom.remove(name);
        let Some(definition) = definition else {
            if let Some(gone) = before {
                gone.end.cancel();
                self.publish(&parts);
            }
            return;
        };
        let defined = Defined::of(definition);
        let leaving = definition.deletion_timestamp().is_some();
        let same = before.as_ref().is_some_and(|before| before.defined == defined);
        if let Some(before) = before {
            if same && before.leaving == leaving {
                custom.insert(name.to_owned(), before);
                return;
            }
            let end = if same { before.end } else { self.replace(&before.end) };
            let rows = custom_rows(definition, &end);
            custom.insert(name.to_owned(), Custom { defined, leaving, end, rows });
        } else {
            let end = self.stop.child_token();
            let rows = custom_rows(definition, &end);
            custom.insert(name.to_owned(), Custom { defined, leaving, end, rows });
        }
        self.publish(&parts);
    }

    fn replace(&self, end: &Stop) -> Stop {
        end.cancel();
        self.stop.child_token()
    }

    fn publish(&self, parts: &Parts) {
        let made = parts.custom.values().flat_map(|custom| custom.rows.iter().cloned());
        let rows: Vec<_> = self.builtin.iter().cloned().chain(made).collect();
        let remotes = Remotes::new(parts.remote.values().cloned());
        self.current.send_modify(|current| *current = Arc::new(current.next(rows, remotes)));
        self.api_services.send_modify(|count| *count += 1);
    }
}

impl Follower for Registry {
    fn changed(&self, key: &str, object: Option<&Value>, _last: Option<&Value>) {
        let Some(key) = ObjectKey::parse(key) else { return };
        if key.is_in(&DEFINITIONS) {
            self.define(key.name, object);
        } else if key.is_in(&API_SERVICES) {
            self.serve(key.name, object);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use api::resources::builtin;

    #[test]
    fn rows_come_and_go_with_their_definition() {
        let registry = Registry::new(builtin(), Stop::new());
        let before = registry.snapshot();
        let mut definition = json!({
            "metadata": {"name": "widgets.example.com", "uid": "u"},
            "spec": {"group": "example.com", "scope": "Cluster", "versions": [
                {"name": "v1", "served": true, "storage": true}]},
            "status": {"acceptedNames": {"plural": "widgets", "kind": "Widget"},
                "conditions": [{"type": "Established", "status": "True"}]},
        });
        let key = DEFINITIONS.key("", "widgets.example.com");
        let find = || registry.snapshot().table.find("example.com", "v1", "widgets").cloned();
        registry.changed(&key, Some(&definition), None);
        let row = find().expect("served");
        assert!(before.table.find("example.com", "v1", "widgets").is_none(), "snapshots do not change");
        definition["metadata"]["labels"] = json!({"a": "b"});
        let version = registry.snapshot().version;
        registry.changed(&key, Some(&definition), None);
        assert_eq!(registry.snapshot().version, version, "nothing that counts has changed");
        definition["metadata"]["deletionTimestamp"] = json!("now");
        registry.changed(&key, Some(&definition), None);
        assert!(!find().expect("still served").has_verb("create"));
        let end = row.end.clone().expect("a custom row ends");
        assert!(!end.is_cancelled(), "watches see the objects go");
        registry.changed(&key, None, Some(&definition));
        assert!(find().is_none() && end.is_cancelled());
    }
}
