//! What is particular to StatefulSets.

use serde_json::{Value, json};

use super::workload;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::core::{default_claim, default_template, validate_claim_template, validate_template};
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, amount, check, dns1123_label, is_zero_amount, same};

pub struct StatefulSet;

impl Strategy for StatefulSet {
    /// Rule: `SetDefaults_StatefulSet`.
    fn default(&self, set: &mut Value) {
        let spec = set.open("spec");
        spec.fill_text("podManagementPolicy", "OrderedReady");
        spec.fill("replicas", 1);
        spec.fill("revisionHistoryLimit", 10);
        let strategy = spec.open("updateStrategy");
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == Some("RollingUpdate") {
            strategy.open("rollingUpdate").fill("partition", 0);
        }
        let retention = spec.open("persistentVolumeClaimRetentionPolicy");
        retention.fill_text("whenDeleted", "Retain");
        retention.fill_text("whenScaled", "Retain");
        spec.each("volumeClaimTemplates", |claim| {
            claim.put("apiVersion", "v1");
            claim.put("kind", "PersistentVolumeClaim");
            default_claim(claim);
            claim.open("status").fill_text("phase", "Pending");
        });
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = check(new, "spec", |spec| {
            match spec.text("podManagementPolicy") {
                "" => spec.required("podManagementPolicy", ""),
                "OrderedReady" | "Parallel" => {}
                _ => spec.invalid("podManagementPolicy", "must be 'OrderedReady' or 'Parallel'"),
            }
            strategy(spec);
            spec.within("persistentVolumeClaimRetentionPolicy", |policy| {
                policy.one_of("whenDeleted", &["Retain", "Delete"]);
                policy.one_of("whenScaled", &["Retain", "Delete"]);
            });
            spec.not_negative(&["replicas", "minReadySeconds", "revisionHistoryLimit"]);
            spec.within("ordinals", |ordinals| ordinals.not_negative(&["start"]));
            spec.named("serviceName", dns1123_label);
            workload::selector(spec, "statefulset");
            workload::selector_matches(spec);
            template(spec);
            spec.each("volumeClaimTemplates", |claim| {
                let errors = validate_claim_template(claim.value, &claim.path);
                claim.extend(errors);
            });
        });
        if old.is_some_and(|old| !same(&fixed(&new["spec"]), &fixed(&old["spec"]))) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                       'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                       'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden("spec", why));
        }
        errors
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            workload::counts(status, &[], &parts);
            workload::collisions(status, old);
        })
    }
}

/// The spec without what an update may change.
fn fixed(spec: &Value) -> Value {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let members = spec.as_object().into_iter().flatten();
    members
        .filter(|(key, _)| !FREE.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn strategy(spec: &mut Check<'_, '_>) {
    let mut strategy = spec.child("updateStrategy");
    match strategy.text("type") {
        "" => spec.required("updateStrategy", ""),
        "OnDelete" => {
            if strategy.has("rollingUpdate") {
                strategy.invalid("rollingUpdate", "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => strategy.within("rollingUpdate", |rolling| {
            rolling.not_negative(&["partition"]);
            amount(rolling, "maxUnavailable", true);
            if is_zero_amount(rolling.get("maxUnavailable")) {
                rolling.invalid("maxUnavailable", "cannot be 0");
            }
        }),
        _ => spec.invalid("updateStrategy", "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// The template's volumes are its own and those of the claim templates.
fn template(spec: &mut Check<'_, '_>) {
    let mut template = spec.get("template").clone();
    let claims = spec.list("volumeClaimTemplates");
    let volumes = claims
        .iter()
        .map(|claim| json!({"name": claim.name(), "persistentVolumeClaim": {"claimName": claim.name()}}));
    if template["spec"].is_object() && !claims.is_empty() {
        let own = template.array_at("/spec/volumes").iter();
        // A claim replaces the template's own volume of that name.
        let own = own.filter(|volume| !claims.iter().any(|claim| volume.text("name") == Some(claim.name())));
        let all: Vec<Value> = own.cloned().chain(volumes).collect();
        template["spec"].put("volumes", all);
    }
    let errors = validate_template(&template, &spec.at("template"));
    spec.extend(errors);
    workload::always(spec, "StatefulSet");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::apps::workload::tests::check;

    fn refused(spec: Value, expect: &[&str]) {
        check(&StatefulSet, json!({"spec": spec}), None, expect);
    }

    #[test]
    fn says_what_is_wrong() {
        refused(json!({"serviceName": "s"}), &[]);
        refused(
            json!({"serviceName": "S."}),
            &[
                "spec.serviceName: Invalid value: \"S.\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
        refused(
            json!({"podManagementPolicy": "Odd"}),
            &["spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'"],
        );
        refused(
            json!({"updateStrategy": {"type": "Odd"}}),
            &[
                "spec.updateStrategy: Invalid value: {\"type\":\"Odd\"}: must be 'RollingUpdate' or 'OnDelete'",
            ],
        );
        refused(
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
            &[
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        );
        refused(
            json!({"updateStrategy": {"rollingUpdate": {"partition": -1}}}),
            &[
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        refused(
            json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Odd"}}),
            &[
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Odd\": supported values: \"Retain\", \"Delete\"",
            ],
        );
        refused(
            json!({"ordinals": {"start": -1}, "replicas": -1}),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        refused(json!({"selector": null}), &["spec.selector: Required value"]);
        refused(
            json!({"template": {"spec": {"activeDeadlineSeconds": 1}}}),
            &[
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ],
        );
    }

    #[test]
    fn claims_are_volumes() {
        let mounted = json!({"template": {"spec": {"containers": [
            {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}});
        refused(
            mounted.clone(),
            &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
        );
        let mut with_claim = mounted;
        with_claim["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        refused(with_claim, &[]);
    }

    #[test]
    fn little_may_change() {
        let old = json!({"spec": {"serviceName": "s"}});
        check(
            &StatefulSet,
            json!({"spec": {"serviceName": "s", "replicas": 3, "revisionHistoryLimit": 1}}),
            Some(old.clone()),
            &[],
        );
        check(
            &StatefulSet,
            json!({"spec": {"serviceName": "t"}}),
            Some(old),
            &[
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ],
        );
    }
}
