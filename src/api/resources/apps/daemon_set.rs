//! What is particular to DaemonSets.

use serde_json::{Value, json};

use super::workload;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::core::default_template;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, amount, check, is_empty_selector, is_zero_amount, label_selector, same,
};

/// Where `apps/v1` keeps the count of template changes that older versions had a field for.
const GENERATION: &str = "deprecated.daemonset.template.generation";

pub struct DaemonSet;

impl Strategy for DaemonSet {
    /// Rule: `SetDefaults_DaemonSet` of apps/v1.
    fn default(&self, set: &mut Value) {
        let spec = set.open("spec");
        spec.fill("revisionHistoryLimit", 10);
        let strategy = spec.open("updateStrategy");
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == Some("RollingUpdate") {
            let rolling = strategy.open("rollingUpdate");
            rolling.fill("maxUnavailable", 1);
            rolling.fill("maxSurge", 0);
        }
        default_template(spec, "template");
    }

    fn prepare_create(&self, set: &mut Value) {
        set.set_annotation(GENERATION, "1");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let before: i64 = old.annotation(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(1);
        let changed = !same(&new["spec"]["template"], &old["spec"]["template"]);
        new.set_annotation(GENERATION, &(before + i64::from(changed)).to_string());
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        // Upstream keeps the count in the spec, which a status update does not touch.
        if let Some(count) = old.annotation(GENERATION).map(str::to_owned) {
            new.set_annotation(GENERATION, &count);
        }
    }

    /// Rule: `ValidateDaemonSetSpec`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            spec.not_negative(&["minReadySeconds", "revisionHistoryLimit"]);
            if !spec.has("selector") {
                spec.required("selector", "");
            }
            label_selector(spec, "selector");
            if spec.has("selector") && is_empty_selector(spec.get("selector")) {
                let why = "empty selector is invalid for daemonset";
                spec.push(FieldError::invalid(spec.at("selector"), json!({}), why));
            }
            workload::selector_matches(spec);
            workload::fixed_selector(spec, old);
            workload::always_template(spec, "DaemonSet");
            strategy(&mut spec.child("updateStrategy"));
        })
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            status.not_negative(&[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ]);
            workload::collisions(status, old);
        })
    }
}

/// Rule: `ValidateDaemonSetUpdateStrategy`.
fn strategy(strategy: &mut Check<'_, '_>) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if !strategy.has("rollingUpdate") => strategy.required("rollingUpdate", ""),
        "RollingUpdate" => strategy.within("rollingUpdate", |rolling| {
            amount(rolling, "maxUnavailable", true);
            amount(rolling, "maxSurge", true);
            let some = |key: &str| rolling.has(key) && !is_zero_amount(rolling.get(key));
            match (some("maxUnavailable"), some("maxSurge")) {
                (true, true) => rolling.invalid("maxSurge", "may not be set when maxUnavailable is non-zero"),
                (false, false) => rolling.required("maxUnavailable", "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }),
        _ => {
            let (at, shown) = (strategy.path.clone(), strategy.value.clone());
            strategy.push(FieldError::not_supported(at, shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::apps::workload::tests::{check, workload};

    #[test]
    fn says_what_is_wrong() {
        check(&DaemonSet, json!({}), None, &[]);
        check(&DaemonSet, json!({"spec": {"selector": null}}), None, &["spec.selector: Required value"]);
        let rolling = |rolling: Value| json!({"spec": {"updateStrategy": {"rollingUpdate": rolling}}});
        let at = "spec.updateStrategy.rollingUpdate";
        check(
            &DaemonSet,
            rolling(json!({"maxUnavailable": 0})),
            None,
            &[&format!("{at}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0")],
        );
        check(
            &DaemonSet,
            rolling(json!({"maxSurge": "10%"})),
            None,
            &[&format!(
                "{at}.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero"
            )],
        );
        check(
            &DaemonSet,
            rolling(json!({"maxUnavailable": "101%"})),
            None,
            &[&format!("{at}.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%")],
        );
        check(
            &DaemonSet,
            json!({"spec": {"updateStrategy": {"type": "Odd"}}}),
            None,
            &[
                "spec.updateStrategy: Unsupported value: {\"type\":\"Odd\"}: supported values: \"RollingUpdate\", \"OnDelete\"",
            ],
        );
        check(
            &DaemonSet,
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}, "minReadySeconds": -1}}),
            None,
            &[
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        );
    }

    #[test]
    fn counts_changes_of_the_template() {
        let mut old = workload(&DaemonSet, json!({}));
        DaemonSet.prepare_create(&mut old);
        assert_eq!(old.annotation(GENERATION), Some("1"));
        let mut new = old.clone();
        new["spec"]["minReadySeconds"] = json!(3);
        DaemonSet.prepare_update(&mut new, &old);
        assert_eq!(new.annotation(GENERATION), Some("1"));
        new["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        DaemonSet.prepare_update(&mut new, &old);
        assert_eq!(new.annotation(GENERATION), Some("2"));
    }
}
