//! Events as `events.k8s.io` shows them, and as the core group stores them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::resources::Strategy;
use crate::resources::core::event_rules;
use crate::validate::FieldError;

/// Names of the same fact in `events.k8s.io` and in the core group, which is what is stored.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Events of `events.k8s.io`.
pub struct Event;

fn rename(event: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(members) = event.as_object_mut() else { return };
    let moved: Map<String, Value> =
        names.filter_map(|(from, to)| Some((to.to_owned(), members.remove(from)?))).collect();
    members.extend(moved);
}

impl Strategy for Event {
    fn from_storage(&self, event: &mut Value) {
        rename(event, NAMES.iter().map(|(new, old)| (*old, *new)));
    }

    fn to_storage(&self, event: &mut Value) {
        rename(event, NAMES.iter().copied());
    }

    /// The rules are those of what is stored, and speak of it.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let stored = |event: &Value| {
            let mut stored = event.clone();
            self.to_storage(&mut stored);
            stored
        };
        let new = stored(new);
        let mut errors = event_rules::any(&new);
        errors.extend(match old {
            Some(old) => event_rules::changed(&new, &stored(old)),
            None => event_rules::created(&new),
        });
        errors
    }

    fn selectable_fields(&self, event: &Value) -> Vec<(&'static str, String)> {
        super::super::core::Event.selectable_fields(event)
    }

    /// Rule: upstream's field label conversion of `events.k8s.io/v1`.
    fn stored_field<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match path.strip_prefix("regarding.") {
            Some(rest) => format!("involvedObject.{rest}").into(),
            None if path == "reportingController" => "reportingComponent".into(),
            None => path.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_name_fields_as_they_are_shown() {
        let check = |path: &str, expect: &str| {
            assert_eq!(Event.stored_field(path), expect);
            let fields = Event.selectable_fields(&Value::Null);
            assert!(fields.iter().any(|(name, _)| *name == expect), "{path}");
        };
        check("reportingController", "reportingComponent");
        check("regarding.kind", "involvedObject.kind");
        check("reason", "reason");
    }

    #[test]
    fn the_way_there_and_back() {
        let stored = json!({"involvedObject": {"name": "p"}, "message": "m", "count": 2, "reason": "r"});
        let mut event = stored.clone();
        Event.from_storage(&mut event);
        assert_eq!(
            event,
            json!({"regarding": {"name": "p"}, "note": "m", "deprecatedCount": 2, "reason": "r"})
        );
        Event.to_storage(&mut event);
        assert_eq!(event, stored);
    }
}
