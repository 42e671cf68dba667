//! Server-side apply: what an object becomes when somebody applies a configuration to it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::compare::{compare, fields_of, strip};
use super::form::{Form, Types};
use super::managed::{Entry, Managed, Operation, Writer};
use super::merge::{merge, prune};
use super::set::FieldSet;
use crate::meta::ObjectExt;
use crate::status::{ApiError, Reason};

/// The manager of what an object had before anybody was known to manage it.
const BEFORE: &str = "before-first-apply";
/// The manager that takes over from kubectl's client-side apply, and the annotation by which that worked.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who applies what.
pub struct Applier<'a> {
    pub writer: Writer<'a>,
    /// Take fields that others own.
    pub force: bool,
    pub types: Types<'a>,
}

/// What an object becomes. Its managers are written when it is complete.
pub struct Applied {
    pub object: Value,
    pub managed: Managed,
}

/// Applies a configuration to the object that stands (`None`: to nothing). Fails with 409 if it would change fields that others own
/// and `force` is not set.
pub fn apply(applier: &Applier<'_>, live: Option<&Value>, config: &Value) -> Result<Applied, ApiError> {
    let (form, writer) = (Form::of_object(applier.types), &applier.writer);
    let nothing = json!({});
    let mut before = live.cloned().unwrap_or_else(|| nothing.clone());
    if let Some(meta) = before.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    let mut managed = live.and_then(Managed::of).unwrap_or_default();
    if managed.0.is_empty() && live.is_some() {
        let unknown = Writer { manager: BEFORE, subresource: "", ..writer.clone() };
        managed.update(&unknown, &compare(form, &nothing, &before));
    }
    let all = fields_of(form, config);
    let mut fields = all.clone();
    strip(&mut fields);
    let last =
        managed.0.iter().find(|entry| entry.is(Operation::Apply, writer)).map(|entry| entry.fields.clone());
    managed.set_applied(writer, fields);
    let mut object = merge(form, &before, config);
    if let Some(last) = last {
        let mut owned = all;
        managed.0.iter().for_each(|entry| owned.add(&entry.fields));
        prune(form, &mut object, &last, &owned);
    }
    let difference = compare(form, &before, &object);
    let own = |entry: &Entry| entry.is(Operation::Apply, writer);
    if !applier.force {
        let allowed = match live {
            Some(live) if writer.manager == KUBECTL => applied_by_client(form, live),
            _ => FieldSet::default(),
        };
        let conflicts = managed.0.iter().filter(|entry| !own(entry)).filter_map(|entry| {
            let mut conflict = entry.fields.both(&difference.changed);
            conflict.subtract(&allowed);
            (!conflict.is_empty()).then(|| (entry, conflict.paths()))
        });
        let conflicts: Vec<(&Entry, Vec<String>)> = conflicts.collect();
        if !conflicts.is_empty() {
            return Err(conflict(&conflicts));
        }
    }
    for entry in managed.0.iter_mut().filter(|entry| !own(entry)) {
        entry.fields.subtract(&difference.changed);
        entry.fields.subtract(&difference.removed);
    }
    managed.0.retain(|entry| !entry.fields.is_empty());
    if writer.manager == KUBECTL && writer.subresource.is_empty() && before.annotation(LAST_APPLIED).is_some()
    {
        object.set_annotation(LAST_APPLIED, &format!("{config}\n"));
    }
    Ok(Applied { object, managed })
}

/// The fields that kubectl's client-side apply set, and that still are as it set them: its successor may take them.
fn applied_by_client(form: Form<'_>, live: &Value) -> FieldSet {
    let last = live.annotation(LAST_APPLIED).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = last.filter(Value::is_object) else { return FieldSet::default() };
    let mut set = fields_of(form, &last);
    let difference = compare(form, &last, live);
    set.subtract(&difference.changed);
    set.subtract(&difference.removed);
    // The annotation itself is kubectl's, too.
    set.add(&fields_of(form, &json!({"metadata": {"annotations": {LAST_APPLIED: ""}}})));
    set
}

fn said(entry: &Entry) -> String {
    let mut said = format!("{:?}", entry.manager);
    // Writing to a String cannot fail.
    if !entry.subresource.is_empty() {
        let _ = write!(said, " with subresource {:?}", entry.subresource);
    }
    if entry.operation == Operation::Update {
        let _ = write!(said, " using {}", entry.api_version);
    }
    said
}

fn conflict(conflicts: &[(&Entry, Vec<String>)]) -> ApiError {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let message = match conflicts {
        [(entry, paths)] if count == 1 => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", said(entry), paths[0])
        }
        several => {
            let mut groups: Vec<String> = several
                .iter()
                .map(|(entry, paths)| {
                    let paths: Vec<String> = paths.iter().map(|path| format!("- {path}")).collect();
                    format!("conflicts with {}:\n{}", said(entry), paths.join("\n"))
                })
                .collect();
            groups.sort();
            format!("Apply failed with {count} conflicts: {}", groups.join("\n"))
        }
    };
    let mut error = ApiError::new(409, Reason::Conflict, message);
    for (entry, paths) in conflicts {
        let why = format!("conflict with {}", said(entry));
        for path in paths {
            error = error.with_cause("FieldManagerConflict", &why, path);
        }
    }
    error
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
