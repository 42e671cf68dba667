//! ValidatingAdmissionPolicies.

use serde_json::{Value, json};

use super::{Concern, Invocation, Policies};
use crate::admission::rights::Rights;
use crate::admission::{Attributes, request};
use api::meta::ObjectExt;
use api::policy::{Decision, Evaluation, Inputs, Matched, Verdict};
use api::status::{ApiError, Cause, Details, Reason};

/// The value of an audit annotation is no longer, in bytes.
const LONGEST_ANNOTATION: usize = 10 * 1024;

/// A denial: what is said, and the reason that the policy gives.
struct Denial {
    message: String,
    reason: String,
}

impl Policies {
    pub(super) async fn run_validating(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let concern = self.concern(attributes, false).await;
        if concern.hooks.is_empty() {
            return Ok(());
        }
        let mut denials = Vec::new();
        for wrong in &concern.misconfigured {
            let hook = &concern.hooks[wrong.hook];
            if !hook.ignores_failures() {
                let (what, binding) = match &wrong.binding {
                    Some(binding) => ("binding", format!(" with binding '{}'", binding.name())),
                    None => ("policy", String::new()),
                };
                let message = format!(
                    "ValidatingAdmissionPolicy '{}'{binding} denied request: failed to configure {what}: {}",
                    hook.name(),
                    wrong.why
                );
                denials.push(Denial { message, reason: String::new() });
            }
        }
        let described = request::described(attributes);
        let object = attributes.object.as_ref().map(|object| request::typed(attributes, object));
        let old = attributes.old.map(|object| request::typed(attributes, object));
        let rights = Rights { index: &self.index, user: attributes.user };
        for invocation in &concern.invocations {
            let inputs = Inputs {
                object: object.as_deref(),
                old: old.as_deref(),
                request: &described,
                namespace: concern.namespace.as_deref(),
                params: invocation.param.as_deref(),
                authorizer: &rights,
            };
            let decision = decide(&concern, invocation, inputs);
            act(&concern, invocation, decision, attributes, &mut denials);
        }
        match denials.into_iter().next() {
            Some(denial) => Err(refusal(attributes, denial)),
            None => Ok(()),
        }
    }
}

fn decide<'a>(concern: &'a Concern, invocation: &Invocation, inputs: Inputs<'a>) -> Decision {
    let compiled = &*concern.hooks[invocation.hook].compiled;
    let evaluation = Evaluation::new(inputs);
    match compiled.conditions.hold(&evaluation) {
        Matched::Yes => evaluation.with(compiled).decide(compiled),
        Matched::No(_) => Decision::default(),
        Matched::Failed(why) => Decision { verdicts: vec![Verdict::Failed(why)], annotations: Vec::new() },
    }
}

/// Does with a decision what the binding says.
fn act(
    concern: &Concern,
    invocation: &Invocation,
    decision: Decision,
    attributes: &Attributes<'_>,
    denials: &mut Vec<Denial>,
) {
    let hook = &concern.hooks[invocation.hook];
    let (policy, binding) = (hook.name(), invocation.binding.name());
    let actions = invocation.binding.array_at("/spec/validationActions");
    let denied = |message: &str| {
        format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}")
    };
    for (at, verdict) in decision.verdicts.into_iter().enumerate() {
        let (message, reason) = match verdict {
            Verdict::Denied { message, reason } => (message, reason),
            Verdict::Failed(why) if !hook.ignores_failures() => (why, String::new()),
            Verdict::Admitted | Verdict::Failed(_) => continue,
        };
        for action in actions.iter().filter_map(Value::as_str) {
            match action {
                "Deny" => denials.push(Denial { message: denied(&message), reason: reason.clone() }),
                "Warn" => attributes.warnings.extend([format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
                )]),
                _ => {
                    let failure = json!([{"message": message, "policy": policy, "binding": binding,
                        "expressionIndex": at, "validationActions": actions}]);
                    let key = "validation.policy.admission.k8s.io/validation_failure";
                    attributes.notes.add(key, failure.to_string());
                }
            }
        }
    }
    for (key, value) in decision.annotations {
        match value {
            Ok(mut value) => {
                let end =
                    (0..=LONGEST_ANNOTATION.min(value.len())).rev().find(|end| value.is_char_boundary(*end));
                value.truncate(end.unwrap_or(0));
                attributes.notes.add(format!("{policy}/{key}"), value);
            }
            Err(why) if !hook.ignores_failures() => {
                denials.push(Denial { message: denied(&why), reason: String::new() });
            }
            Err(_) => {}
        }
    }
}

fn refusal(attributes: &Attributes<'_>, denial: Denial) -> ApiError {
    let mut error = attributes.forbidden(&denial.message);
    (error.code, error.reason) = match denial.reason.as_str() {
        "Forbidden" => (403, Reason::Forbidden),
        "Unauthorized" => (401, Reason::Unauthorized),
        "RequestEntityTooLarge" => (413, Reason::RequestEntityTooLarge),
        _ => (422, Reason::Invalid),
    };
    let cause = Cause { message: denial.message, ..Cause::default() };
    let details: &mut Details = error.details.get_or_insert_default();
    details.causes.push(cause);
    error
}
