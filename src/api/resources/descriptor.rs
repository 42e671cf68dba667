//! The row of one resource: everything that is particular to it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::strategy::{Plain, Strategy, Verdict};
use super::subresource::{Handler, Part, Review, Subresource};
use crate::fields::Types;
use crate::meta::{Gvk, Gvr, ObjectExt, Str};
use crate::schema::{self, Schema};
use crate::structural::{JsonPath, Structural, text_of};
use crate::table::{self, Printer, Shown};
use crate::validate::{NameRule, finalizers_of_somebody, object_meta, object_meta_update};
use rt::Stop;

/// Where a resource's objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the store, under the resource's own key prefix.
    Stored,
    /// Nowhere: a request is answered by code.
    Virtual(Review),
    /// Nowhere: the nodes are asked when somebody reads it.
    Measured(Measure),
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// What each node uses.
    Nodes,
    /// What each Pod's containers use.
    Pods,
    /// How what this server stands on is: it is looked at when somebody asks.
    Components,
}

/// Where the Scale of an object stands in it, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub replicas: Str,
    pub status_replicas: Str,
    pub selector: Option<Str>,
    /// Whether the selector is a text already, not a map or LabelSelector.
    pub selector_is_text: bool,
}

impl ScalePaths {
    /// As built-in workloads have them.
    pub const BUILTIN: Self = Self {
        replicas: Cow::Borrowed("/spec/replicas"),
        status_replicas: Cow::Borrowed("/status/replicas"),
        selector: Some(Cow::Borrowed("/spec/selector")),
        selector_is_text: false,
    };
}

/// Which of a resource's objects the server keeps in memory, to decide about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    No,
    All,
    /// Those whose key, after the resource's own prefix, starts so.
    Below(&'static str),
}

const STORED: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const MEASURED: &[&str] = &["get", "list"];

enum Behaviour {
    Fixed(&'static dyn Strategy),
    Shared(Arc<dyn Strategy>),
}

/// Everything the engine knows about one resource in one version.
pub struct Resource {
    /// Empty for core.
    pub group: Str,
    pub version: Str,
    pub kind: Str,
    pub list_kind: Str,
    pub plural: Str,
    pub singular: Str,
    pub namespaced: bool,
    pub short_names: Cow<'static, [Str]>,
    pub categories: Cow<'static, [Str]>,
    pub verbs: &'static [&'static str],
    pub subresources: Vec<Subresource>,
    pub storage: Storage,
    /// The resource and version whose objects are stored, where this one is another view of them
    /// (events.k8s.io of core events, autoscaling/v1 of v2). See [`Strategy::from_storage`].
    pub stored_as: Option<Arc<Resource>>,
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of the desired state.
    pub generation: bool,
    /// How tables show it.
    pub printer: Shown,
    /// Whether a PUT creates what is not there.
    pub created_by_update: bool,
    /// Whether a delete is answered with the last state, not with a Status.
    pub shown_when_gone: bool,
    /// How long objects are kept after their last change; `None`: until they are deleted.
    pub ttl: Option<Duration>,
    pub cached: Cached,
    /// Whether stored bytes may differ from what readers get: see [`Strategy::from_storage`].
    pub rewrites: bool,
    pub scale_paths: ScalePaths,
    /// Fields that a field selector may name, beside those of the strategy.
    pub selectable: Vec<(String, JsonPath)>,
    /// What whoever uses it is warned of, if it is to go.
    pub deprecated: Option<Str>,
    /// The type of its bodies, where that is no built-in one.
    pub own_schema: Option<Arc<Schema>>,
    /// The schema of a custom kind.
    pub structural: Option<Arc<Structural>>,
    /// What OpenAPI says of its objects, where that is no built-in type: a text, because it is seldom read.
    pub published: Option<Arc<str>>,
    /// The webhook that converts objects between the versions of a custom kind, as its definition has it.
    pub conversion: Option<Arc<Value>>,
    /// Cancelled when the row goes, for rows that may: watches end.
    pub end: Option<Stop>,
    /// Whether an update must say which version it replaces (upstream's `AllowUnconditionalUpdate` is false).
    pub conditional_update: bool,
    /// Whether a status update leaves labels, annotations, finalizers and owners as stored (upstream's
    /// `ResetObjectMetaForStatus`).
    pub status_keeps_metadata: bool,
    behaviour: Behaviour,
}

fn list(words: &'static [&'static str]) -> Cow<'static, [Str]> {
    words.iter().map(|w| Cow::Borrowed(*w)).collect()
}

/// Groups that upstream keeps in modules of their own, which know of no finalizers of Kubernetes' own.
const OWN_METADATA: [&str; 4] =
    ["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"];

impl Resource {
    /// A stored resource with the usual verbs and no special behaviour.
    pub fn new(
        gv: (&'static str, &'static str),
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        Self::made(gv.0.into(), gv.1.into(), kind.into(), plural.into(), namespaced)
    }

    /// The same, under names that were made at run time.
    pub fn made(group: Str, version: Str, kind: Str, plural: Str, namespaced: bool) -> Self {
        Self {
            list_kind: format!("{kind}List").into(),
            singular: kind.to_lowercase().into(),
            group,
            version,
            kind,
            plural,
            namespaced,
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            verbs: STORED,
            subresources: Vec::new(),
            storage: Storage::Stored,
            stored_as: None,
            name_rule: NameRule::Subdomain,
            generation: false,
            printer: Shown::Fixed(&table::NAME_AND_AGE),
            created_by_update: false,
            shown_when_gone: false,
            ttl: None,
            cached: Cached::No,
            rewrites: false,
            scale_paths: ScalePaths::BUILTIN,
            selectable: Vec::new(),
            deprecated: None,
            own_schema: None,
            structural: None,
            published: None,
            conversion: None,
            end: None,
            conditional_update: false,
            status_keeps_metadata: false,
            behaviour: Behaviour::Fixed(&Plain),
        }
    }

    pub fn namespaced(gv: (&'static str, &'static str), kind: &'static str, plural: &'static str) -> Self {
        Self::new(gv, kind, plural, true)
    }

    pub fn cluster(gv: (&'static str, &'static str), kind: &'static str, plural: &'static str) -> Self {
        Self::new(gv, kind, plural, false)
    }

    #[must_use]
    pub fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = list(names);
        self
    }

    /// In category `all`.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.categories = list(&["all"]);
        self
    }

    #[must_use]
    pub fn category(mut self, names: &'static [&'static str]) -> Self {
        self.categories = list(names);
        self
    }

    /// Has `status`.
    #[must_use]
    pub fn status(self) -> Self {
        let kind = self.gvk();
        self.sub(Handler::STATUS, kind, STATUS)
    }

    /// Has `scale`.
    #[must_use]
    pub fn scale(self) -> Self {
        self.sub(Handler::Scale, Gvk::of("autoscaling", "v1", "Scale"), STATUS)
    }

    #[must_use]
    pub fn sub(mut self, handler: Handler, kind: Gvk, verbs: &'static [&'static str]) -> Self {
        self.subresources.push(Subresource { handler, kind, verbs });
        self
    }

    /// Has a subresource through which one part of the object is read and written.
    #[must_use]
    pub fn part(self, part: Part, verbs: &'static [&'static str]) -> Self {
        let kind = self.gvk();
        self.sub(Handler::Part(part), kind, verbs)
    }

    /// Only answers creates; nothing is stored.
    #[must_use]
    pub fn review(mut self, review: Review) -> Self {
        self.verbs = CREATE;
        self.storage = Storage::Virtual(review);
        self
    }

    /// Only read; asked of the nodes each time.
    #[must_use]
    pub fn measured(mut self, measure: Measure) -> Self {
        self.verbs = MEASURED;
        self.storage = Storage::Measured(measure);
        self
    }

    /// Shown in tables so.
    #[must_use]
    pub fn printer(mut self, printer: &'static Printer) -> Self {
        self.printer = Shown::Fixed(printer);
        self
    }

    /// Whoever uses it is warned.
    #[must_use]
    pub fn deprecated(mut self, warning: &'static str) -> Self {
        self.deprecated = Some(warning.into());
        self
    }

    /// A PUT creates what is not there.
    #[must_use]
    pub fn created_by_update(mut self) -> Self {
        self.created_by_update = true;
        self
    }

    /// A delete is answered with the last state.
    #[must_use]
    pub fn shown_when_gone(mut self) -> Self {
        self.shown_when_gone = true;
        self
    }

    /// Kept so long after the last change.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// An update must say which version it replaces.
    #[must_use]
    pub fn conditional_update(mut self) -> Self {
        self.conditional_update = true;
        self
    }

    /// A status update leaves the metadata as stored.
    #[must_use]
    pub fn status_keeps_metadata(mut self) -> Self {
        self.status_keeps_metadata = true;
        self
    }

    #[must_use]
    pub fn cached(mut self, cached: Cached) -> Self {
        self.cached = cached;
        self
    }

    #[must_use]
    pub fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    #[must_use]
    pub fn names(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    #[must_use]
    pub fn singular(mut self, name: &'static str) -> Self {
        self.singular = name.into();
        self
    }

    /// Counts generations.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.generation = true;
        self
    }

    #[must_use]
    pub fn stored_as(mut self, other: Resource) -> Self {
        self.stored_as = Some(Arc::new(other));
        self
    }

    #[must_use]
    pub fn with(mut self, strategy: &'static dyn Strategy) -> Self {
        self.behaviour = Behaviour::Fixed(strategy);
        self
    }

    /// Behaviour made at run time.
    #[must_use]
    pub fn with_shared(mut self, strategy: Arc<dyn Strategy>) -> Self {
        self.behaviour = Behaviour::Shared(strategy);
        self
    }

    pub fn strategy(&self) -> &dyn Strategy {
        match &self.behaviour {
            Behaviour::Fixed(strategy) => *strategy,
            Behaviour::Shared(strategy) => strategy.as_ref(),
        }
    }

    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    pub fn gvr(&self) -> Gvr {
        Gvr { group: self.group.clone(), version: self.version.clone(), resource: self.plural.clone() }
    }

    pub fn api_version(&self) -> String {
        self.gvk().api_version()
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name() == name)
    }

    pub fn has(&self, handler: Handler) -> bool {
        self.subresources.iter().any(|s| s.handler == handler)
    }

    pub fn has_status(&self) -> bool {
        self.has(Handler::STATUS)
    }

    /// The type of its bodies; `None` for a kind that nobody has described.
    pub fn schema(&self) -> Option<&Schema> {
        self.own_schema.as_deref().or_else(|| schema::builtin(&self.gvk()))
    }

    /// What is known of its objects when somebody merges them.
    pub fn types(&self) -> Types<'_> {
        Types { schema: self.schema(), structural: self.structural.as_deref() }
    }

    /// Fills in what the object leaves out, as upstream's defaulting functions.
    pub fn default(&self, object: &mut Value) {
        self.strategy().default(object);
    }

    /// Completes a new object that admission is done with.
    pub fn admitted(&self, object: &mut Value) {
        self.strategy().admitted(object);
    }

    /// Readies a new object: no status from outside, generation 1.
    pub fn prepare_create(&self, object: &mut Value) {
        if self.has_status()
            && self.strategy().resets_status()
            && let Some(map) = object.as_object_mut()
        {
            match schema::builtin(&self.gvk()).and_then(|schema| schema.unsaid("status")) {
                Some(status) => map.insert("status".to_owned(), status),
                None => map.remove("status"),
            };
        }
        if self.generation {
            object.meta_mut().insert("generation".into(), 1.into());
        }
        self.strategy().prepare_create(object);
    }

    /// Readies a changed object: its status stays as stored, the generation counts a changed desired state.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() && self.strategy().resets_status() {
            copy_member(new, old, "status");
        }
        self.strategy().prepare_update(new, old);
        if self.generation {
            let changed = self.strategy().desired_state_changed(new, old);
            new.meta_mut().insert("generation".into(), (old.generation() + i64::from(changed)).into());
        }
    }

    /// Readies an object written through `status`: everything but the status stays as stored.
    pub fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let mut keys: Vec<String> = Vec::new();
        for object in [&*new, old] {
            keys.extend(object.as_object().into_iter().flatten().map(|(key, _)| key.clone()));
        }
        for key in keys.iter().filter(|k| !["apiVersion", "kind", "metadata", "status"].contains(&k.as_str()))
        {
            copy_member(new, old, key);
        }
        if self.generation {
            new.meta_mut().insert("generation".into(), old.generation().into());
        }
        if self.status_keeps_metadata {
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                keep_meta(new, old, field);
            }
        }
        self.strategy().prepare_status_update(new, old);
    }

    /// What is to be said of a new object, or of `new` as successor of `old`.
    pub fn judge(&self, new: &Value, old: Option<&Value>) -> Verdict {
        let mut errors = match old {
            None => object_meta(new, self.namespaced, self.name_rule),
            Some(old) => {
                let prefix = self.strategy().checks_prefix().then_some(self.name_rule);
                object_meta_update(new, old, prefix)
            }
        };
        if !OWN_METADATA.contains(&self.group.as_ref()) && self.structural.is_none() {
            errors.extend(finalizers_of_somebody(new));
        }
        let said = self.strategy().judge(new, old);
        errors.extend(said.errors);
        Verdict { errors, ..said }
    }

    /// What is to be said of a part written through its subresource.
    pub fn judge_part(&self, part: Part, new: &Value, old: &Value) -> Verdict {
        let mut errors = object_meta_update(new, old, None);
        let said = self.strategy().judge_part(part, new, old);
        errors.extend(said.errors);
        Verdict { errors, ..said }
    }

    /// Fields a field selector may name besides `metadata.name` and `metadata.namespace`, with their values.
    pub fn selectable_fields(&self, object: &Value) -> Vec<(Str, String)> {
        let fields = self.strategy().selectable_fields(object);
        let fixed = fields.into_iter().map(|(path, value)| (Cow::Borrowed(path), value));
        let found = |path: &JsonPath| path.find(object).first().map_or_else(String::new, |v| text_of(v));
        let made = self.selectable.iter().map(|(name, path)| (Cow::Owned(name.clone()), found(path)));
        fixed.chain(made).collect()
    }

    /// Whether a delete that says nothing of dependents leaves them.
    pub fn orphans_dependents(&self) -> bool {
        self.strategy().orphans_dependents()
    }

    /// Whether an object that is deleted stays until its content is gone and `spec.finalizers` are empty.
    pub fn waits_for_content(&self) -> bool {
        self.strategy().waits_for_content()
    }

    /// Seconds between the wish to delete and the removal, for kinds whose end somebody else must confirm;
    /// `None`: removed at once. `asked`: what the request says.
    pub fn grace_period(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        self.strategy().grace_period(object, asked)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resource({}/{} {})", self.group, self.version, self.plural)
    }
}

/// Makes `new[key]` what `old[key]` is, absent included.
pub(super) fn copy_member(new: &mut Value, old: &Value, key: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => map.insert(key.to_owned(), value.clone()),
        None => map.remove(key),
    };
}

/// A field of the metadata as it is stored.
pub(super) fn keep_meta(new: &mut Value, old: &Value, field: &str) {
    match old.meta().and_then(|meta| meta.get(field)) {
        Some(value) => new.meta_mut().insert(field.to_owned(), value.clone()),
        None => new.meta_mut().remove(field),
    };
}
