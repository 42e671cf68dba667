//! Objects as they were sent. One watch machinery, compiled once, carries them for all types; each cache reads its own.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object as the API sent it: its text, and who it is. What cannot be read as its type is one bad object, and not the
/// end of a list or a watch.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Name, namespace, uid and resource version; nothing else.
    pub(super) meta: ObjectMeta,
    text: Box<RawValue>,
}

impl Raw {
    /// The object as its type. Field ownership is dropped: no reader of a cache needs it, and it is often half of an
    /// object. Fails with the reason why the text is not of that type.
    pub(super) fn read<K>(&self) -> Result<K, String>
    where
        K: kube::Resource + DeserializeOwned,
    {
        let mut object: K = serde_json::from_str(self.text.get()).map_err(|error| error.to_string())?;
        object.meta_mut().managed_fields = None;
        Ok(object)
    }
}

/// The part of any object that says who it is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: Identity,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(from)?;
        let head: Head = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        let Identity { name, namespace, uid, resource_version } = head.metadata;
        let meta = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Ok(Self { meta, text })
    }
}

impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_bad_object_does_not_spoil_a_list() {
        let bad = json!({"metadata": {"name": "bad", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c", "livenessProbe": {"periodSeconds": 8_589_934_592_i64}}]}});
        let managed = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        let good =
            json!({"metadata": {"name": "good", "managedFields": managed}, "spec": {"containers": []}});
        let list: Vec<Raw> = serde_json::from_str(&json!([bad, good]).to_string()).unwrap();
        let meta = &list[0].meta;
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("bad"), Some("a")));
        assert_eq!((meta.uid.as_deref(), meta.resource_version.as_deref()), (Some("u"), Some("7")));
        let why = list[0].read::<Pod>().unwrap_err();
        assert!(why.contains("8589934592"), "{why}");
        let good: Pod = list[1].read().unwrap();
        assert_eq!((good.metadata.name.as_deref(), good.metadata.managed_fields), (Some("good"), None));
    }
}
