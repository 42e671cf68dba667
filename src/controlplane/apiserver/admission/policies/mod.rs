//! Policies that people write as expressions: ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
//!
//! ```text
//! policies that match the write, in the order of their names -> their bindings that do -> the parameters of each
//!    mutating: one after another, each on what the former left; those that ask for it again if the object changed after them
//!    validating: all, and the first denial counts
//! ```
//!
//! Policies and bindings stand in the index; parameters are read from the store, so that what was written counts at once.

mod mutating;
mod params;
mod type_check;
mod validating;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde_json::Value;

use super::matching::{self, Subject};
use super::{AsyncPlugin, Attributes};
use crate::conversion::Converter;
use crate::index::Index;
use crate::registry::Registry;
use api::meta::ObjectExt;
use api::policy::Policy;
use api::status::ApiError;

/// A policy that concerns a write.
struct Hook {
    policy: Arc<Value>,
    compiled: Arc<Policy>,
    bindings: Vec<Arc<Value>>,
}

impl Hook {
    fn name(&self) -> &str {
        self.policy.name()
    }

    /// Whether what cannot be decided does not count.
    fn ignores_failures(&self) -> bool {
        self.policy.str_at("/spec/failurePolicy") == Some("Ignore")
    }
}

/// One evaluation of a policy: for one binding and one parameter (`None`: it has none).
struct Invocation {
    hook: usize,
    binding: Arc<Value>,
    param: Option<Arc<Value>>,
}

/// What stands in the way of a decision: which hook, which binding (`None`: the policy itself), and why.
struct Misconfigured {
    hook: usize,
    binding: Option<Arc<Value>>,
    why: String,
}

/// What policies are to decide about a write.
#[derive(Default)]
struct Concern {
    hooks: Vec<Hook>,
    namespace: Option<Arc<Value>>,
    invocations: Vec<Invocation>,
    misconfigured: Vec<Misconfigured>,
}

/// A policy of one version, compiled.
struct Kept {
    spec: Value,
    compiled: Arc<Policy>,
}

/// Evaluates policies.
pub(crate) struct Policies {
    index: Arc<Index>,
    registry: Arc<Registry>,
    converter: Arc<Converter>,
    /// By whether they mutate, and name.
    compiled: Mutex<HashMap<(bool, String), Kept>>,
}

impl Policies {
    /// `converter`: for parameters of custom kinds.
    pub(crate) fn new(index: Arc<Index>, registry: Arc<Registry>, converter: Arc<Converter>) -> Self {
        Self { index, registry, converter, compiled: Mutex::default() }
    }

    fn compiled(&self, policy: &Value, mutating: bool) -> Arc<Policy> {
        let mut kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (mutating, policy.name().to_owned());
        if let Some(kept) = kept.get(&key).filter(|kept| kept.spec == policy["spec"]) {
            return Arc::clone(&kept.compiled);
        }
        let compiled = Arc::new(Policy::of(policy, mutating));
        kept.insert(key, Kept { spec: policy["spec"].clone(), compiled: Arc::clone(&compiled) });
        compiled
    }

    /// Policies and bindings that match the write, without their parameters.
    fn matching(&self, attributes: &Attributes<'_>, mutating: bool) -> Concern {
        if matching::is_exempt(attributes) {
            return Concern::default();
        }
        let known = self.index.read();
        if known.policy_bindings(mutating).next().is_none() {
            return Concern::default();
        }
        let subject = Subject::new(attributes, &known);
        let mut hooks = Vec::new();
        for policy in known.policies(mutating) {
            let constraints = &policy["spec"]["matchConstraints"];
            if !matching::matches_resources(constraints, &subject) {
                continue;
            }
            let bindings = known.policy_bindings(mutating).filter(|binding| {
                let resources = &binding["spec"]["matchResources"];
                binding.str_at("/spec/policyName") == Some(policy.name())
                    && (resources.is_null() || matching::matches_resources(resources, &subject))
            });
            let bindings: Vec<Arc<Value>> = bindings.cloned().collect();
            if !bindings.is_empty() {
                let compiled = self.compiled(policy, mutating);
                hooks.push(Hook { policy: Arc::clone(policy), compiled, bindings });
            }
        }
        Concern { hooks, namespace: subject.namespace().cloned(), ..Concern::default() }
    }

    /// What policies are to decide about the write.
    async fn concern(&self, attributes: &Attributes<'_>, mutating: bool) -> Concern {
        let mut concern = self.matching(attributes, mutating);
        for (at, hook) in concern.hooks.iter().enumerate() {
            for binding in &hook.bindings {
                let found = self.params(&hook.policy, binding, attributes.namespace).await;
                match found {
                    Ok(params) => concern.invocations.extend(params.into_iter().map(|param| Invocation {
                        hook: at,
                        binding: Arc::clone(binding),
                        param,
                    })),
                    Err(why) => {
                        let binding = Some(Arc::clone(binding));
                        concern.misconfigured.push(Misconfigured { hook: at, binding, why });
                    }
                }
            }
        }
        concern
    }
}

impl AsyncPlugin for Policies {
    fn names(&self) -> [&'static str; 2] {
        ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"]
    }

    fn mutate<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        self.check_types(attributes);
        Box::pin(self.run_mutating(attributes, false))
    }

    fn looks_again(&self) -> bool {
        let wants = |policy: &Arc<Value>| policy.str_at("/spec/reinvocationPolicy") == Some("IfNeeded");
        self.index.read().policies(true).any(wants)
    }

    fn mutate_again<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.run_mutating(attributes, true))
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.run_validating(attributes))
    }
}
