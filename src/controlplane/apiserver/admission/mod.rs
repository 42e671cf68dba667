//! What may be written, beyond who writes it: the ordered chain of plugins that complete and check objects.
//!
//! ```text
//! defaulted object -> mutate: each plugin of CHAIN, each that waits -> reserve addresses and ports -> validation by schema
//!                  -> validate: each plugin of CHAIN, each that waits -> one storage transaction -> settle reservations
//! ```
//!
//! Plugins of the chain are synchronous functions over the object and an index in memory. Those that must ask somebody
//! come after them.

mod certificates;
mod escalation;
mod ingress_class;
mod limit_ranger;
mod matching;
mod measure;
mod namespace_lifecycle;
mod nodes;
mod pod;
mod pod_security;
mod pods;
mod policies;
mod quota;
mod request;
mod rights;
mod runtime_class;
mod service_account;
mod storage;
mod webhooks;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::allocate::Allocator;
use super::audit::Notes;
use super::authz::{self, Action};
use super::hook_call::decode_base64;
use super::index::{Index, Known};
use super::reservation::Reservations;
use super::user::UserInfo;
use api::resources::Resource;
use api::status::ApiError;
use measure::{Lap, Measures, Step};
use metrics::Text;
use rt::Clock;

pub(super) use policies::Policies;
pub(super) use webhooks::Webhooks;

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write as admission sees it.
#[derive(Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub operation: Operation,
    /// The resource's row.
    pub row: &'a Resource,
    /// Empty for the core group.
    pub group: &'a str,
    /// The plural.
    pub resource: &'a str,
    pub kind: &'a str,
    /// Empty if none.
    pub subresource: &'a str,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Empty for a create whose name is not known yet.
    pub name: &'a str,
    /// What is to be stored; `None` for a delete.
    pub object: Option<Value>,
    /// What is stored now; `None` for a create.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// What the client is to be told, though the write is admitted.
    pub warnings: Warnings,
    /// What the audit log is to be told.
    pub notes: &'a Notes,
}

/// Sentences that plugins leave for the client.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub fn extend(&self, sentences: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(sentences);
    }

    /// The sentences so far, once.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Attributes<'_> {
    /// Whether this is about the resource itself (no subresource).
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource && self.subresource.is_empty()
    }

    /// Settles what somebody else has made of the object: unknown members of a custom one go, and what is left out is filled in.
    pub fn settle(&mut self) {
        if let (Some(object), true) = (self.object.as_mut(), self.subresource.is_empty()) {
            self.row.strategy().prune(object);
            self.row.default(object);
        }
    }

    /// `forbidden` about this object, in upstream's words.
    pub fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(self.group, self.resource, self.object_name(), why)
    }

    /// The name, or for a create the one in the object.
    pub fn object_name(&self) -> &str {
        let in_object = || self.object.as_ref()?.pointer("/metadata/name")?.as_str();
        if self.name.is_empty() { in_object().unwrap_or_default() } else { self.name }
    }
}

/// What plugins may look at beside the object.
pub struct Context<'a> {
    pub known: &'a Known,
    pub now: Timestamp,
}

impl Context<'_> {
    /// Whether the user may do something else, too (rights that admission asks for).
    pub fn may(&self, user: &UserInfo, action: &Action<'_>) -> bool {
        authz::decide(self.known, user, action).allowed
    }
}

/// One rule of admission.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Completes the object.
    fn mutate(&self, _attributes: &mut Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        Ok(())
    }
    /// Accepts or refuses the object.
    fn validate(&self, _attributes: &Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in upstream's order.
pub const CHAIN: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &nodes::NodeRestriction,
    &nodes::TaintNodesByCondition,
    &pod_security::PodSecurity,
    &pods::Priority,
    &pods::DefaultTolerationSeconds,
    &storage::DefaultStorageClass,
    &storage::StorageObjectInUseProtection,
    &storage::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificates::CertificateRequester,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
    &ingress_class::DefaultIngressClass,
    &escalation::RbacEscalation,
];

/// A rule of admission that must wait for somebody: a webhook, a policy with parameters.
pub trait AsyncPlugin: Send + Sync {
    /// Upstream's names: of what completes, and of what accepts or refuses.
    fn names(&self) -> [&'static str; 2];
    /// Adds what it tells of itself beside how long it takes.
    fn tell(&self, _text: &mut Text) {}
    /// Completes the object.
    fn mutate<'a>(&'a self, _attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }
    /// Whether it may want to complete an object again that others changed after it.
    fn looks_again(&self) -> bool {
        false
    }
    /// Completes the object again: others have changed it since.
    fn mutate_again<'a>(
        &'a self,
        _attributes: &'a mut Attributes<'_>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }
    /// Accepts or refuses the object.
    fn validate<'a>(&'a self, _attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Runs the phases.
pub struct Admission {
    index: Arc<Index>,
    waiting: Vec<Arc<dyn AsyncPlugin>>,
    allocator: Arc<Allocator>,
    quotas: quota::Quotas,
    clock: Arc<dyn Clock>,
    measures: Measures,
}

impl Admission {
    /// Admission by the plugins of [`CHAIN`], then by `waiting`, in order.
    pub fn new(
        index: Arc<Index>,
        waiting: Vec<Arc<dyn AsyncPlugin>>,
        allocator: Arc<Allocator>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Quotas come last, and only count.
        let others = waiting.iter().map(|plugin| plugin.names()).chain([["ResourceQuota"; 2]]);
        let measures = Measures::new(others);
        Self { index, waiting, allocator, quotas: quota::Quotas::default(), clock, measures }
    }

    /// Tells how long it takes.
    pub fn tell(&self, text: &mut Text) {
        self.measures.tell(text);
        self.waiting.iter().for_each(|plugin| plugin.tell(text));
    }

    /// Waits until admission has seen everything that the store shows.
    pub async fn caught_up(&self) {
        self.index.caught_up().await;
    }

    /// Completes the object, before it is validated, and reserves what it needs. The answer is to be settled by the outcome of
    /// the write. Fails as the first plugin that refuses the object.
    pub async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<Reservations, ApiError> {
        let mut lap = self.measures.begin(Step::Admit, attributes.operation);
        let outcome = self.run_mutate(attributes, &mut lap).await;
        lap.end(outcome)
    }

    async fn run_mutate(
        &self,
        attributes: &mut Attributes<'_>,
        lap: &mut Lap<'_>,
    ) -> Result<Reservations, ApiError> {
        self.wait_for_default_account(attributes).await;
        let before = (!self.index.is_current()).then(|| attributes.object.clone());
        match self.try_mutate(attributes, lap) {
            Err(_) if before.is_some() => {
                self.index.caught_up().await;
                attributes.object = before.flatten();
                self.try_mutate(attributes, lap)?;
            }
            done => done?,
        }
        self.mutate_waiting(attributes, lap).await?;
        self.reserve(attributes).await
    }

    /// Those that wait, one after another; those that came before one that changed something may look again.
    async fn mutate_waiting(
        &self,
        attributes: &mut Attributes<'_>,
        lap: &mut Lap<'_>,
    ) -> Result<(), ApiError> {
        // What stood after each that may look again.
        let mut seen = Vec::new();
        for (at, plugin) in (CHAIN.len()..).zip(&self.waiting) {
            lap.passed(at, plugin.mutate(attributes).await)?;
            if plugin.looks_again() {
                seen.push((at, plugin, attributes.object.clone()));
            }
        }
        for (at, plugin, after) in seen {
            if after != attributes.object {
                lap.passed(at, plugin.mutate_again(attributes).await)?;
            }
        }
        Ok(())
    }

    /// Addresses and ports for a Service. That those of another one are free again is known once the index has caught up.
    async fn reserve(&self, attributes: &mut Attributes<'_>) -> Result<Reservations, ApiError> {
        let mut reservations = Reservations::default();
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !write || !attributes.is("", "services") {
            return Ok(reservations);
        }
        let old = attributes.old;
        let Some(service) = attributes.object.as_mut() else { return Ok(reservations) };
        let before = (!self.index.is_current()).then(|| service.clone());
        let held = match (self.allocator.allocate(service, old), before) {
            (Err(_), Some(before)) => {
                self.index.caught_up().await;
                *service = before;
                self.allocator.allocate(service, old)?
            }
            (done, _) => done?,
        };
        reservations.add(held);
        Ok(reservations)
    }

    /// The ServiceAccount `default` is made right after its namespace, by a controller: a Pod that comes in between waits
    /// for it a little instead of being refused.
    async fn wait_for_default_account(&self, attributes: &Attributes<'_>) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return;
        }
        let field = |name: &str| attributes.object.as_ref()?.pointer("/spec")?.get(name)?.as_str();
        let named = field("serviceAccountName").or_else(|| field("serviceAccount")).unwrap_or_default();
        if !matches!(named, "" | "default") {
            return;
        }
        let settled = |known: &Known| {
            known.service_account(attributes.namespace, "default").is_some()
                || known.namespace(attributes.namespace).is_none()
        };
        let mut progress = self.index.progress();
        if settled(&self.index.read()) {
            return;
        }
        let waiting = progress.wait_for(|_| settled(&self.index.read()));
        // Not in time: the plugin tells.
        let _ = tokio::time::timeout(PATIENCE, waiting).await;
    }

    fn try_mutate(&self, attributes: &mut Attributes<'_>, lap: &mut Lap<'_>) -> Result<(), ApiError> {
        let known = self.index.read();
        let context = Context { known: &known, now: self.clock.now() };
        lap.skip();
        CHAIN
            .iter()
            .enumerate()
            .try_for_each(|(at, plugin)| lap.passed(at, plugin.mutate(attributes, &context)))
    }

    /// Accepts or refuses the write; what it takes of a quota joins the `reservations`. Fails as the first plugin that refuses it.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        reservations: &mut Reservations,
    ) -> Result<(), ApiError> {
        let mut lap = self.measures.begin(Step::Validate, attributes.operation);
        let outcome = self.run_validate(attributes, reservations, &mut lap).await;
        lap.end(outcome)
    }

    async fn run_validate(
        &self,
        attributes: &Attributes<'_>,
        reservations: &mut Reservations,
        lap: &mut Lap<'_>,
    ) -> Result<(), ApiError> {
        match self.try_validate(attributes, lap) {
            Err(_) if !self.index.is_current() => {
                self.index.caught_up().await;
                self.try_validate(attributes, lap)?;
            }
            done => done?,
        }
        let mut at = CHAIN.len();
        for plugin in &self.waiting {
            lap.passed(at, plugin.validate(attributes).await)?;
            at += 1;
        }
        // Last: what is counted is what everybody else has admitted.
        lap.passed(at, self.quotas.reserve(attributes, &self.index, reservations).await)
    }

    fn try_validate(&self, attributes: &Attributes<'_>, lap: &mut Lap<'_>) -> Result<(), ApiError> {
        let known = self.index.read();
        let context = Context { known: &known, now: self.clock.now() };
        lap.skip();
        CHAIN
            .iter()
            .enumerate()
            .try_for_each(|(at, plugin)| lap.passed(at, plugin.validate(attributes, &context)))
    }
}
