//! The parameters that a binding gives its policy. Rule: `CollectParams`.

use std::sync::Arc;

use serde_json::Value;

use super::Policies;
use crate::convert;
use api::meta::{Gvk, ObjectExt, split_api_version};
use api::selector::LabelSelector;
use storage::ListQuery;

impl Policies {
    /// One for each evaluation; `None`: one without parameters. Fails, with the reason, if the binding and its policy do not go
    /// together, or what must be there is not.
    pub(super) async fn params(
        &self,
        policy: &Value,
        binding: &Value,
        namespace: &str,
    ) -> Result<Vec<Option<Arc<Value>>>, String> {
        let kind = policy.pointer("/spec/paramKind").filter(|kind| kind.is_object());
        let reference = binding.pointer("/spec/paramRef").filter(|reference| reference.is_object());
        let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
        let text = |key: &str| kind.text(key).unwrap_or_default();
        let (group, version) = split_api_version(text("apiVersion"));
        let wanted = Gvk::new(group.to_owned(), version.to_owned(), text("kind").to_owned());
        let mut snapshot = self.registry.snapshot();
        // A kind that somebody has just defined is there.
        if snapshot.table.by_kind(&wanted).is_none() && !self.index.is_current() {
            self.index.caught_up().await;
            snapshot = self.registry.snapshot();
        }
        let row = snapshot.table.by_kind(&wanted);
        let row = row.ok_or_else(|| {
            format!(
                "failed to find resource referenced by paramKind: '{}, Kind={}'",
                text("apiVersion"),
                text("kind")
            )
        })?;
        let own = reference.text("namespace").unwrap_or_default();
        let namespace = match (row.namespaced, own, namespace) {
            (false, "", _) => "",
            (false, ..) => {
                return Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()
                );
            }
            (true, "", "") => {
                let why =
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(why.to_owned());
            }
            (true, "", namespace) => namespace,
            (true, own, _) => own,
        };
        let collection = convert::collection(row);
        let store = self.index.store();
        let mut found = Vec::new();
        match reference.text("name").filter(|name| !name.is_empty()) {
            Some(name) => {
                let entry = store.get(&collection.key(namespace, name)).await;
                found.extend(entry.map_err(|error| error.to_string())?);
            }
            None => {
                let prefix = collection.prefix(namespace);
                let listing = store.list(ListQuery { prefix, ..ListQuery::default() }).await;
                found = listing.map_err(|error| error.to_string())?.entries;
            }
        }
        let found = self.converter.entries(row, found).await.map_err(|error| error.message)?;
        let objects =
            found.iter().map(|entry| convert::read(row, &entry.data).map_err(|error| error.message));
        let mut objects = objects.collect::<Result<Vec<Value>, String>>()?;
        if let Some(selector) = reference.get("selector").filter(|selector| selector.is_object()) {
            let selector = LabelSelector::from_value(selector).map_err(|error| error.to_string())?;
            objects.retain(|object| selector.matches(|key| object.label(key)));
        }
        if objects.is_empty() && reference.text("parameterNotFoundAction") == Some("Deny") {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
        }
        let typed = objects.into_iter().map(|mut object| {
            object["apiVersion"] = text("apiVersion").into();
            object["kind"] = text("kind").into();
            Some(Arc::new(object))
        });
        Ok(typed.collect())
    }
}
