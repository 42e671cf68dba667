//! Objects as they were sent: what cannot be read is passed over and told of.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object as the API sent it: of the type that is expected, or who it is and why it cannot be read. So one bad object is
/// one bad object, and not the end of a list or a watch.
#[derive(Clone, Debug)]
pub(super) enum Sent<K> {
    Readable(K),
    Unreadable { meta: Box<ObjectMeta>, why: String },
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Sent<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        Ok(match K::deserialize(&value) {
            Ok(object) => Self::Readable(object),
            Err(error) => {
                let text = |field: &str| value.pointer(field).and_then(Value::as_str).map(str::to_owned);
                let meta = ObjectMeta {
                    name: text("/metadata/name"),
                    namespace: text("/metadata/namespace"),
                    uid: text("/metadata/uid"),
                    resource_version: text("/metadata/resourceVersion"),
                    ..ObjectMeta::default()
                };
                Self::Unreadable { meta: Box::new(meta), why: error.to_string() }
            }
        })
    }
}

impl<K: kube::Resource<DynamicType = ()>> kube::Resource for Sent<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable { meta, .. } => meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable(object) => object.meta_mut(),
            Self::Unreadable { meta, .. } => meta,
        }
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
        let good = json!({"metadata": {"name": "good"}, "spec": {"containers": []}});
        let list: Vec<Sent<Pod>> = serde_json::from_value(json!([bad, good])).unwrap();
        let Sent::Unreadable { meta, why } = &list[0] else { panic!("{list:?}") };
        assert_eq!((meta.name.as_deref(), meta.resource_version.as_deref()), (Some("bad"), Some("7")));
        assert!(why.contains("8589934592"), "{why}");
        assert!(matches!(&list[1], Sent::Readable(pod) if pod.metadata.name.as_deref() == Some("good")));
    }
}
