//! Webhooks: rules of admission that other people's servers know.
//!
//! ```text
//! configurations, in the order of their names -> the hooks that the write concerns -> one call each
//!    mutating: one after another, each on what the former left; a hook that asks for it again if a later one changed the object
//!    validating: all at once, the first refusal counts
//! ```

mod review;
mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::Value;

use super::matching::{self, Subject};
use super::rights::Rights;
use super::{AsyncPlugin, Attributes, Operation, request};
use crate::hook_call::{self as call, CallError, Caller};
use crate::index::Index;
use api::meta::ObjectExt;
use api::policy::{Conditions, Evaluation, Given, Inputs, Matched};
use api::status::ApiError;
use metrics::Text;

use review::Verdict;
use told::{Call, Calls, NOT_APPLIED, NOT_ASKED, REFUSED, Turn};

/// One hook of a configuration.
struct Hook {
    /// The configuration that it is of.
    configuration: String,
    /// Which one it is of all hooks.
    index: usize,
    /// Where it is called, found while the index was looked at.
    target: Result<call::Target, CallError>,
    hook: Value,
}

impl Hook {
    fn name(&self) -> &str {
        self.hook.text("name").unwrap_or_default()
    }

    /// Whether a hook that cannot be asked is passed over.
    fn ignores_failures(&self) -> bool {
        self.hook.text("failurePolicy") == Some("Ignore")
    }
}

/// Asks webhooks.
pub(crate) struct Webhooks {
    index: Arc<Index>,
    caller: Caller,
    /// By the text of a hook's conditions, as long as the hook is asked.
    conditions: Mutex<HashMap<String, Arc<Conditions>>>,
    calls: Calls,
}

/// Conditions are kept compiled for so many hooks.
const MOST_CONDITIONS: usize = 256;

impl Webhooks {
    pub(crate) fn new(index: Arc<Index>) -> Self {
        Self { index, caller: Caller::default(), conditions: Mutex::default(), calls: Calls::default() }
    }

    /// The hooks that the write concerns, in order.
    fn concerned(&self, attributes: &Attributes<'_>, mutating: bool) -> Vec<Hook> {
        if matching::is_exempt(attributes) {
            return Vec::new();
        }
        let known = self.index.read();
        let configurations: Vec<Arc<Value>> = known.webhooks(mutating).cloned().collect();
        if configurations.is_empty() {
            return Vec::new();
        }
        let subject = Subject::new(attributes, &known);
        let mut hooks = Vec::new();
        let all = configurations.iter().flat_map(|configuration| {
            configuration.array_at("/webhooks").iter().map(|hook| (configuration.name(), hook))
        });
        for (index, (configuration, hook)) in all.enumerate() {
            if matching::matches(hook, &subject) {
                let (configuration, target) = (configuration.to_owned(), call::target(hook, &known));
                hooks.push(Hook { configuration, index, target, hook: hook.clone() });
            }
        }
        hooks
    }

    /// The conditions of a hook, compiled once for all requests.
    fn conditions(&self, hook: &Hook) -> Option<Arc<Conditions>> {
        let said = hook
            .hook
            .get("matchConditions")
            .filter(|said| said.as_array().is_some_and(|all| !all.is_empty()))?;
        let key = said.to_string();
        let mut kept = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conditions) = kept.get(&key) {
            return Some(Arc::clone(conditions));
        }
        let given = Given { authorizer: true, ..Given::default() };
        let conditions = Arc::new(Conditions::of(&hook.hook, &given));
        if kept.len() >= MOST_CONDITIONS {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&conditions));
        Some(conditions)
    }

    /// Whether the conditions of a hook want it to be asked. Fails if they cannot be evaluated and that matters.
    fn wanted(&self, hook: &Hook, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
        let Some(conditions) = self.conditions(hook) else { return Ok(true) };
        let described = request::described(attributes);
        let object = attributes.object.as_ref().map(|object| request::typed(attributes, object));
        let old = attributes.old.map(|object| request::typed(attributes, object));
        let rights = Rights { index: &self.index, user: attributes.user };
        let inputs = Inputs {
            object: object.as_deref(),
            old: old.as_deref(),
            request: &described,
            namespace: None,
            params: None,
            authorizer: &rights,
        };
        let held = conditions.hold(&Evaluation::new(inputs));
        match held {
            Matched::Yes => Ok(true),
            Matched::No(_) => Ok(false),
            Matched::Failed(why) if hook.ignores_failures() => {
                tracing::warn!(webhook = hook.name(), %why, "a webhook's conditions failed, and it is passed over");
                Ok(false)
            }
            Matched::Failed(why) => Err(attributes.forbidden(&why)),
        }
    }

    /// Asks one hook; `None`: it need not or could not be asked, and that does not matter.
    async fn ask(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        turn: Turn,
    ) -> Result<Option<Verdict>, ApiError> {
        if !self.wanted(hook, attributes)? {
            return Ok(None);
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let version = review::version(&hook.hook);
        let asked = review::question(attributes, &uid, version);
        let began = Instant::now();
        let answer = match &hook.target {
            Ok(target) => self.caller.call(target, &asked).await,
            Err(error) => Err(error.clone()),
        };
        let (name, took) = (hook.name(), began.elapsed());
        let count = |code, rejected| {
            self.calls.count(name, attributes, &Call { turn, took, code, rejected });
        };
        match answer.and_then(|answer| review::read(&answer, &uid, version)) {
            Ok(verdict) => {
                attributes.warnings.extend(verdict.warnings.iter().cloned());
                for (key, value) in &verdict.annotations {
                    attributes.notes.add(format!("{name}/{key}"), value);
                }
                if !verdict.allowed {
                    let refusal = verdict.refusal(name);
                    count(refusal.code, Some(REFUSED));
                    return Err(refusal);
                }
                count(200, None);
                Ok(Some(verdict))
            }
            Err(error) if hook.ignores_failures() => {
                tracing::warn!(webhook = name, %error, "a webhook failed and is passed over");
                count(error.code, None);
                self.calls.pass_over(name, attributes, turn);
                Ok(None)
            }
            Err(error) => {
                count(error.code, Some(NOT_ASKED));
                Err(ApiError::internal(format!("failed calling webhook {name:?}: {error}")))
            }
        }
    }

    async fn change(
        &self,
        hook: &Hook,
        attributes: &mut Attributes<'_>,
        round: usize,
    ) -> Result<(), ApiError> {
        let turn = Turn { mutating: true, round, index: hook.index };
        let Some(verdict) = self.ask(hook, attributes, turn).await? else { return Ok(()) };
        let Some(patch) = verdict.patch.filter(|patch| !patch.is_empty()) else {
            turn.note_change(hook, None, attributes);
            return Ok(());
        };
        let before = attributes.object.clone();
        // That a patch does not apply is no failure to ask: it counts whatever the policy for failures is.
        let applied = match attributes.object.as_mut() {
            Some(object) => review::apply(object, &patch).map_err(ApiError::internal),
            None => Err(ApiError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name()
            ))),
        };
        if let Err(error) = applied {
            self.calls.refuse(hook.name(), attributes, turn, NOT_APPLIED, "0");
            return Err(error);
        }
        attributes.settle();
        let changed = attributes.object != before;
        let patch = changed.then(|| serde_json::to_value(&patch).unwrap_or_default());
        turn.note_change(hook, patch.as_ref(), attributes);
        Ok(())
    }

    async fn run_mutating(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let hooks = self.concerned(attributes, true);
        // What stood after each hook that wants to see changes of later ones.
        let mut again: Vec<(usize, Option<Value>)> = Vec::new();
        for (at, hook) in hooks.iter().enumerate() {
            self.change(hook, attributes, 0).await?;
            if hook.hook.text("reinvocationPolicy") == Some("IfNeeded") {
                again.push((at, attributes.object.clone()));
            }
        }
        for (at, seen) in again {
            if seen != attributes.object {
                self.change(&hooks[at], attributes, 1).await?;
            }
        }
        Ok(())
    }

    async fn run_validating(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let hooks = self.concerned(attributes, false);
        let turn = |index| Turn { mutating: false, round: 0, index };
        let asked = hooks.iter().enumerate().map(|(at, hook)| self.ask(hook, attributes, turn(at)));
        futures::future::join_all(asked).await.into_iter().try_for_each(|verdict| verdict.map(|_| ()))
    }
}

impl AsyncPlugin for Webhooks {
    fn names(&self) -> [&'static str; 2] {
        ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"]
    }

    fn tell(&self, text: &mut Text) {
        self.calls.tell(text);
    }

    fn mutate<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.run_mutating(attributes))
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            // What is deleted or connected to cannot be changed, so that it comes here only; it is shown to all hooks.
            if matches!(attributes.operation, Operation::Delete | Operation::Connect) {
                for hook in self.concerned(attributes, true) {
                    let turn = Turn { mutating: true, round: 0, index: hook.index };
                    if self.ask(&hook, attributes, turn).await?.is_some() {
                        turn.note_change(&hook, None, attributes);
                    }
                }
            }
            self.run_validating(attributes).await
        })
    }
}
