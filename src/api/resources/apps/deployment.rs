//! What is particular to Deployments.

use serde_json::Value;

use super::workload;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::core::default_template;
use crate::resources::descriptor::keep_meta;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, amount, check, is_zero_amount};

pub struct Deployment;

impl Strategy for Deployment {
    /// Rule: `deploymentStatusStrategy` keeps the labels.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_meta(new, old, "labels");
    }

    /// Rule: its revision and what pauses it stand in annotations, so those count, too.
    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        ["/spec", "/metadata/annotations"].iter().any(|member| new.pointer(member) != old.pointer(member))
    }

    /// Rule: `SetDefaults_Deployment` of apps/v1.
    fn default(&self, deployment: &mut Value) {
        let spec = deployment.open("spec");
        spec.fill("replicas", 1);
        spec.fill("revisionHistoryLimit", 10);
        spec.fill("progressDeadlineSeconds", 600);
        let strategy = spec.open("strategy");
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == Some("RollingUpdate") {
            let rolling = strategy.open("rollingUpdate");
            rolling.fill("maxUnavailable", "25%");
            rolling.fill("maxSurge", "25%");
        }
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            spec.not_negative(&["replicas", "minReadySeconds", "revisionHistoryLimit"]);
            workload::selector(spec, "deployment");
            workload::selector_matches(spec);
            workload::fixed_selector(spec, old);
            workload::always_template(spec, "ReplicaSet");
            strategy(&mut spec.child("strategy"));
            if let Some(deadline) = spec.int("progressDeadlineSeconds") {
                spec.not_negative(&["progressDeadlineSeconds"]);
                if deadline <= spec.int("minReadySeconds").unwrap_or(0) {
                    spec.invalid("progressDeadlineSeconds", "must be greater than minReadySeconds");
                }
            }
        })
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
            workload::counts(status, &["unavailableReplicas", "terminatingReplicas"], &parts);
            workload::collisions(status, old);
        })
    }
}

/// Rule: `ValidateDeploymentStrategy`.
fn strategy(strategy: &mut Check<'_, '_>) {
    match strategy.text("type") {
        "RollingUpdate" => strategy.within("rollingUpdate", |rolling| {
            amount(rolling, "maxUnavailable", true);
            amount(rolling, "maxSurge", false);
            if is_zero_amount(rolling.get("maxUnavailable")) && is_zero_amount(rolling.get("maxSurge")) {
                rolling.invalid("maxUnavailable", "may not be 0 when `maxSurge` is 0");
            }
        }),
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                strategy.forbidden("rollingUpdate", why);
            }
        }
        _ => {
            let (at, shown) = (strategy.path.clone(), strategy.value.clone());
            strategy.push(FieldError::not_supported(at, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::workload::tests::{check, workload};
    use super::*;

    #[test]
    fn defaults_of_a_deployment() {
        let spec = &workload(&Deployment, json!({}))["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(spec["template"]["spec"].get("enableServiceLinks"), None);
    }

    #[test]
    fn selector_and_template_must_agree() {
        check(&Deployment, json!({}), None, &[]);
        check(
            &Deployment,
            json!({"spec": {"template": {"metadata": {"labels": {"app": "b"}}}}}),
            None,
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
        check(&Deployment, json!({"spec": {"selector": null}}), None, &["spec.selector: Required value"]);
        check(
            &Deployment,
            json!({"spec": {"selector": {"matchLabels": null}}}),
            None,
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        check(
            &Deployment,
            json!({"spec": {"selector": {"matchLabels": {"app": "b"}}, "template": {"metadata": {"labels": {"app": "b"}}}}}),
            Some(json!({})),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"],
        );
    }

    #[test]
    fn strategies_are_checked() {
        check(
            &Deployment,
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
            None,
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            &Deployment,
            json!({"spec": {"replicas": -1}}),
            None,
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            &Deployment,
            json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "120%", "maxSurge": -1}}}}),
            None,
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"120%\": must not be greater than 100%",
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            &Deployment,
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
            None,
            &[
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        );
        check(
            &Deployment,
            json!({"spec": {"strategy": {"type": "Odd"}}}),
            None,
            &[
                "spec.strategy: Unsupported value: {\"type\":\"Odd\"}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        );
        check(
            &Deployment,
            json!({"spec": {"progressDeadlineSeconds": 5, "minReadySeconds": 5}}),
            None,
            &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn templates_run_for_ever() {
        check(
            &Deployment,
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 3}}}}),
            None,
            &[
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ],
        );
    }

    #[test]
    fn counts_of_a_status_agree() {
        let status = |status: Value| {
            let errors = Deployment
                .validate_status(&json!({"status": status}), &json!({"status": {"collisionCount": 2}}));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            status(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1, "collisionCount": 2})),
            [""; 0]
        );
        assert_eq!(
            status(json!({"replicas": 1, "readyReplicas": 2, "collisionCount": 1})),
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 1: cannot be decremented",
            ]
        );
    }
}
