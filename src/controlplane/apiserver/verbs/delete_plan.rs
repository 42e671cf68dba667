//! What a delete does to an object: mark it, wait for finalizers, or remove it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use api::meta::{ObjectExt, format_time};
use api::resources::Resource;
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
    /// `orphanDependents: false`, the older word for it: who says that is told (202) that the object still stands.
    pub cascades: bool,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What a delete comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// The object goes now. The client is shown this, or the last state.
    Remove(Option<Value>),
    /// The object stays for a while, marked as being deleted.
    Mark(Value),
    /// It is being deleted already, and nothing changes.
    Pending,
}

impl DeleteOptions {
    /// The options of a request, and whether it is a dry run: those in the body if there is one, and nothing in the query then;
    /// else those in the query.
    pub fn read(body: Option<&Value>, params: &Params<'_>) -> Result<(Self, bool), ApiError> {
        let Some(body) = body else {
            let mut options = Self { grace: params.integer("gracePeriodSeconds")?, ..Self::default() };
            options
                .set_propagation(params.get("propagationPolicy"), params.optional_flag("orphanDependents"))?;
            return Ok((options.settled(), params.dry_run()?));
        };
        let text = |pointer: &str| body.str_at(pointer).map(str::to_owned);
        let mut options = Self {
            grace: body.int_at("/gracePeriodSeconds"),
            propagation: None,
            cascades: false,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
        };
        options.set_propagation(body.str_at("/propagationPolicy"), body.bool_at("/orphanDependents"))?;
        let mut dry_run = false;
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
    pub fn for_object(&self, object: &Value, resource: &Resource) -> Self {
        let said = self.propagation.is_some()
            || object.finalizers().any(|name| name == ORPHAN || name == FOREGROUND);
        let own = (resource.orphans_dependents() && !said).then_some(Propagation::Orphan);
        // Rule: `shouldHaveDeleteDependentsFinalizer` of upstream's Namespaces takes the older word for Foreground.
        let waits = (resource.waits_for_content() && self.cascades).then_some(Propagation::Foreground);
        Self { propagation: waits.or(self.propagation).or(own), ..self.clone() }
    }

    /// A negative grace period means the shortest that is still graceful, as upstream has it.
    fn settled(mut self) -> Self {
        self.grace = self.grace.map(|seconds| if seconds < 0 { 1 } else { seconds });
        self
    }

    fn set_propagation(&mut self, policy: Option<&str>, orphan: Option<bool>) -> Result<(), ApiError> {
        self.cascades = orphan == Some(false);
        self.propagation = match (policy, orphan) {
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

    /// Fails if the preconditions do not hold of `object`. What is empty is said, too, and true of no object.
    pub fn check_preconditions(&self, object: &Value, resource: &Resource) -> Result<(), ApiError> {
        let differs = |said: &Option<String>, is: &str| said.clone().filter(|said| said != is);
        let (what, said, is, why) = if let Some(uid) = differs(&self.uid, object.uid()) {
            ("UID", uid, object.uid(), "deleted and then recreated")
        } else if let Some(version) = differs(&self.resource_version, object.resource_version()) {
            ("ResourceVersion", version, object.resource_version(), "modified")
        } else {
            return Ok(());
        };
        let conflict =
            |named: &str, why: &str| ApiError::conflict(&resource.group, named, object.name(), why);
        // Upstream has Namespaces checked by themselves, and names the others' kind where it means the resource.
        Err(match resource.waits_for_content() {
            true => conflict(
                &resource.plural,
                &format!("Precondition failed: {what} in precondition: {said}, {what} in object meta: {is}"),
            ),
            false => conflict(
                &resource.kind,
                &format!(
                    "the {what} in the precondition ({said}) does not match the {what} in record ({is}). The object \
                     might have been {why}"
                ),
            ),
        })
    }
}

fn invalid(error: FieldError) -> ApiError {
    ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![error])
}

/// How objects of a kind end.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// At once, when nothing holds them.
    Plain,
    /// They are given seconds to stop, as Pods are.
    Graceful(i64),
    /// When their content is gone, as Namespaces do.
    Emptied,
}

/// What deleting `object` comes to.
pub fn plan(object: &Value, options: &DeleteOptions, end: End, now: Timestamp) -> Plan {
    let mut new = object.clone();
    let (graceful, mut grace) = match end {
        End::Graceful(seconds) => (true, seconds),
        End::Plain | End::Emptied => (false, 0),
    };
    let full = matches!(end, End::Emptied) && !object.array_at("/spec/finalizers").is_empty();
    if full {
        return empty(object, options.propagation, now);
    }
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
    if new.finalizers().next().is_none() && grace == 0 {
        return Plan::Remove(graceful.then_some(new));
    }
    if !graceful || new.deletion_timestamp().is_none() {
        mark_once(&mut new, now);
    }
    if new == *object { Plan::Pending } else { Plan::Mark(new) }
}

/// Marks a Namespace that waits for its content: of a grace period nothing is said.
fn empty(namespace: &Value, propagation: Option<Propagation>, now: Timestamp) -> Plan {
    if namespace.deletion_timestamp().is_some() {
        return Plan::Pending;
    }
    let mut new = namespace.clone();
    new.meta_mut().insert("deletionTimestamp".to_owned(), format_time(now).into());
    new["status"]["phase"] = "Terminating".into();
    set_finalizers(&mut new, propagation);
    Plan::Mark(new)
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
        let end = match graceful {
            true => End::Graceful(options.grace.unwrap_or(30)),
            false => End::Plain,
        };
        plan(object, &options, end, NOW.parse().expect("time"))
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
        let row = |plural: &str| api::resources::builtin().into_iter().find(|row| row.plural == plural);
        let (job, namespace, secret) = (row("jobs"), row("namespaces"), row("secrets"));
        let check = |query: &str,
                     object: &Value,
                     row: &Option<std::sync::Arc<Resource>>,
                     expect: Option<Propagation>| {
            let (options, _) = DeleteOptions::read(None, &Params::new(Some(query))).expect("options");
            let settled = options.for_object(object, row.as_ref().expect("a built-in kind"));
            assert_eq!(settled.propagation, expect, "{query} {object}");
        };
        let plain = json!({"metadata": {"name": "j"}});
        let held = json!({"metadata": {"name": "j", "finalizers": ["foregroundDeletion"]}});
        check("", &plain, &job, Some(Propagation::Orphan));
        check("", &plain, &secret, None);
        check("", &held, &job, None);
        check("propagationPolicy=Background", &plain, &job, Some(Propagation::Background));
        check("orphanDependents=false", &plain, &secret, Some(Propagation::Background));
        check("orphanDependents=false", &plain, &namespace, Some(Propagation::Foreground));
    }

    #[test]
    fn objects_without_finalizers_go_at_once() {
        assert_eq!(run(&json!({"metadata": {}}), "", false), Plan::Remove(None));
        assert_eq!(run(&json!({"metadata": {}}), "propagationPolicy=Background", false), Plan::Remove(None));
        let named_alike = json!({"metadata": {}, "spec": {"finalizers": ["x"]}});
        assert_eq!(run(&named_alike, "", false), Plan::Remove(None), "that is for Namespaces");
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
        let removed = |meta: Value| {
            let Plan::Remove(Some(shown)) = run(&pod("Running", meta), "gracePeriodSeconds=0", true) else {
                panic!("not removed")
            };
            assert_eq!(shown.deletion_timestamp(), Some(NOW));
            assert_eq!(shown.deletion_grace_period_seconds(), Some(0));
        };
        removed(json!({}));
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
        removed(stopping);
        let held = json!({"finalizers": ["x"], "generation": 1});
        marked(pod("Running", held), "gracePeriodSeconds=0", true, NOW, 0, &["x"]);
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let namespace =
            json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let run = |object: &Value| {
            plan(object, &DeleteOptions::default(), End::Emptied, NOW.parse().expect("time"))
        };
        let Plan::Mark(new) = run(&namespace) else { panic!("not marked") };
        assert_eq!(new.str_at("/status/phase"), Some("Terminating"));
        assert_eq!(new.deletion_timestamp(), Some(NOW));
        assert_eq!(new.deletion_grace_period_seconds(), None);
        assert_eq!(run(&new), Plan::Pending);
        assert_eq!(run(&json!({"metadata": {}, "spec": {"finalizers": []}})), Plan::Remove(None));
    }

    #[test]
    fn options_are_checked() {
        for bad in [
            "propagationPolicy=x",
            "propagationPolicy=",
            "propagationPolicy=Orphan&orphanDependents=true",
            "gracePeriodSeconds=",
            "dryRun=x",
        ] {
            assert!(DeleteOptions::read(None, &Params::new(Some(bad))).is_err(), "{bad}");
        }
        for bad in [json!({"propagationPolicy": ""}), json!({"dryRun": ["x"]})] {
            assert!(DeleteOptions::read(Some(&bad), &Params::new(None)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_counts_alone() {
        let query = Params::new(Some("dryRun=All&gracePeriodSeconds=x&propagationPolicy=x"));
        let (options, dry) =
            DeleteOptions::read(Some(&json!({"gracePeriodSeconds": 3})), &query).expect("options");
        assert_eq!(options, DeleteOptions { grace: Some(3), ..DeleteOptions::default() });
        assert!(!dry);
    }

    #[test]
    fn preconditions_hold_of_the_object_or_not() {
        let rows = api::resources::builtin();
        let row = |plural: &str| rows.iter().find(|row| row.plural == plural).expect("a built-in kind");
        let object = json!({"metadata": {"name": "o", "uid": "u", "resourceVersion": "5"}});
        let check = |plural: &str, preconditions: Value, expect: &str| {
            let body = json!({"preconditions": preconditions});
            let (options, _) = DeleteOptions::read(Some(&body), &Params::new(None)).expect("options");
            let said = options.check_preconditions(&object, row(plural));
            assert_eq!(said.err().map_or(String::new(), |error| error.message), expect, "{body}");
        };
        check("jobs", json!({"uid": "u", "resourceVersion": "5"}), "");
        check(
            "jobs",
            json!({"resourceVersion": ""}),
            "Operation cannot be fulfilled on Job.batch \"o\": the ResourceVersion in the precondition () does not match \
             the ResourceVersion in record (5). The object might have been modified",
        );
        check(
            "namespaces",
            json!({"uid": "x"}),
            "Operation cannot be fulfilled on namespaces \"o\": Precondition failed: UID in precondition: x, UID in \
             object meta: u",
        );
    }
}
