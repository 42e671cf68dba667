//! What is particular to Jobs.

use serde_json::Value;

use super::failure_policy::{failure_policy, success_policy};
use super::job_update;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::core::{default_template, validate_template};
use crate::resources::fill::Fill;
use crate::selector::LabelSelector;
use crate::validate::{
    Check, FieldError, check, dns1123_label, domain_prefixed_path, is_readable_selector, label_selector,
};

const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const MODES: &[&str] = &["Indexed", "NonIndexed"];
const REPLACEMENTS: &[&str] = &["Failed", "TerminatingOrFailed"];
/// Rule: bounds of Jobs with an index per Pod.
const MOST_PARALLEL: i64 = 100_000;
const MOST_FAILED: i64 = 100_000;
/// From here on, a Job with a limit per index must say how many may fail.
const MANY: i64 = 100_000;
const MANY_FAILED: i64 = 10_000;

pub struct Job;

/// Rule: `SetDefaults_Job`.
fn default_job(spec: &mut Value) {
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.put("completions", 1);
    }
    spec.fill("parallelism", 1);
    let per_index = spec.has("backoffLimitPerIndex");
    spec.fill("backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    spec.fill("completionMode", "NonIndexed");
    spec.fill("suspend", false);
    spec.fill("manualSelector", false);
    let by_policy = spec.has("podFailurePolicy");
    spec.fill("podReplacementPolicy", if by_policy { "Failed" } else { "TerminatingOrFailed" });
    default_job_template(spec);
}

/// Defaults of what a Job's spec contains, in Jobs and in the templates of CronJobs.
pub fn default_job_template(spec: &mut Value) {
    spec.within("podFailurePolicy", |policy| {
        policy.each("rules", |rule| {
            rule.each("onPodConditions", |condition| condition.fill_text("status", "True"));
        });
    });
    default_template(spec, "template");
}

impl Strategy for Job {
    fn default(&self, job: &mut Value) {
        default_job(job.open("spec"));
        if let Some(labels) = job.pointer("/spec/template/metadata/labels").cloned()
            && job
                .pointer("/metadata/labels")
                .and_then(Value::as_object)
                .is_none_or(serde_json::Map::is_empty)
            && labels.as_object().is_some_and(|labels| !labels.is_empty())
        {
            job.open("metadata").put("labels", labels);
        }
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
        let mut errors = check(new, "spec", |spec| {
            generated_selector(spec, new);
            validate_job(spec);
            if !spec.has("selector") {
                spec.required("selector", "");
            }
            label_selector(spec, "selector");
            selects_its_pods(spec);
        });
        if let Some(old) = old {
            errors.extend(job_update::validate(new, old));
        } else if let Some(error) = pod_name(new) {
            errors.push(error);
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            status.not_negative(&["active", "succeeded", "failed", "ready", "terminating"]);
        })
    }

    fn selectable_fields(&self, job: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", job.int_at("/status/succeeded").unwrap_or(0).to_string())]
    }

    fn orphans_dependents(&self) -> bool {
        true
    }
}

/// Rule: `validateGeneratedSelector`: a Job whose selector is made for it has the labels it is made of.
fn generated_selector(spec: &mut Check<'_, '_>, job: &Value) {
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let at = spec.at("template").child("metadata").child("labels");
    let labels = spec.value.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
    let expected = UID_LABELS.iter().map(|label| (label, job.uid()));
    for (label, value) in expected.chain(NAME_LABELS.iter().map(|label| (label, job.name()))) {
        let why = format!("must be '{value}'");
        match labels.text(label) {
            None => spec.push(FieldError::required(at.key(label), &why)),
            Some(said) if said != value => spec.push(FieldError::invalid(at.key(label), labels.clone(), why)),
            Some(_) => {}
        }
    }
    let selector = LabelSelector::from_value(spec.get("selector"));
    let own = |key: &str| {
        let name = NAME_LABELS.contains(&key).then(|| job.name());
        name.or_else(|| UID_LABELS.contains(&key).then(|| job.uid()))
    };
    if is_readable_selector(spec.get("selector")) && !selector.is_ok_and(|selector| selector.matches(own)) {
        spec.invalid("selector", "`selector` not auto-generated");
    }
}

fn selects_its_pods(spec: &mut Check<'_, '_>) {
    let labels = spec.value.pointer("/template/metadata/labels");
    let Ok(selector) = LabelSelector::from_value(spec.get("selector")) else { return };
    if spec.has("selector") && !selector.matches(|key| labels?.get(key)?.as_str()) {
        let at = spec.at("template").child("metadata").child("labels");
        let shown = labels.cloned().unwrap_or_else(|| serde_json::json!({}));
        spec.push(FieldError::invalid(at, shown, "`selector` does not match template `labels`"));
    }
}

/// The longest name a Pod of an indexed Job gets must be a host name.
fn pod_name(job: &Value) -> Option<FieldError> {
    let completions = job.int_at("/spec/completions").filter(|count| *count > 0)?;
    if job.str_at("/spec/completionMode") != Some("Indexed") {
        return None;
    }
    let wrong = dns1123_label(&format!("{}-{}", job.name(), completions - 1)).into_iter().next()?;
    let why = format!("will not able to create pod with invalid DNS label: {wrong}");
    Some(FieldError::invalid("metadata.name", job.name(), why))
}

/// Rule: `validateJobSpec`.
pub fn validate_job(spec: &mut Check<'_, '_>) {
    spec.not_negative(&[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ]);
    if spec.has("managedBy") {
        spec.follow("managedBy", domain_prefixed_path(spec.text("managedBy")));
        if spec.text("managedBy").len() > 63 {
            spec.push(FieldError::too_long(spec.at("managedBy"), 63));
        }
    }
    spec.maybe_one_of("completionMode", MODES);
    if spec.text("completionMode") == "Indexed" {
        indexed(spec)
    } else {
        not_indexed(spec)
    }
    failure_policy(spec);
    success_policy(spec);
    spec.maybe_one_of("podReplacementPolicy", REPLACEMENTS);
    if spec.has("podFailurePolicy") && spec.text("podReplacementPolicy") == "TerminatingOrFailed" {
        let at = spec.at("podReplacementPolicy");
        spec.push(FieldError::not_supported(at, "TerminatingOrFailed", &["Failed"]));
    }
    let errors = validate_template(spec.get("template"), &spec.at("template"));
    spec.extend(errors);
    let mut template = spec.child("template");
    let mut pod = template.child("spec");
    match pod.text("restartPolicy") {
        "" | "Always" => pod.required("restartPolicy", "valid values: \"OnFailure\", \"Never\""),
        _ => pod.one_of("restartPolicy", &["OnFailure", "Never"]),
    }
}

fn indexed(spec: &mut Check<'_, '_>) {
    let Some(completions) = spec.int("completions") else {
        spec.required("completions", "when completion mode is Indexed");
        return;
    };
    let parallelism = spec.int("parallelism").unwrap_or(0);
    if parallelism > MOST_PARALLEL {
        let why = format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed");
        spec.invalid("parallelism", why);
    }
    let failed = spec.int("maxFailedIndexes");
    if let Some(failed) = failed {
        if failed > completions {
            let why = format!("must be less than or equal to completions ({completions})");
            spec.invalid("maxFailedIndexes", why.replace(&format!(" ({completions})"), ""));
        }
        if failed > MOST_FAILED {
            spec.invalid("maxFailedIndexes", format!("must be less than or equal to {MOST_FAILED}"));
        }
        if !spec.has("backoffLimitPerIndex") {
            spec.required("backoffLimitPerIndex", "when maxFailedIndexes is specified");
        }
    }
    if completions > MANY && spec.has("backoffLimitPerIndex") {
        match failed {
            None => spec.required("maxFailedIndexes", "must be specified when completions is above 100000"),
            Some(failed) if failed > MANY_FAILED => {
                let why = format!(
                    "must be less than or equal to {MANY_FAILED} when completions are above {MANY} and used with backoff limit per index"
                );
                spec.invalid("maxFailedIndexes", why);
            }
            Some(_) => {}
        }
        if parallelism > MANY_FAILED {
            let why = format!(
                "must be less than or equal to {MANY_FAILED} when completions are above {MANY} and used with backoff limit per index"
            );
            spec.invalid("parallelism", why);
        }
    }
}

fn not_indexed(spec: &mut Check<'_, '_>) {
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if spec.has(field) {
            spec.invalid(field, "requires indexed completion mode");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(spec: Value) -> Value {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        json_patch::merge(&mut job, &json!({"spec": spec}));
        Job.default(&mut job);
        Job.prepare_create(&mut job);
        job
    }

    fn check(spec: Value, expect: &[&str]) {
        let shown = spec.to_string();
        let errors = Job.validate(&job(spec), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }

    #[test]
    fn says_what_is_wrong() {
        check(json!({}), &[]);
        check(
            json!({"parallelism": -1}),
            &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({"template": {"spec": {"restartPolicy": "Always"}}}),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        );
        check(
            json!({"completionMode": "Odd"}),
            &[
                "spec.completionMode: Unsupported value: \"Odd\": supported values: \"Indexed\", \"NonIndexed\"",
            ],
        );
        check(
            json!({"completionMode": "Indexed", "parallelism": 1}),
            &["spec.completions: Required value: when completion mode is Indexed"],
        );
        check(
            json!({"backoffLimitPerIndex": 1}),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        );
        check(
            json!({"completionMode": "Indexed", "completions": 2, "maxFailedIndexes": 3}),
            &[
                "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            ],
        );
        check(
            json!({"successPolicy": {"rules": [{"succeededCount": 1}]}}),
            &[
                "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode",
            ],
        );
        check(
            json!({"managedBy": "nobody"}),
            &[
                "spec.managedBy: Invalid value: \"nobody\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ],
        );
    }

    #[test]
    fn failure_policies() {
        let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let at = "spec.podFailurePolicy.rules[0]";
        check(rule(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]})), &[]);
        check(
            rule(json!({"action": "Ignore"})),
            &[&format!("{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required")],
        );
        check(
            rule(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 1]}})),
            &[
                &format!(
                    "{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"
                ),
                &format!("{at}.onExitCodes.values: Invalid value: [2,1]: must be ordered"),
            ],
        );
        check(
            rule(
                json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0], "containerName": "x"}}),
            ),
            &[
                &format!(
                    "{at}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template"
                ),
                &format!("{at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"),
            ],
        );
    }

    #[test]
    fn selectors_are_made_not_written() {
        let mut mine = job(json!({}));
        mine["spec"]["selector"] = json!({"matchLabels": {"app": "x"}});
        let errors = Job.validate(&mine, None);
        assert_eq!(
            errors[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: `selector` not auto-generated"
        );
    }
}
