//! MutatingAdmissionPolicies.

use serde_json::Value;

use super::{Concern, Invocation, Policies};
use crate::admission::rights::Rights;
use crate::admission::{Attributes, Operation, request};
use api::fields;
use api::meta::ObjectExt;
use api::policy::{Change, Evaluation, Inputs, Matched};
use api::status::{ApiError, Cause, Reason};

impl Policies {
    /// `again`: only policies that want to see what others did after them.
    pub(super) async fn run_mutating(
        &self,
        attributes: &mut Attributes<'_>,
        again: bool,
    ) -> Result<(), ApiError> {
        if !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let concern = self.concern(attributes, true).await;
        if concern.hooks.is_empty() {
            return Ok(());
        }
        let mut refusals: Vec<(String, Option<Reason>)> = Vec::new();
        for wrong in &concern.misconfigured {
            let hook = &concern.hooks[wrong.hook];
            if !hook.ignores_failures() {
                let (what, binding) = match &wrong.binding {
                    Some(binding) => ("binding", Some(binding.name())),
                    None => ("policy", None),
                };
                let why = format!("failed to configure {what}: {}", wrong.why);
                refusals.push((denied(hook.name(), binding, &why), None));
            }
        }
        let wants_again = |invocation: &Invocation| {
            let policy = &concern.hooks[invocation.hook].policy;
            policy.str_at("/spec/reinvocationPolicy") == Some("IfNeeded")
        };
        // What stood after each that wants to see changes of later ones.
        let mut seen: Vec<(&Invocation, Option<Value>)> = Vec::new();
        for invocation in &concern.invocations {
            if again && !wants_again(invocation) {
                continue;
            }
            self.invoke(&concern, invocation, attributes, &mut refusals);
            if wants_again(invocation) {
                seen.push((invocation, attributes.object.clone()));
            }
        }
        for (invocation, after) in seen {
            if after != attributes.object {
                self.invoke(&concern, invocation, attributes, &mut refusals);
            }
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusal(attributes, refusals)) }
    }

    /// Lets one policy change the object; why it could not joins the `refusals`, unless that does not matter.
    fn invoke(
        &self,
        concern: &Concern,
        invocation: &Invocation,
        attributes: &mut Attributes<'_>,
        refusals: &mut Vec<(String, Option<Reason>)>,
    ) {
        let hook = &concern.hooks[invocation.hook];
        for at in 0..hook.compiled.mutations.len() {
            let changed = self.changed(concern, invocation, at, attributes);
            match changed {
                Ok(None) => return,
                Ok(Some(object)) => {
                    attributes.object = Some(object);
                    attributes.settle();
                }
                Err(_) if hook.ignores_failures() => {}
                Err(why) => {
                    let why = denied(hook.name(), Some(invocation.binding.name()), &why);
                    refusals.push((why, Some(Reason::Invalid)));
                }
            }
        }
    }

    /// What the object becomes by one mutation; `None`: the policy does not look at it.
    fn changed(
        &self,
        concern: &Concern,
        invocation: &Invocation,
        at: usize,
        attributes: &Attributes<'_>,
    ) -> Result<Option<Value>, String> {
        let Some(object) = attributes.object.as_ref() else { return Ok(None) };
        let compiled = &*concern.hooks[invocation.hook].compiled;
        let described = request::described(attributes);
        let object = request::typed(attributes, object);
        let old = attributes.old.map(|object| request::typed(attributes, object));
        let rights = Rights { index: &self.index, user: attributes.user };
        let inputs = Inputs {
            object: Some(&object),
            old: old.as_deref(),
            request: &described,
            namespace: concern.namespace.as_deref(),
            params: invocation.param.as_deref(),
            authorizer: &rights,
        };
        let evaluation = Evaluation::new(inputs);
        if at == 0 {
            match compiled.conditions.hold(&evaluation) {
                Matched::Yes => {}
                Matched::No(_) => return Ok(None),
                Matched::Failed(why) => return Err(why),
            }
        }
        let change = evaluation.with(compiled).change(compiled, at)?;
        match change {
            Change::Apply(config) => {
                let merged = fields::merged(attributes.row.types(), &object, &config);
                merged.map(Some).map_err(|why| format!("error applying patch: {why}"))
            }
            Change::Patch(patch) => {
                let mut patched = object.clone().into_owned();
                match json_patch::patch(&mut patched, &patch) {
                    Ok(()) => Ok(Some(patched)),
                    // A test that fails means that nothing is to be done.
                    Err(error) if matches!(error.kind, json_patch::PatchErrorKind::TestFailed) => {
                        Ok(Some(object.into_owned()))
                    }
                    Err(error) => Err(format!("JSON Patch: {error}")),
                }
            }
        }
    }
}

fn denied(policy: &str, binding: Option<&str>, why: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
        None => format!("policy {policy:?} denied request: {why}"),
    }
}

fn refusal(attributes: &Attributes<'_>, refusals: Vec<(String, Option<Reason>)>) -> ApiError {
    let mut error = attributes.forbidden("admission request denied by policy");
    if let Some((message, reason)) = refusals.first() {
        error.message.clone_from(message);
        error.reason = reason.unwrap_or(error.reason);
    }
    let causes = refusals.into_iter().map(|(message, _)| Cause { message, ..Cause::default() });
    error.details.get_or_insert_default().causes.extend(causes);
    error
}
