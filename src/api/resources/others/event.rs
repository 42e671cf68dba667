use serde_json::{Map, Value};

use crate::api::resources::Strategy;

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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
