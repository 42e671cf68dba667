//! `metadata.managedFields`: who set which fields, how, and when.

use serde_json::{Map, Value, json};

use super::compare::{Difference, compare};
use super::form::{Form, Types};
use super::set::FieldSet;
use crate::meta::ObjectExt;

/// So many writers have entries of their own; the oldest beyond share one.
const MOST_UPDATERS: usize = 10;
/// The manager of those that share.
const ANCIENT: &str = "ancient-changes";

/// How fields were set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes, through which path and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer<'a> {
    pub manager: &'a str,
    pub api_version: &'a str,
    /// Empty if none.
    pub subresource: &'a str,
    /// Now, as `metav1.Time` writes it.
    pub now: &'a str,
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub time: Option<String>,
    pub subresource: String,
    pub fields: FieldSet,
}

impl Entry {
    fn new(operation: Operation, writer: &Writer<'_>, fields: FieldSet) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            operation,
            api_version: writer.api_version.to_owned(),
            time: Some(writer.now.to_owned()),
            subresource: writer.subresource.to_owned(),
            fields,
        }
    }

    /// Whether it is this writer's entry. An applier has one, whatever version it applies in.
    pub fn is(&self, operation: Operation, writer: &Writer<'_>) -> bool {
        self.operation == operation
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.text(name).unwrap_or_default().to_owned();
        let operation = match value.text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            time: value.text("time").map(str::to_owned),
            subresource: text("subresource"),
            fields: value.get("fieldsV1").map_or_else(|| Some(FieldSet::default()), FieldSet::from_value)?,
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, text: &str| {
            if !text.is_empty() {
                map.insert(key.to_owned(), text.into());
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.word());
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        map.insert("fieldsV1".to_owned(), self.fields.to_value());
        Value::Object(map)
    }
}

/// An object's managers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed(pub Vec<Entry>);

impl Managed {
    /// The managers that an object names; `None` if it names none, or what it says cannot be read.
    pub fn of(object: &Value) -> Option<Self> {
        Self::read(object.meta()?.get("managedFields")?)
    }

    fn read(entries: &Value) -> Option<Self> {
        let entries: Option<Vec<Entry>> = entries.as_array()?.iter().map(Entry::read).collect();
        entries.filter(|entries| !entries.is_empty()).map(Self)
    }

    /// Writes the managers into an object: appliers first, then by time and name.
    pub fn write(mut self, object: &mut Value) {
        self.0.retain(|entry| !entry.fields.is_empty());
        self.0.sort_by(|a, b| {
            let key = |entry: &Entry| {
                let Entry { operation, time, manager, api_version, subresource, .. } = entry;
                (*operation, time.clone(), manager.clone(), api_version.clone(), subresource.clone())
            };
            key(a).cmp(&key(b))
        });
        let meta = object.meta_mut();
        if self.0.is_empty() {
            meta.remove("managedFields");
        } else {
            let entries: Vec<Value> = self.0.iter().map(Entry::to_value).collect();
            meta.insert("managedFields".to_owned(), entries.into());
        }
    }

    /// What a write by an updater changed is the writer's, and nobody else's.
    pub fn update(&mut self, writer: &Writer<'_>, difference: &Difference) {
        for entry in &mut self.0 {
            entry.fields.subtract(&difference.removed);
            if !entry.is(Operation::Update, writer) {
                entry.fields.subtract(&difference.changed);
            }
        }
        if !difference.changed.is_empty() {
            match self.0.iter_mut().find(|entry| entry.is(Operation::Update, writer)) {
                Some(entry) => {
                    entry.fields.add(&difference.changed);
                    entry.time = Some(writer.now.to_owned());
                }
                None => self.0.push(Entry::new(Operation::Update, writer, difference.changed.clone())),
            }
        }
        self.0.retain(|entry| !entry.fields.is_empty());
        self.cap();
    }

    /// Says what an applier owns now. Its time moves only if that has changed.
    pub fn set_applied(&mut self, writer: &Writer<'_>, fields: FieldSet) {
        match self.0.iter_mut().find(|entry| entry.is(Operation::Apply, writer)) {
            Some(entry) if entry.fields == fields && entry.api_version == writer.api_version => {}
            Some(entry) => *entry = Entry::new(Operation::Apply, writer, fields),
            None => self.0.push(Entry::new(Operation::Apply, writer, fields)),
        }
    }

    /// Joins the oldest updaters of a version until there are not too many.
    fn cap(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.0.len()).filter(|at| self.0[*at].operation == Operation::Update).collect();
        let mut over = updaters.len().saturating_sub(MOST_UPDATERS);
        if over == 0 {
            return;
        }
        updaters.sort_by(|a, b| self.0[*a].time.cmp(&self.0[*b].time));
        let mut first: Vec<usize> = Vec::new();
        for at in updaters {
            if over == 0 {
                break;
            }
            let Some(bucket) =
                first.iter().copied().find(|to| self.0[*to].api_version == self.0[at].api_version)
            else {
                first.push(at);
                continue;
            };
            let fields = std::mem::take(&mut self.0[at].fields);
            let time = self.0[at].time.clone();
            let bucket = &mut self.0[bucket];
            bucket.fields.add(&fields);
            (bucket.manager, bucket.subresource, bucket.time) = (ANCIENT.to_owned(), String::new(), time);
            over -= 1;
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }
}

/// Whether a client wants the managers forgotten: it sends a list of one empty entry.
fn forgets(managers: &Value) -> bool {
    let entries = managers.as_array().map(Vec::as_slice);
    matches!(entries, Some([one]) if one.as_object().is_some_and(Map::is_empty))
}

/// Brings the managers of `new`, written over `old` (`None`: created) by an updater, up to date. Managers that the client sends with
/// the object are taken for those that it had, but not through a subresource; what an object is created with is its creator's. An object
/// whose managers nobody knows stays so.
pub fn track<'s>(types: impl Into<Types<'s>>, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let sent = new.meta_mut().remove("managedFields").filter(|_| writer.subresource.is_empty());
    if old.is_some() && sent.as_ref().is_some_and(forgets) {
        return;
    }
    let standing = old.and_then(|old| old.meta()?.get("managedFields"));
    // Most clients send what they have read.
    let sent = sent.filter(|sent| Some(sent) != standing).and_then(|sent| Managed::read(&sent));
    let nothing = json!({});
    let difference = compare(Form::of_object(types), old.unwrap_or(&nothing), new);
    if difference.is_empty() && sent.is_none() {
        if let Some(standing) = standing {
            new.meta_mut().insert("managedFields".to_owned(), standing.clone());
        }
        return;
    }
    let known = sent.or_else(|| standing.and_then(Managed::read));
    let Some(mut managed) = known.or_else(|| old.is_none().then(Managed::default)) else { return };
    managed.update(writer, &difference);
    managed.write(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn writer(manager: &str) -> Writer<'_> {
        Writer { manager, api_version: "v1", subresource: "", now: NOW }
    }

    fn managers(object: &Value) -> Vec<(String, Value)> {
        let entries = object.array_at("/metadata/managedFields").iter();
        entries
            .map(|entry| (entry.text("manager").unwrap_or_default().to_owned(), entry["fieldsV1"].clone()))
            .collect()
    }

    #[test]
    fn fields_go_to_who_changed_them_last() {
        let mut a = json!({"metadata": {"name": "m"}, "data": {"x": "1", "y": "1"}});
        track(Types::default(), None, &mut a, &writer("one"));
        assert_eq!(managers(&a), [("one".to_owned(), json!({"f:data": {".": {}, "f:x": {}, "f:y": {}}}))]);
        let mut b = a.clone();
        b["data"] = json!({"x": "2"});
        track(Types::default(), Some(&a), &mut b, &writer("two"));
        assert_eq!(
            managers(&b),
            [("one".to_owned(), json!({"f:data": {}})), ("two".to_owned(), json!({"f:data": {"f:x": {}}}))]
        );
        let mut same = b.clone();
        track(Types::default(), Some(&b), &mut same, &writer("three"));
        assert_eq!(same, b, "who changes nothing owns nothing");
    }

    #[test]
    fn managers_can_be_forgotten() {
        let mut a = json!({"metadata": {}, "data": {"x": "1"}});
        track(Types::default(), None, &mut a, &writer("one"));
        let mut b = json!({"metadata": {"managedFields": [{}]}, "data": {"x": "2"}});
        track(Types::default(), Some(&a), &mut b, &writer("one"));
        assert_eq!(managers(&b), []);
        let mut c = json!({"metadata": {}, "data": {"x": "3"}});
        track(Types::default(), Some(&b), &mut c, &writer("one"));
        assert_eq!(managers(&c), [], "and stay so");
    }

    #[test]
    fn a_creator_says_who_managed_what_the_object_does_not_have() {
        let entry = |manager: &str, fields: Value| {
            json!({"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "time": NOW, "fieldsV1": fields})
        };
        let sent = json!([entry("other", json!({"f:data": {"f:x": {}, "f:gone": {}}}))]);
        let mut a = json!({"metadata": {"managedFields": sent}, "data": {"x": "1"}});
        track(Types::default(), None, &mut a, &writer("one"));
        let expect = [
            ("other".to_owned(), json!({"f:data": {"f:gone": {}}})),
            ("one".to_owned(), json!({"f:data": {".": {}, "f:x": {}}})),
        ];
        assert_eq!(managers(&a), expect);
        let mut b = json!({"metadata": {"managedFields": [{}]}, "data": {"x": "1"}});
        track(Types::default(), None, &mut b, &writer("one"));
        assert_eq!(managers(&b).len(), 1, "there is nothing to forget");
    }

    #[test]
    fn the_oldest_updaters_share_an_entry() {
        let mut object = json!({"metadata": {}});
        track(Types::default(), None, &mut object, &writer("first"));
        object["metadata"]["labels"] = json!({"first": "x"});
        track(Types::default(), None, &mut object, &writer("first"));
        for n in 0..15 {
            let mut next = object.clone();
            next["metadata"]["labels"][format!("l{n}")] = "x".into();
            let now = format!("2026-01-01T00:00:{n:02}Z");
            let manager = format!("m{n:02}");
            track(Types::default(), Some(&object), &mut next, &Writer { now: &now, ..writer(&manager) });
            object = next;
        }
        let names: Vec<String> = managers(&object).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), MOST_UPDATERS);
        assert_eq!(names[0], ANCIENT);
    }

    #[test]
    fn a_subresource_has_an_entry_of_its_own() {
        let mut a = json!({"metadata": {}, "spec": {"a": 1}});
        track(Types::default(), None, &mut a, &writer("one"));
        let mut b = a.clone();
        b["status"] = json!({"b": 2});
        b["metadata"]["managedFields"] = json!([{}]);
        track(Types::default(), Some(&a), &mut b, &Writer { subresource: "status", ..writer("one") });
        assert_eq!(b["metadata"]["managedFields"][1]["subresource"], "status");
    }
}
