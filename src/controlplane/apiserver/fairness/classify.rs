//! Which flow a request belongs to: the first FlowSchema that matches, and what tells its flows apart.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::counts::FlowCounts;
use super::level::{Queuing, Settings};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::meta::ObjectExt;
use metrics::Family;

const ANY: &str = "*";
const CATCH_ALL: &str = "catch-all";

/// What a request is placed by.
pub struct Flow<'c> {
    pub schema: &'c Schema,
    pub level: &'c LevelName,
    /// Tells the flow from others.
    pub hash: u64,
}

/// A FlowSchema, compiled.
pub struct Schema {
    pub name: Arc<str>,
    pub uid: HeaderValue,
    pub counts: Arc<FlowCounts>,
    level: LevelName,
    spec: Spec,
}

#[derive(Clone)]
pub struct LevelName {
    pub name: Arc<str>,
    pub uid: HeaderValue,
    pub exempt: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    matching_precedence: i64,
    priority_level_configuration: Named,
    distinguisher_method: Option<Method>,
    rules: Vec<Rule>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Method {
    r#type: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    user: Option<Named>,
    group: Option<Named>,
    service_account: Option<Account>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == ANY || one == wanted)
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        if let Some(named) = &self.user {
            return named.name == ANY || named.name == user.name;
        }
        if let Some(group) = &self.group {
            return group.name == ANY || user.in_group(&group.name);
        }
        let Some(wanted) = &self.service_account else { return false };
        user.as_service_account().is_some_and(|(namespace, name)| {
            wanted.namespace == namespace && (wanted.name == ANY || wanted.name == name)
        })
    }
}

impl Rule {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if info.is_resource {
                self.resource_rules.iter().any(|rule| rule.matches(info))
            } else {
                self.non_resource_rules.iter().any(|rule| rule.matches(info))
            }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let place = if info.namespace.is_empty() {
            self.cluster_scope
        } else {
            has(&self.namespaces, &info.namespace)
        };
        place
            && has(&self.verbs, info.verb)
            && has(&self.api_groups, &info.group)
            && (self.resources.iter().any(|one| one == ANY) || has(&self.resources, &info.resource_path()))
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        has(&self.verbs, info.verb)
            && self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(start) => info.path.starts_with(start),
                None => *url == info.path,
            })
    }
}

/// All FlowSchemas, in the order in which they are tried.
#[derive(Default)]
pub struct Config {
    schemas: Vec<Schema>,
    /// What counts when nothing matches.
    last: Option<Schema>,
}

impl Config {
    /// The flow of a request. The last schema takes what no other does.
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Flow<'_> {
        let matching =
            self.schemas.iter().find(|schema| schema.spec.rules.iter().any(|rule| rule.matches(user, info)));
        let schema = matching.or(self.last.as_ref()).expect("there is always the schema that takes all");
        let distinguisher =
            match schema.spec.distinguisher_method.as_ref().map(|method| method.r#type.as_str()) {
                Some("ByUser") => user.name.as_str(),
                Some("ByNamespace") => info.namespace.as_str(),
                _ => "",
            };
        let mut hasher = DefaultHasher::new();
        (&*schema.name, distinguisher).hash(&mut hasher);
        Flow { schema, level: &schema.level, hash: hasher.finish() }
    }
}

/// The objects as they are written, and the server's own where none are.
#[derive(Default)]
pub struct Objects {
    schemas: BTreeMap<String, Value>,
    levels: BTreeMap<String, Value>,
    defaults: Vec<(Value, bool)>,
    /// Kind and name of what people have deleted: the server's own suggestion does not count then.
    deleted: BTreeSet<(String, String)>,
}

impl Objects {
    pub fn set_default(&mut self, object: Value, mandatory: bool) {
        self.defaults.push((object, mandatory));
    }

    pub fn set(&mut self, plural: &str, name: &str, object: Option<&Value>) {
        let all = if plural == "flowschemas" { &mut self.schemas } else { &mut self.levels };
        let kind = if plural == "flowschemas" { "FlowSchema" } else { "PriorityLevelConfiguration" };
        let which = (kind.to_owned(), name.to_owned());
        match object {
            Some(object) => {
                self.deleted.remove(&which);
                all.insert(name.to_owned(), object.clone());
            }
            None => {
                self.deleted.insert(which);
                all.remove(name);
            }
        }
    }

    /// Every object of a kind that counts, by name.
    fn all<'o>(&'o self, kind: &str, own: &'o BTreeMap<String, Value>) -> BTreeMap<&'o str, &'o Value> {
        let mut all: BTreeMap<&str, &Value> =
            own.iter().map(|(name, object)| (name.as_str(), object)).collect();
        let defaults = self.defaults.iter().filter(|(object, _)| object["kind"] == kind);
        for (object, mandatory) in defaults {
            let deleted = self.deleted.contains(&(kind.to_owned(), object.name().to_owned()));
            if *mandatory || !deleted {
                all.entry(object.name()).or_insert(object);
            }
        }
        all
    }

    /// What requests are judged by: the schemas whose level is there, and the levels.
    pub fn compile(&self, flows: &Family<FlowCounts>) -> (Config, Vec<Settings>) {
        let levels = self.all("PriorityLevelConfiguration", &self.levels);
        let names: BTreeMap<&str, LevelName> = levels
            .iter()
            .map(|(name, level)| {
                let exempt = level.str_at("/spec/type") == Some("Exempt");
                (*name, LevelName { name: (*name).into(), uid: uid(level), exempt })
            })
            .collect();
        let mut schemas: Vec<Schema> = self
            .all("FlowSchema", &self.schemas)
            .into_iter()
            .filter_map(|(name, object)| {
                let spec: Spec = serde_json::from_value(object["spec"].clone()).ok()?;
                let level = names.get(spec.priority_level_configuration.name.as_str())?.clone();
                let counts = flows.of(&[&level.name, name]);
                Some(Schema { name: name.into(), uid: uid(object), counts, level, spec })
            })
            .collect();
        schemas.sort_by(|a, b| {
            (a.spec.matching_precedence, &a.name).cmp(&(b.spec.matching_precedence, &b.name))
        });
        let last = schemas.iter().position(|schema| &*schema.name == CATCH_ALL);
        let last = last.map(|at| schemas.remove(at)).or_else(|| schemas.pop());
        (Config { schemas, last }, levels.iter().map(|(name, level)| settings(name, level)).collect())
    }
}

fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(object.uid()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn settings(name: &str, level: &Value) -> Settings {
    let exempt = level.str_at("/spec/type") == Some("Exempt");
    let place = if exempt { "exempt" } else { "limited" };
    let number = |field: &str| level.int_at(&format!("/spec/{place}/{field}"));
    let queuing = |field: &str, other: i64| {
        let number = number(&format!("limitResponse/queuing/{field}")).unwrap_or(other);
        usize::try_from(number).unwrap_or(1).max(1)
    };
    let queues = level.str_at("/spec/limited/limitResponse/type") == Some("Queue");
    Settings {
        name: name.into(),
        exempt,
        shares: number("nominalConcurrencyShares")
            .unwrap_or(if exempt { 0 } else { 30 })
            .max(0)
            .unsigned_abs(),
        lendable_percent: number("lendablePercent").unwrap_or(0).clamp(0, 100).unsigned_abs(),
        borrowing_percent: number("borrowingLimitPercent").map(|percent| percent.max(0).unsigned_abs()),
        queuing: queues.then(|| Queuing {
            queues: queuing("queues", 64),
            hand: queuing("handSize", 8),
            length: queuing("queueLengthLimit", 50),
        }),
    }
}
