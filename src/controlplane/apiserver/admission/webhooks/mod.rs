//! Webhooks: rules of admission that other people's servers know.
//!
//! ```text
//! configurations, in the order of their names -> the hooks that the write concerns -> one call each
//!    mutating: one after another, each on what the former left; a hook that asks for it again if a later one changed the object
//!    validating: all at once, the first refusal counts
//! ```

mod call;
mod matching;
mod review;

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::{AsyncPlugin, Attributes, Operation};
use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;
use crate::controlplane::apiserver::index::Index;

use call::{CallError, Caller};
use matching::Subject;
use review::Verdict;

/// One hook of a configuration.
struct Hook {
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
pub(in crate::controlplane::apiserver) struct Webhooks {
    index: Arc<Index>,
    caller: Caller,
}

impl Webhooks {
    pub(in crate::controlplane::apiserver) fn new(index: Arc<Index>) -> Self {
        Self { index, caller: Caller::default() }
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
        for hook in configurations.iter().flat_map(|configuration| configuration.array_at("/webhooks")) {
            if !matching::matches(hook, &subject) {
                continue;
            }
            hooks.push(Hook { target: call::target(hook, &known), hook: hook.clone() });
        }
        hooks
    }

    /// Asks one hook; `None`: it could not be asked, and that does not matter.
    async fn ask(&self, hook: &Hook, attributes: &Attributes<'_>) -> Result<Option<Verdict>, ApiError> {
        let uid = uuid::Uuid::new_v4().to_string();
        let version = review::version(&hook.hook);
        let asked = review::request(attributes, &uid, version);
        let answer = match &hook.target {
            Ok(target) => self.caller.call(target, &asked).await,
            Err(error) => Err(error.clone()),
        };
        let verdict = answer.and_then(|answer| review::read(&answer, &uid, version));
        match verdict {
            Ok(verdict) => {
                let name = hook.name();
                attributes.warnings.extend(verdict.warnings.iter().cloned());
                if !verdict.allowed {
                    return Err(verdict.refusal(name));
                }
                Ok(Some(verdict))
            }
            Err(error) if hook.ignores_failures() => {
                tracing::warn!(webhook = hook.name(), %error, "a webhook failed and is passed over");
                Ok(None)
            }
            Err(error) => {
                Err(ApiError::internal(format!("failed calling webhook {:?}: {error}", hook.name())))
            }
        }
    }

    async fn change(&self, hook: &Hook, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(verdict) = self.ask(hook, attributes).await? else { return Ok(()) };
        let (Some(patch), Some(object)) = (verdict.patch, attributes.object.as_mut()) else { return Ok(()) };
        match review::apply(object, &patch) {
            Ok(()) => {
                if attributes.subresource.is_empty() {
                    attributes.row.default(object);
                }
                Ok(())
            }
            Err(error) if hook.ignores_failures() => {
                tracing::warn!(webhook = hook.name(), %error, "a webhook's patch does not apply and is passed over");
                Ok(())
            }
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    async fn run_mutating(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let hooks = self.concerned(attributes, true);
        // What stood after each hook that wants to see changes of later ones.
        let mut again: Vec<(usize, Option<Value>)> = Vec::new();
        for (at, hook) in hooks.iter().enumerate() {
            self.change(hook, attributes).await?;
            if hook.hook.text("reinvocationPolicy") == Some("IfNeeded") {
                again.push((at, attributes.object.clone()));
            }
        }
        for (at, seen) in again {
            if seen != attributes.object {
                self.change(&hooks[at], attributes).await?;
            }
        }
        Ok(())
    }

    async fn run_validating(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let hooks = self.concerned(attributes, false);
        let asked = hooks.iter().map(|hook| self.ask(hook, attributes));
        futures::future::join_all(asked).await.into_iter().try_for_each(|verdict| verdict.map(|_| ()))
    }
}

impl AsyncPlugin for Webhooks {
    fn mutate<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.run_mutating(attributes))
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            // What is deleted or connected to cannot be changed, so that it comes here only; it is shown to all hooks.
            if matches!(attributes.operation, Operation::Delete | Operation::Connect) {
                for hook in self.concerned(attributes, true) {
                    self.ask(&hook, attributes).await?;
                }
            }
            self.run_validating(attributes).await
        })
    }
}
