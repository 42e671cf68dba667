//! Classes and drivers of storage, and what is attached where.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::quantity::Quantity;
use crate::resources::Strategy;
use crate::resources::core::csi_driver;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, IMMUTABLE, Path, check, check_at, dns1123_subdomain, label_selector, qualified_name,
    same,
};

const NOT_CHANGED: &str = "updates to FIELD are forbidden.";

fn unchanged(class: &mut Check<'_, '_>, old: Option<&Value>, keys: &[&str]) {
    let Some(old) = old else { return };
    for key in keys {
        if !same(class.get(key), old.get(*key).unwrap_or(&Value::Null)) {
            class.forbidden(key, NOT_CHANGED.replace("FIELD", key));
        }
    }
}

fn parameters(class: &mut Check<'_, '_>) {
    if class.get("parameters").as_object().is_some_and(|map| map.contains_key("")) {
        let error = FieldError::invalid(class.at("parameters"), "", "field can not be empty.");
        class.push(error);
    }
}

pub struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, class: &mut Value) {
        class.fill("reclaimPolicy", "Delete");
        class.fill("volumeBindingMode", "Immediate");
    }

    /// Rule: `ValidateStorageClass`: once made, what volumes are made of stays.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |class| {
            if !class.need("provisioner", "").is_empty() {
                class.follow("provisioner", qualified_name(&class.text("provisioner").to_lowercase()));
            }
            parameters(class);
            class.one_of("reclaimPolicy", &["Delete", "Retain"]);
            class.one_of("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
            class.each("allowedTopologies", |term| {
                term.each("matchLabelExpressions", |expression| {
                    expression.follow("key", qualified_name(expression.text("key")));
                    if expression.list("values").is_empty() {
                        expression.required("values", "");
                    }
                });
            });
            unchanged(class, old, &["parameters", "provisioner", "reclaimPolicy"]);
            if let Some(old) = old {
                class.immutable("volumeBindingMode", old);
            }
        })
    }
}

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |class| {
            class.need("driverName", "");
            if class.get("parameters").as_object().is_none_or(serde_json::Map::is_empty) {
                class.required("parameters", "must contain at least one key/value pair");
            }
            parameters(class);
            unchanged(class, old, &["driverName", "parameters"]);
        })
    }
}

pub struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, driver: &mut Value) {
        let spec = driver.open("spec");
        spec.fill("attachRequired", true);
        spec.fill("podInfoOnMount", false);
        spec.fill("storageCapacity", false);
        spec.fill("fsGroupPolicy", "ReadWriteOnceWithFSType");
        spec.fill("requiresRepublish", false);
        spec.fill("seLinuxMount", false);
        if spec.array_at("/volumeLifecycleModes").is_empty() {
            spec.put("volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
                if !spec.has(field) {
                    spec.required(field, "");
                }
            }
            spec.maybe_one_of("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
            spec.each("volumeLifecycleModes", |mode| {
                let name = mode.value.as_str().unwrap_or_default();
                if !["Ephemeral", "Persistent"].contains(&name) {
                    mode.push(FieldError::not_supported(&mode.path, name, &["Persistent", "Ephemeral"]));
                }
            });
            spec.each("tokenRequests", |request| match request.int("expirationSeconds") {
                Some(seconds) if seconds < 600 => {
                    request.invalid("expirationSeconds", "may not specify a duration less than 10 minutes");
                }
                Some(seconds) if seconds > 1 << 32 => {
                    request
                        .invalid("expirationSeconds", "may not specify a duration larger than 2^32 seconds");
                }
                _ => {}
            });
            if let Some(old) = old {
                for field in ["attachRequired", "volumeLifecycleModes"] {
                    spec.immutable(field, &old["spec"]);
                }
            }
        })
    }

    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }
}

pub struct CsiNode;

impl Strategy for CsiNode {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            let mut seen = std::collections::BTreeSet::new();
            let before = old.map(|old| old.array_at("/spec/drivers")).unwrap_or_default();
            spec.each("drivers", |driver| {
                csi_driver(driver, "name");
                let name = driver.text("name");
                if !seen.insert(name) {
                    driver.duplicate("name");
                }
                driver.need("nodeID", "");
                if driver.text("nodeID").len() > 192 {
                    driver.invalid("nodeID", "must be 192 characters or less");
                }
                driver.each("topologyKeys", |key| {
                    key.follow_here(qualified_name(key.value.as_str().unwrap_or_default()));
                });
                let same_driver = before.iter().find(|old| old.text("name") == Some(name));
                let bare = |driver: &Value| [driver["nodeID"].clone(), driver["topologyKeys"].clone()];
                if same_driver.is_some_and(|old| bare(old) != bare(driver.value)) {
                    driver.push(FieldError::invalid("CSINodeDriver", driver.value.clone(), IMMUTABLE));
                }
            });
        })
    }
}

pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |capacity| {
            label_selector(capacity, "nodeTopology");
            capacity.need_named("storageClassName", dns1123_subdomain);
            for key in ["capacity", "maximumVolumeSize"] {
                if Quantity::from_value(capacity.get(key)).is_ok_and(|amount| amount.sign() < 0) {
                    capacity.invalid(key, crate::validate::NOT_NEGATIVE);
                }
            }
            if let Some(old) = old {
                capacity.immutable("nodeTopology", old);
                capacity.immutable("storageClassName", old);
            }
        })
    }
}

pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = check(new, "spec", |spec| {
            if !spec.need("attacher", "").is_empty() {
                csi_driver(spec, "attacher");
            }
            let mut source = spec.child("source");
            match (source.has("inlineVolumeSpec"), source.has("persistentVolumeName")) {
                (false, false) => {
                    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                    source.push(FieldError::required(&source.path, why));
                }
                (true, true) => {
                    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                    source.push(FieldError::forbidden(&source.path, why));
                }
                (false, true) => {
                    source.need("persistentVolumeName", "must specify non empty persistentVolumeName");
                }
                (true, false) => {}
            }
            spec.follow("nodeName", dns1123_subdomain(spec.text("nodeName")));
        });
        if old.is_some_and(|old| !same(&old["spec"], &new["spec"])) {
            errors.push(FieldError::invalid("spec", new["spec"].clone(), IMMUTABLE));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(strategy: &dyn Strategy, new: Value, old: Option<Value>, expect: &[&str]) {
        let full = |mut object: Value| {
            strategy.default(&mut object);
            object
        };
        let errors = strategy.validate(&full(new), old.map(full).as_ref());
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn classes() {
        check(&StorageClass, json!({"provisioner": "a.io/b"}), None, &[]);
        check(&StorageClass, json!({}), None, &["provisioner: Required value"]);
        check(
            &StorageClass,
            json!({"provisioner": "a", "reclaimPolicy": "Odd"}),
            None,
            &["reclaimPolicy: Unsupported value: \"Odd\": supported values: \"Delete\", \"Retain\""],
        );
        check(
            &StorageClass,
            json!({"provisioner": "a", "volumeBindingMode": "Odd"}),
            None,
            &[
                "volumeBindingMode: Unsupported value: \"Odd\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ],
        );
        check(
            &StorageClass,
            json!({"provisioner": "a", "parameters": {"x": "1"}}),
            Some(json!({"provisioner": "b"})),
            &[
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
            ],
        );
        check(
            &VolumeAttributesClass,
            json!({"driverName": "d"}),
            None,
            &["parameters: Required value: must contain at least one key/value pair"],
        );
    }

    #[test]
    fn drivers_and_attachments() {
        check(&CsiDriver, json!({}), None, &[]);
        check(
            &CsiDriver,
            json!({"spec": {"fsGroupPolicy": "Odd"}}),
            None,
            &[
                "spec.fsGroupPolicy: Unsupported value: \"Odd\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            ],
        );
        check(
            &CsiDriver,
            json!({"spec": {"attachRequired": false}}),
            Some(json!({})),
            &["spec.attachRequired: Invalid value: false: field is immutable"],
        );
        check(
            &CsiNode,
            json!({"spec": {"drivers": [{"name": "d"}]}}),
            None,
            &["spec.drivers[0].nodeID: Required value"],
        );
        check(
            &VolumeAttachment,
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {}}}),
            None,
            &[
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ],
        );
        check(&CsiStorageCapacity, json!({}), None, &["storageClassName: Required value"]);
    }
}
