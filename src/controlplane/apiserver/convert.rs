//! From stored bytes to an object in the version that a request speaks, and back. Most resources are stored as they are
//! served; events and autoscalers have a second view of the same objects.

use serde_json::Value;

use api::resources::Resource;
use api::status::ApiError;
use storage::Payload;

use super::key::CollectionKey;
use super::wire;

/// Whether stored bytes are not what this resource's readers get.
pub fn converts(resource: &Resource) -> bool {
    resource.stored_as.is_some() || resource.rewrites
}

/// Where the resource's objects stand.
pub fn collection(resource: &Resource) -> CollectionKey<'_> {
    match &resource.stored_as {
        Some(other) => {
            CollectionKey { group: &other.group, plural: &other.plural, namespaced: resource.namespaced }
        }
        None => CollectionKey {
            group: &resource.group,
            plural: &resource.plural,
            namespaced: resource.namespaced,
        },
    }
}

/// Parses a stored object, and writes it as the resource's version does.
pub fn read(resource: &Resource, data: &[u8]) -> Result<Value, ApiError> {
    let mut object: Value = serde_json::from_slice(data).map_err(ApiError::internal)?;
    if converts(resource) {
        resource.strategy().from_storage(&mut object);
        say_type(&mut object, resource);
    }
    Ok(object)
}

/// Encodes an object of the resource's version as it is stored. 413 if it has grown beyond what a body may have.
pub fn payload(resource: &Resource, mut object: Value) -> Result<Payload, ApiError> {
    if let Some(stored) = &resource.stored_as {
        resource.strategy().to_storage(&mut object);
        say_type(&mut object, stored);
    }
    let resource = resource.stored_as.as_deref().unwrap_or(resource);
    let metadata = object.get("metadata").and_then(Value::as_object);
    let attrs = wire::attrs(metadata, &resource.selectable_fields(&object));
    let payload = wire::payload(&object, attrs, resource.ttl);
    if payload.data.len() > wire::LIMIT {
        return Err(ApiError::too_large(&format!("limit is {}", wire::LIMIT)));
    }
    Ok(payload)
}

fn say_type(object: &mut Value, resource: &Resource) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), resource.api_version().into());
        map.insert("kind".to_owned(), resource.kind.as_ref().into());
    }
}
