//! Conversion of custom objects between their versions by a webhook. Rule: `ConversionReview` of apiextensions.k8s.io/v1.
//!
//! ```text
//! stored entries -> those of another version than the one asked for -> one question to the webhook -> entries in that version
//! object to be stored -> the webhook, if it is of another version than the stored one -> storage
//! ```
//!
//! Whoever reads or writes such objects converts them here first; the rest of the engine sees one version only.

use std::sync::Arc;

use serde_json::{Value, json};

use super::hook_call::{self, Caller};
use super::index::Index;
use super::wire;
use api::meta::ObjectExt;
use api::resources::Resource;
use api::status::ApiError;
use storage::{Batch, Entry, Event};

/// How long a webhook may take, in seconds.
const TIMEOUT: i64 = 30;

/// Converts objects.
pub struct Converter {
    index: Arc<Index>,
    caller: Caller,
}

/// What a version's objects are converted by; `None`: nothing but their version is changed.
fn webhook(row: &Resource) -> Option<&Value> {
    row.conversion.as_deref()
}

impl Converter {
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, caller: Caller::default() }
    }

    /// An entry in the version of `row`.
    pub async fn entry(&self, row: &Resource, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        match webhook(row) {
            None => Ok(entry),
            Some(_) => {
                self.entries(row, vec![entry]).await?.pop().ok_or_else(|| ApiError::internal("no entry"))
            }
        }
    }

    /// Entries in the version of `row`, in their order.
    pub async fn entries(
        &self,
        row: &Resource,
        mut entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, ApiError> {
        let Some(hook) = webhook(row) else { return Ok(entries) };
        let desired = row.api_version();
        let mut others = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let object: Value = serde_json::from_slice(&entry.data).map_err(ApiError::internal)?;
            if object.text("apiVersion") != Some(&desired) {
                others.push((at, object));
            }
        }
        if others.is_empty() {
            return Ok(entries);
        }
        let (places, objects): (Vec<usize>, Vec<Value>) = others.into_iter().unzip();
        let converted = self.ask(row, hook, objects, &desired).await?;
        for (at, object) in places.into_iter().zip(converted) {
            let payload = wire::payload(&object, entries[at].attrs.clone(), None);
            entries[at] = Arc::new(entries[at].with_payload(payload));
        }
        Ok(entries)
    }

    /// What has happened, in the version of `row`.
    pub async fn batch(&self, row: &Resource, batch: Batch) -> Result<Batch, ApiError> {
        if webhook(row).is_none() || batch.events.is_empty() {
            return Ok(batch);
        }
        let states = batch.events.iter().flat_map(|event| [Some(event.entry.clone()), event.prev.clone()]);
        let mut converted = self.entries(row, states.flatten().collect()).await?.into_iter();
        let mut events = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let Some(entry) = converted.next() else { break };
            let prev = event.prev.as_ref().and_then(|_| converted.next());
            events.push(Arc::new(Event::new(event.kind, entry, prev)));
        }
        Ok(Batch { events, ..batch })
    }

    /// An object of the version of `row`, as it is stored.
    pub async fn stored(&self, row: &Resource, object: Value) -> Result<Value, ApiError> {
        let (Some(hook), Some(stored)) = (webhook(row), &row.stored_as) else { return Ok(object) };
        let converted = self.ask(row, hook, vec![object], &stored.api_version()).await?;
        let mut object = converted.into_iter().next().ok_or_else(|| ApiError::internal("no object"))?;
        stored.strategy().prune(&mut object);
        stored.default(&mut object);
        Ok(object)
    }

    async fn ask(
        &self,
        row: &Resource,
        hook: &Value,
        objects: Vec<Value>,
        desired: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let from =
            objects.first().and_then(|object| object.text("apiVersion")).unwrap_or_default().to_owned();
        let failed = |why: String| {
            ApiError::internal(format!("conversion webhook for {from}, Kind={} failed: {why}", row.kind))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let spoken = hook.array_at("/conversionReviewVersions").iter().filter_map(Value::as_str);
        let version = spoken.into_iter().find(|version| matches!(*version, "v1" | "v1beta1")).unwrap_or("v1");
        let question = json!({
            "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": desired, "objects": objects},
        });
        let mut timed = hook.clone();
        timed["timeoutSeconds"] = TIMEOUT.into();
        let target =
            hook_call::target(&timed, &self.index.read()).map_err(|error| failed(error.to_string()))?;
        let answer = self.caller.call(&target, &question).await.map_err(|error| failed(error.to_string()))?;
        let converted = read(&answer, &uid, desired, objects.len()).map_err(failed)?;
        let pairs = converted.into_iter().zip(&objects);
        pairs.map(|(converted, object)| settled(converted, object).map_err(failed)).collect()
    }
}

/// The converted objects of an answer. Fails with what is wrong with it.
fn read(answer: &Value, uid: &str, desired: &str, count: usize) -> Result<Vec<Value>, String> {
    if answer.text("kind") != Some("ConversionReview") {
        return Err("invalid response: it is no ConversionReview".to_owned());
    }
    let Some(response) = answer.get("response").filter(|response| response.is_object()) else {
        return Err("no response provided".to_owned());
    };
    if response.text("uid") != Some(uid) {
        let got = response.text("uid").unwrap_or_default();
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    if response.str_at("/result/status") != Some("Success") {
        let status = response.str_at("/result/status").unwrap_or_default();
        return Err(match response.str_at("/result/message").unwrap_or_default() {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    let converted = response.array_at("/convertedObjects");
    if converted.len() != count {
        return Err(format!("expected {count} converted objects, got {}", converted.len()));
    }
    for (at, object) in converted.iter().enumerate() {
        let said = object.text("apiVersion").unwrap_or_default();
        if said != desired {
            return Err(format!("invalid groupVersion (expected {desired}, received {said}) at index {at}"));
        }
    }
    Ok(converted.to_vec())
}

/// A converted object: of its metadata a webhook may change labels and annotations alone.
fn settled(mut converted: Value, original: &Value) -> Result<Value, String> {
    for (field, said) in [
        ("kind", "kind"),
        ("/metadata/name", "name"),
        ("/metadata/namespace", "namespace"),
        ("/metadata/uid", "UID"),
    ] {
        let of = |object: &Value| match field.starts_with('/') {
            true => object.str_at(field).unwrap_or_default().to_owned(),
            false => object.text(field).unwrap_or_default().to_owned(),
        };
        let (is, must) = (of(&converted), of(original));
        if is != must {
            return Err(format!("must have the same {said}: {is} != {must}"));
        }
    }
    let mut metadata = original.get("metadata").cloned().unwrap_or_default();
    for key in ["labels", "annotations"] {
        match converted.pointer(&format!("/metadata/{key}")).filter(|value| !value.is_null()) {
            Some(value) => metadata[key] = value.clone(),
            None => {
                metadata.as_object_mut().map(|metadata| metadata.remove(key));
            }
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response})
    }

    #[test]
    fn answers_are_read() {
        let object = json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a"}});
        let good = answer(json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [object]}));
        assert_eq!(read(&good, "u", "g/v2", 1), Ok(vec![object]));
        for (answer, why) in [
            (json!({"kind": "Pod"}), "invalid response: it is no ConversionReview"),
            (answer(Value::Null), "no response provided"),
            (answer(json!({"uid": "x"})), "expected response.uid=\"u\", got \"x\""),
            (answer(json!({"uid": "u", "result": {"status": "Failed", "message": "no"}})), "no"),
            (
                answer(json!({"uid": "u", "result": {"status": "Success"}})),
                "expected 1 converted objects, got 0",
            ),
            (
                answer(
                    json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{"apiVersion": "g/v1"}]}),
                ),
                "invalid groupVersion (expected g/v2, received g/v1) at index 0",
            ),
        ] {
            assert_eq!(read(&answer, "u", "g/v2", 1), Err(why.to_owned()));
        }
    }

    #[test]
    fn metadata_stays() {
        let original = json!({"kind": "K", "metadata": {"name": "a", "uid": "u", "labels": {"a": "1"}, "generation": 3}});
        let converted = json!({"kind": "K", "spec": 1, "metadata": {"name": "a", "uid": "u", "annotations": {"x": "y"}, "generation": 9}});
        assert_eq!(
            settled(converted, &original),
            Ok(
                json!({"kind": "K", "spec": 1, "metadata": {"name": "a", "uid": "u", "annotations": {"x": "y"}, "generation": 3}})
            )
        );
        let other = json!({"kind": "K", "metadata": {"name": "b", "uid": "u"}});
        assert_eq!(settled(other, &original), Err("must have the same name: b != a".to_owned()));
    }
}
