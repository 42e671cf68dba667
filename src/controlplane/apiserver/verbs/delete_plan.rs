//! What a delete does to an object: mark it, wait for finalizers, or remove it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use api::meta::{ObjectExt, format_time};
use api::status::ApiError;
use api::validate::FieldError;

use super::super::wire::Params;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `metav1.DeleteOptions`, without the dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; never negative.
    pub grace: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What a delete comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// The object goes now.
    Remove,
    /// The object stays for a while, marked as being deleted.
    Mark(Value),
    /// It is being deleted already, and nothing changes.
    Pending,
}

impl DeleteOptions {
    /// The options of a request: those in the body if there is one, else those in the query; and whether it is a dry run.
    pub fn read(body: Option<&Value>, params: &Params<'_>) -> Result<(Self, bool), ApiError> {
        let Some(body) = body else {
            let mut options = Self { grace: params.integer("gracePeriodSeconds")?, ..Self::default() };
            options.set_propagation(
                params.text("propagationPolicy"),
                params.optional_flag("orphanDependents"),
            )?;
            return Ok((options.settled(), params.dry_run()?));
        };
        let text = |pointer: &str| body.str_at(pointer).filter(|text| !text.is_empty()).map(str::to_owned);
        let mut options = Self {
            grace: body.int_at("/gracePeriodSeconds"),
            propagation: None,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
        };
        options.set_propagation(body.text("propagationPolicy"), body.bool_at("/orphanDependents"))?;
        let mut dry_run = params.dry_run()?;
        for value in body.array_at("/dryRun") {
            if value != "All" {
                return Err(invalid(FieldError::not_supported("dryRun", value.clone(), &["All"])));
            }
            dry_run = true;
        }
        Ok((options.settled(), dry_run))
    }

    /// With the propagation that a kind has of its own, where neither the request nor the object's finalizers say one.
    #[must_use]
    pub fn for_object(&self, object: &Value, orphans: bool) -> Self {
        let said = self.propagation.is_some()
            || object.finalizers().any(|name| name == ORPHAN || name == FOREGROUND);
        let own = (orphans && !said).then_some(Propagation::Orphan);
        Self { propagation: self.propagation.or(own), ..self.clone() }
    }

    /// A negative grace period means the shortest that is still graceful, as upstream has it.
    fn settled(mut self) -> Self {
        self.grace = self.grace.map(|seconds| if seconds < 0 { 1 } else { seconds });
        self
    }

    fn set_propagation(&mut self, policy: Option<&str>, orphan: Option<bool>) -> Result<(), ApiError> {
        self.propagation = match (policy.filter(|policy| !policy.is_empty()), orphan) {
            (Some(_), Some(_)) => {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                return Err(invalid(FieldError::invalid(
                    "propagationPolicy",
                    policy.unwrap_or_default(),
                    detail,
                )));
            }
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                return Err(invalid(FieldError::not_supported("propagationPolicy", other, &supported)));
            }
            (None, None) => None,
        };
        Ok(())
    }

    /// Why the preconditions do not hold of `object`, if they do not.
    pub fn broken_precondition(&self, object: &Value) -> Option<String> {
        if let Some(uid) = self.uid.as_deref().filter(|uid| *uid != object.uid()) {
            return Some(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                object.uid()
            ));
        }
        let version =
            self.resource_version.as_deref().filter(|version| *version != object.resource_version())?;
        Some(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The \
             object might have been modified",
            object.resource_version()
        ))
    }
}

fn invalid(error: FieldError) -> ApiError {
    ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![error])
}

/// What deleting `object` comes to. `grace`: the seconds that the kind is given to stop, as Pods are; `None` for kinds that
/// need none.
pub fn plan(object: &Value, options: &DeleteOptions, grace: Option<i64>, now: Timestamp) -> Plan {
    let mut new = object.clone();
    let graceful = grace.is_some();
    let mut grace = grace.unwrap_or(0);
    if graceful {
        match grace_of(object, options, grace) {
            Grace::Pending => return Plan::Pending,
            Grace::Immediate => grace = 0,
            Grace::Set(seconds) => {
                mark(&mut new, seconds, now);
                grace = seconds;
            }
        }
    }
    set_finalizers(&mut new, options.propagation);
    let held = new.finalizers().next().is_some() || !new.array_at("/spec/finalizers").is_empty();
    if !held && grace == 0 {
        return Plan::Remove;
    }
    if !graceful || new.deletion_timestamp().is_none() {
        mark_once(&mut new, now);
    }
    if !object.array_at("/spec/finalizers").is_empty() {
        new["status"]["phase"] = "Terminating".into();
    }
    if new == *object { Plan::Pending } else { Plan::Mark(new) }
}

enum Grace {
    /// It stops already, and not sooner for this request.
    Pending,
    /// Whatever was promised, it need not be waited for.
    Immediate,
    Set(i64),
}

fn grace_of(object: &Value, options: &DeleteOptions, fresh: i64) -> Grace {
    if object.deletion_timestamp().is_some() {
        let Some(promised) = object.deletion_grace_period_seconds() else { return Grace::Immediate };
        // Who deletes again may only shorten the time.
        return match options.grace {
            Some(seconds) if seconds < promised => Grace::Set(seconds),
            _ => Grace::Pending,
        };
    }
    Grace::Set(fresh)
}

/// Marks an object that stops gracefully: the timestamp says when it will be gone.
fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let begun = object.deletion_timestamp().and_then(|text| text.parse::<Timestamp>().ok());
    let promised = object.deletion_grace_period_seconds().unwrap_or(0);
    let begin = match begun {
        Some(end) => end.checked_sub(SignedDuration::from_secs(promised)).unwrap_or(now),
        None => now,
    };
    let end = begin.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    if begun.is_none() {
        bump_generation(object);
    }
    let meta = object.meta_mut();
    meta.insert("deletionTimestamp".to_owned(), format_time(end).into());
    meta.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
}

/// Marks an object that waits for its finalizers only.
fn mark_once(object: &mut Value, now: Timestamp) {
    if object.deletion_grace_period_seconds().is_none() {
        bump_generation(object);
    }
    let marked = object.deletion_timestamp().is_some();
    let meta = object.meta_mut();
    if !marked {
        meta.insert("deletionTimestamp".to_owned(), format_time(now).into());
    }
    meta.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
}

fn bump_generation(object: &mut Value) {
    let generation = object.generation();
    if generation > 0 {
        object.meta_mut().insert("generation".to_owned(), (generation + 1).into());
    }
}

/// The garbage collector reads the policy from finalizers; without a policy, what stands is left.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<Value> =
        object.finalizers().filter(|name| *name != ORPHAN && *name != FOREGROUND).map(Value::from).collect();
    match propagation {
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        object.meta_mut().remove("finalizers");
    } else {
        object.meta_mut().insert("finalizers".to_owned(), finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn run(object: &Value, query: &str, graceful: bool) -> Plan {
        let (options, _) = DeleteOptions::read(None, &Params::new(Some(query))).expect("options");
        let fresh = graceful.then(|| options.grace.unwrap_or(30));
        plan(object, &options, fresh, NOW.parse().expect("time"))
    }

    fn marked(object: Value, query: &str, graceful: bool, timestamp: &str, grace: i64, finalizers: &[&str]) {
        let Plan::Mark(new) = run(&object, query, graceful) else { panic!("not marked: {object} {query}") };
        assert_eq!(new.deletion_timestamp(), Some(timestamp), "{object} {query}");
        assert_eq!(new.deletion_grace_period_seconds(), Some(grace), "{object} {query}");
        assert_eq!(new.finalizers().collect::<Vec<_>>(), finalizers, "{object} {query}");
    }

    fn pod(status: &str, meta: Value) -> Value {
        json!({"metadata": meta, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": status}})
    }

    #[test]
    fn some_kinds_leave_their_dependents() {
        let (options, _) = DeleteOptions::read(None, &Params::new(None)).expect("options");
        let plain = json!({"metadata": {"name": "j"}});
        assert_eq!(options.for_object(&plain, true).propagation, Some(Propagation::Orphan));
        assert_eq!(options.for_object(&plain, false).propagation, None);
        let held = json!({"metadata": {"name": "j", "finalizers": ["foregroundDeletion"]}});
        assert_eq!(options.for_object(&held, true).propagation, None);
        let (said, _) =
            DeleteOptions::read(None, &Params::new(Some("propagationPolicy=Background"))).expect("options");
        assert_eq!(said.for_object(&plain, true).propagation, Some(Propagation::Background));
    }

    #[test]
    fn objects_without_finalizers_go_at_once() {
        assert_eq!(run(&json!({"metadata": {}}), "", false), Plan::Remove);
        assert_eq!(run(&json!({"metadata": {}}), "propagationPolicy=Background", false), Plan::Remove);
    }

    #[test]
    fn finalizers_hold_an_object() {
        let held = json!({"metadata": {"finalizers": ["x"]}});
        marked(held, "", false, NOW, 0, &["x"]);
        let plain = json!({"metadata": {}});
        marked(plain.clone(), "propagationPolicy=Orphan", false, NOW, 0, &["orphan"]);
        marked(plain.clone(), "orphanDependents=true", false, NOW, 0, &["orphan"]);
        marked(plain, "propagationPolicy=Foreground", false, NOW, 0, &["foregroundDeletion"]);
        let waiting = json!({"metadata":
            {"finalizers": ["x"], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}});
        assert_eq!(run(&waiting, "", false), Plan::Pending);
    }

    #[test]
    fn pods_are_given_time_to_stop() {
        marked(pod("Running", json!({})), "", true, "2026-01-01T00:00:30Z", 30, &[]);
        marked(pod("Running", json!({})), "gracePeriodSeconds=5", true, "2026-01-01T00:00:05Z", 5, &[]);
        assert_eq!(run(&pod("Running", json!({})), "gracePeriodSeconds=0", true), Plan::Remove);
        let stopping = json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(run(&pod("Running", stopping.clone()), "", true), Plan::Pending);
        assert_eq!(run(&pod("Running", stopping.clone()), "gracePeriodSeconds=60", true), Plan::Pending);
        marked(
            pod("Running", stopping.clone()),
            "gracePeriodSeconds=5",
            true,
            "2026-01-01T00:00:05Z",
            5,
            &[],
        );
        assert_eq!(run(&pod("Running", stopping), "gracePeriodSeconds=0", true), Plan::Remove);
        let held = json!({"finalizers": ["x"], "generation": 1});
        marked(pod("Running", held), "gracePeriodSeconds=0", true, NOW, 0, &["x"]);
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let namespace =
            json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Plan::Mark(new) = run(&namespace, "", false) else { panic!("not marked") };
        assert_eq!(new.str_at("/status/phase"), Some("Terminating"));
        assert_eq!(run(&new, "", false), Plan::Pending);
    }

    #[test]
    fn options_are_checked() {
        for bad in ["propagationPolicy=x", "propagationPolicy=Orphan&orphanDependents=true", "dryRun=x"] {
            assert!(DeleteOptions::read(None, &Params::new(Some(bad))).is_err(), "{bad}");
        }
    }
}
