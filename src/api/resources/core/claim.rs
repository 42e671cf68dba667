//! What is particular to PersistentVolumeClaims.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::quantity::Quantity;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, IMMUTABLE, NameRule, Path, check, check_at, dns1123_subdomain, label_selector,
    object_meta, same,
};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// PersistentVolumeClaims.
pub struct Claim;

/// Rule: `SetDefaults_PersistentVolumeClaim` and `SetDefaults_PersistentVolumeClaimSpec`.
pub fn default_claim(claim: &mut Value) {
    claim.open("spec").fill("volumeMode", "Filesystem");
}

impl Strategy for Claim {
    fn default(&self, claim: &mut Value) {
        default_claim(claim);
        align_sources(claim);
    }

    fn checks_prefix(&self) -> bool {
        true
    }

    fn prepare_create(&self, claim: &mut Value) {
        claim.put("status", json!({"phase": "Pending"}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // A client that knows only one of the two fields keeps the other.
        for field in ["dataSource", "dataSourceRef"] {
            if old["spec"].has(field) && !new["spec"].has(field) {
                let both = ["dataSource", "dataSourceRef"].iter().all(|field| old["spec"].has(field));
                if both {
                    new.open("spec").put(field, old["spec"][field].clone());
                }
            }
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate_claim_spec(&new["spec"], &Path::new("spec"));
        if let Some(old) = old {
            update(new, old, &mut errors);
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            status.each_key("capacity", |amount, _| match Quantity::from_value(amount.value) {
                Ok(number) if number.sign() < 0 => {
                    let whole = number.value();
                    amount.push(FieldError::invalid(
                        &amount.path,
                        whole,
                        "must be a valid resource quantity",
                    ));
                }
                Ok(_) => {}
                Err(error) => amount.wrong(error.to_string()),
            });
        })
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        fractional_bytes(new, "/spec/resources/requests/storage", "spec.resources.requests[storage]")
    }
}

/// `dataSource` is the older name of a `dataSourceRef` in the claim's own namespace.
fn align_sources(claim: &mut Value) {
    let Some(spec) = claim.get_mut("spec") else { return };
    if spec.has("dataSource") && !spec.has("dataSourceRef") {
        let source = spec["dataSource"].clone();
        spec.put("dataSourceRef", source);
    } else if spec.has("dataSourceRef") && !spec.has("dataSource") {
        let source = spec["dataSourceRef"].clone();
        let known = match source.text("kind") {
            Some("PersistentVolumeClaim") => source.text("apiGroup").unwrap_or_default().is_empty(),
            Some("VolumeSnapshot") => source.text("apiGroup") == Some("snapshot.storage.k8s.io"),
            _ => false,
        };
        if known && source.text("namespace").unwrap_or_default().is_empty() {
            spec.put("dataSource", source);
        }
    }
}

/// The warning about sizes that are no whole number of bytes.
pub fn fractional_bytes(object: &Value, pointer: &str, field: &str) -> Vec<String> {
    let Some(value) = object.pointer(pointer) else { return Vec::new() };
    match Quantity::from_value(value) {
        Ok(amount) if !amount.is_whole() => {
            vec![format!(
                "{field}: fractional byte value {:?} is invalid, must be an integer",
                value.as_str().unwrap_or_default()
            )]
        }
        _ => Vec::new(),
    }
}

/// An amount, not negative; if `positive` says so, more than nothing.
pub fn quantity(amount: &mut Check<'_, '_>, positive: bool) {
    match Quantity::from_value(amount.value) {
        Ok(number) if positive && number.sign() <= 0 => {
            amount.push(FieldError::invalid(&amount.path, number.to_string(), "must be greater than zero"));
        }
        Ok(number) if number.sign() < 0 => {
            amount.push(FieldError::invalid(&amount.path, number.to_string(), crate::validate::NOT_NEGATIVE));
        }
        Ok(_) => {}
        Err(error) => amount.wrong(error.to_string()),
    }
}

/// The ways in which a volume may be mounted: at least one, and one alone if only one Pod may have it.
pub fn access_modes(spec: &mut Check<'_, '_>, missing: &str) {
    let modes = spec.list("accessModes");
    if modes.is_empty() {
        spec.required("accessModes", missing);
    }
    let at = spec.at("accessModes");
    for mode in modes.iter().filter(|mode| !MODES.contains(&mode.as_str().unwrap_or_default())) {
        spec.push(FieldError::not_supported(&at, mode.clone(), MODES));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        spec.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes");
    }
}

/// Rule: `ValidatePersistentVolumeClaimSpec`.
pub fn validate_claim_spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    check_at(spec, path, |spec| {
        label_selector(spec, "selector");
        access_modes(spec, "at least 1 access mode is required");
        let storage = spec.at("resources").key("storage");
        match spec.value.pointer("/resources/requests/storage") {
            None => spec.push(FieldError::required(storage, "")),
            Some(value) => {
                let errors = check_at(value, &storage, |amount| quantity(amount, true));
                spec.extend(errors);
            }
        }
        spec.named("storageClassName", dns1123_subdomain);
        spec.maybe_one_of("volumeMode", &["Block", "Filesystem"]);
        for field in ["dataSource", "dataSourceRef"] {
            spec.within(field, |source| {
                source.need("name", "");
                source.need("kind", "");
                let core = source.text("apiGroup").is_empty();
                if core && source.text("kind") != "PersistentVolumeClaim" && !source.text("kind").is_empty() {
                    let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
                    source.push(FieldError::invalid(&source.path, source.text("kind"), why));
                }
            });
        }
        let both = spec.has("dataSource") && spec.has("dataSourceRef");
        let reference = spec.get("dataSourceRef");
        if both
            && reference.text("namespace").unwrap_or_default().is_empty()
            && !same(spec.get("dataSource"), reference)
        {
            spec.invalid("dataSource", "must match dataSourceRef");
        }
        spec.named("volumeAttributesClassName", dns1123_subdomain);
    })
}

/// A claim that a StatefulSet makes for each of its Pods.
pub fn validate_claim_template(claim: &Value, path: &Path) -> Vec<FieldError> {
    let mut probe = claim.clone();
    probe.meta_mut().insert("namespace".into(), "default".into());
    let within = |mut error: FieldError| {
        error.field = format!("{path}.{}", error.field);
        error
    };
    let mut errors: Vec<FieldError> =
        object_meta(&probe, true, NameRule::Subdomain).into_iter().map(within).collect();
    errors.extend(validate_claim_spec(&claim["spec"], &path.child("spec")));
    errors
}

/// Rule: `ValidatePersistentVolumeClaimUpdate`: what is bound may only grow.
fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut before = old["spec"].clone();
    let now = &new["spec"];
    // The controller that binds says the volume, and who finds a class says it once.
    for field in ["volumeName", "storageClassName"] {
        if before.text(field).is_none_or(str::is_empty) && now.has(field) {
            before.put(field, now[field].clone());
        }
    }
    if old.str_at("/status/phase") == Some("Bound") {
        if let Some(wanted) = now.pointer("/resources/requests/storage") {
            before.open("resources").open("requests").put("storage", wanted.clone());
        }
        if now.has("volumeAttributesClassName") {
            before.put("volumeAttributesClassName", now["volumeAttributesClassName"].clone());
        }
    }
    if !same(&before, now) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", why));
    }
    // A claim may shrink to what it has: that takes back a growth which did not work.
    let size = |object: &Value, pointer: &str| {
        let found = object.pointer(pointer).and_then(|value| Quantity::from_value(value).ok());
        found.unwrap_or_else(|| Quantity::from_units(0))
    };
    let (was, is) =
        (size(old, "/spec/resources/requests/storage"), size(new, "/spec/resources/requests/storage"));
    if is < was && is <= size(old, "/status/capacity/storage") {
        let at = "spec.resources.requests.storage";
        errors.push(FieldError::forbidden(at, "field can not be less than status.capacity"));
    }
    if now["volumeMode"] != old["spec"]["volumeMode"] {
        // Upstream names the place so.
        errors.push(FieldError::invalid("volumeMode", now["volumeMode"].clone(), IMMUTABLE));
    }
    let class = now.text("volumeAttributesClassName");
    if old["spec"].has("volumeAttributesClassName") && class.is_none_or(str::is_empty) {
        let what = if class.is_none() { "nil" } else { "an empty string" };
        let why = format!("update from non-nil value to {what} is forbidden");
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(spec: Value) -> Value {
        let mut claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        json_patch::merge(&mut claim, &json!({"spec": spec}));
        Claim.default(&mut claim);
        claim
    }

    fn check(spec: Value, expect: &[&str]) {
        let shown = spec.to_string();
        let errors = Claim.validate(&claim(spec), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }

    #[test]
    fn says_what_is_wrong() {
        check(json!({}), &[]);
        check(
            json!({"accessModes": null}),
            &["spec.accessModes: Required value: at least 1 access mode is required"],
        );
        check(
            json!({"accessModes": ["Odd"]}),
            &[
                "spec.accessModes: Unsupported value: \"Odd\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ],
        );
        check(
            json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]}),
            &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        );
        check(json!({"resources": null}), &["spec.resources[storage]: Required value"]);
        check(
            json!({"resources": {"requests": {"storage": "0"}}}),
            &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
        );
        check(
            json!({"volumeMode": "Odd"}),
            &["spec.volumeMode: Unsupported value: \"Odd\": supported values: \"Block\", \"Filesystem\""],
        );
        check(
            json!({"dataSource": {"kind": "Pod", "name": "p"}}),
            &[
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                "spec.dataSourceRef: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ],
        );
    }

    #[test]
    fn a_bound_claim_may_only_grow() {
        let sized = |size: &str, phase: &str| {
            let mut claim = claim(json!({"resources": {"requests": {"storage": size}}}));
            claim["status"] = json!({"phase": phase, "capacity": {"storage": "2Gi"}});
            claim
        };
        let fields = |new: Value, old: Value| -> Vec<String> {
            Claim.validate(&new, Some(&old)).into_iter().map(|error| error.field).collect()
        };
        assert_eq!(fields(sized("3Gi", "Bound"), sized("2Gi", "Bound")), [""; 0]);
        assert_eq!(fields(sized("1Gi", "Bound"), sized("2Gi", "Bound")), ["spec.resources.requests.storage"]);
        assert_eq!(fields(sized("3Gi", "Pending"), sized("2Gi", "Pending")), ["spec"]);
    }
}
