//! What is particular to CronJobs.

use serde_json::Value;

use super::job::{default_job_template, validate_job};
use crate::cron::{self, Schedule};
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, check};

const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];
/// A Job of a CronJob is called after it and its time, which takes eleven characters of 63.
const LONGEST_NAME: usize = 52;

pub struct CronJob;

impl Strategy for CronJob {
    /// Rule: `SetDefaults_CronJob`.
    fn default(&self, cron: &mut Value) {
        let spec = cron.open("spec");
        spec.fill_text("concurrencyPolicy", "Allow");
        spec.fill("suspend", false);
        spec.fill("successfulJobsHistoryLimit", 3);
        spec.fill("failedJobsHistoryLimit", 1);
        // The Job's own defaults are filled in when the Job is made; the template's Pods now.
        spec.within("jobTemplate", |job| job.within("spec", default_job_template));
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = check(new, "spec", |spec| {
            schedule(spec, old);
            spec.not_negative(&[
                "startingDeadlineSeconds",
                "successfulJobsHistoryLimit",
                "failedJobsHistoryLimit",
            ]);
            spec.need_one_of("concurrencyPolicy", POLICIES, "");
            let mut template = spec.child("jobTemplate");
            let mut job = template.child("spec");
            validate_job(&mut job);
            if job.has("selector") {
                job.invalid("selector", "`selector` will be auto-generated");
            }
            if job.flag("manualSelector") {
                let at = job.at("manualSelector");
                job.push(FieldError::not_supported(at, true, &["nil", "false"]));
            }
        });
        if old.is_none() && new.name().len() > LONGEST_NAME {
            let why = format!("must be no more than {LONGEST_NAME} characters");
            errors.push(FieldError::invalid("metadata.name", new.name(), why));
        }
        errors
    }
}

fn schedule(spec: &mut Check<'_, '_>, old: Option<&Value>) {
    let text = spec.need("schedule", "");
    if text.contains("TZ") && old.is_none_or(|old| old.str_at("/spec/schedule") != Some(text)) {
        spec.invalid("schedule", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Some(Err(error)) = (!text.is_empty()).then(|| Schedule::parse(text)) {
        spec.invalid("schedule", error.to_string());
    }
    if !spec.has("timeZone") {
        return;
    }
    let zone = spec.text("timeZone");
    let readable = |part: &str| {
        (1..=14).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if zone.is_empty() {
        spec.invalid("timeZone", "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        spec.invalid("timeZone", why);
    } else if !zone.split('/').all(readable) || cron::zone(zone).is_none() {
        spec.invalid("timeZone", format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: Value, expect: &[&str]) {
        let shown = spec.to_string();
        let mut cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "0 * * * *", "jobTemplate": {
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
        json_patch::merge(&mut cron, &json!({"spec": spec}));
        CronJob.default(&mut cron);
        let errors = CronJob.validate(&cron, None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }

    #[test]
    fn says_what_is_wrong() {
        check(json!({}), &[]);
        check(json!({"schedule": ""}), &["spec.schedule: Required value"]);
        check(
            json!({"schedule": "error"}),
            &["spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]"],
        );
        check(
            json!({"schedule": "TZ=UTC 0 * * * *"}),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        );
        check(json!({"timeZone": "Europe/Zurich"}), &[]);
        check(
            json!({"timeZone": "Nowhere/Land"}),
            &["spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone Nowhere/Land"],
        );
        check(
            json!({"timeZone": ""}),
            &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
        );
        check(
            json!({"timeZone": "LOCAL"}),
            &[
                "spec.timeZone: Invalid value: \"LOCAL\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ],
        );
        check(
            json!({"concurrencyPolicy": "Odd"}),
            &[
                "spec.concurrencyPolicy: Unsupported value: \"Odd\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        );
        check(
            json!({"startingDeadlineSeconds": -1, "failedJobsHistoryLimit": -1}),
            &[
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            json!({"jobTemplate": {"spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}}}),
            &[
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ],
        );
        check(
            json!({"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}}),
            &[
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ],
        );
    }

    #[test]
    fn names_leave_room_for_the_time() {
        let name = "a".repeat(53);
        let cron = json!({"metadata": {"name": name}, "spec": {}});
        let errors = CronJob.validate(&cron, None);
        assert!(errors.iter().any(|error| error.detail == "must be no more than 52 characters"));
    }
}
