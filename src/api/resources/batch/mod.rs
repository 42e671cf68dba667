//! Jobs and CronJobs.

use serde_json::{Value, json};

use super::Strategy;
use super::core::{default_template, validate_template};
use super::fill::Fill;
use crate::api::meta::ObjectExt;
use crate::api::validate::{FieldError, Path};

const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

pub struct Job;

/// Rule: `SetDefaults_Job`.
fn default_job(spec: &mut Value) {
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.put("completions", 1);
    }
    spec.fill("parallelism", 1);
    let per_index = spec.has("backoffLimitPerIndex");
    spec.fill("backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    spec.fill_text("completionMode", "NonIndexed");
    spec.fill("suspend", false);
    spec.fill("manualSelector", false);
    let by_policy = spec.has("podFailurePolicy");
    spec.fill_text("podReplacementPolicy", if by_policy { "Failed" } else { "TerminatingOrFailed" });
    default_template(spec, "template");
}

impl Strategy for Job {
    fn default(&self, job: &mut Value) {
        default_job(job.open("spec"));
    }

    /// Rule: `jobStrategy.PrepareForCreate`: unless told otherwise, a Job selects its own Pods by its uid.
    fn prepare_create(&self, job: &mut Value) {
        if job.bool_at("/spec/manualSelector") == Some(true) {
            return;
        }
        let (uid, name) = (job.uid().to_owned(), job.name().to_owned());
        let spec = job.open("spec");
        spec.open("selector").open("matchLabels").put(UID_LABELS[0], uid.as_str());
        let labels = spec.open("template").open("metadata").open("labels");
        for label in UID_LABELS {
            labels.put(label, uid.as_str());
        }
        for label in NAME_LABELS {
            labels.fill(label, name.as_str());
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate_job(&new["spec"], &Path::new("spec"));
        if let Some(old) = old {
            for field in ["completions", "selector", "template", "completionMode"] {
                let suspended = old.bool_at("/spec/suspend") == Some(true) && field == "template";
                if !suspended && new["spec"].get(field) != old["spec"].get(field) {
                    let at = Path::new("spec").child(field);
                    errors.push(FieldError::invalid(at, new["spec"][field].clone(), "field is immutable"));
                }
            }
        }
        errors
    }

    fn selectable_fields(&self, job: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", job.int_at("/status/succeeded").unwrap_or(0).to_string())]
    }
}

fn validate_job(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        if let Some(number) = spec.get(field).and_then(Value::as_i64).filter(|number| *number < 0) {
            errors.push(FieldError::invalid(path.child(field), number, "must be greater than or equal to 0"));
        }
    }
    let template = path.child("template");
    errors.extend(validate_template(spec.get("template").unwrap_or(&Value::Null), &template));
    let policy = spec.str_at("/template/spec/restartPolicy").unwrap_or_default();
    if !["OnFailure", "Never"].contains(&policy) {
        let at = template.child("spec").child("restartPolicy");
        errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\""));
    }
    errors
}

pub struct CronJob;

impl Strategy for CronJob {
    fn default(&self, cron: &mut Value) {
        let spec = cron.open("spec");
        spec.fill_text("concurrencyPolicy", "Allow");
        spec.fill("suspend", false);
        spec.fill("successfulJobsHistoryLimit", 3);
        spec.fill("failedJobsHistoryLimit", 1);
        // The Job's own defaults are filled in when the Job is made; the template's Pods now.
        spec.within("jobTemplate", |job| job.within("spec", |spec| default_template(spec, "template")));
    }

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];
        let path = Path::new("spec");
        let mut errors = Vec::new();
        if new.str_at("/spec/schedule").unwrap_or_default().is_empty() {
            errors.push(FieldError::required(path.child("schedule"), ""));
        }
        let policy = new.str_at("/spec/concurrencyPolicy").unwrap_or_default();
        if !POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(path.child("concurrencyPolicy"), policy, POLICIES));
        }
        let empty = json!({});
        let spec = new.pointer("/spec/jobTemplate/spec").unwrap_or(&empty);
        errors.extend(validate_job(spec, &path.child("jobTemplate").child("spec")));
        errors
    }
}
