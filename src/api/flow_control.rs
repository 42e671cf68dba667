//! The FlowSchemas and PriorityLevelConfigurations that every cluster has, from `templates/flow-control.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// Says of an object that its spec follows the server's own.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Defaults {
    priority_levels: BTreeMap<String, Level>,
    flow_schemas: BTreeMap<String, Schema>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    #[serde(default)]
    mandatory: bool,
    #[serde(default)]
    exempt: bool,
    shares: i64,
    lendable: i64,
    queues: Option<[i64; 3]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    #[serde(default)]
    mandatory: bool,
    precedence: i64,
    level: String,
    by: Option<String>,
    to: Vec<String>,
    #[serde(default)]
    on: Vec<Vec<String>>,
}

/// One object that every cluster has.
pub struct Standard {
    pub object: Value,
    /// It cannot be done without: whatever people write into it, it is as it is here.
    pub mandatory: bool,
}

/// All of them, levels before the schemas that name them. Fails if the template cannot be read.
pub fn defaults() -> Result<Vec<Standard>, String> {
    let text = include_str!("../../templates/flow-control.yaml");
    let defaults: Defaults = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let levels = defaults.priority_levels.iter().map(|(name, level)| Standard {
        object: head("PriorityLevelConfiguration", name, level.spec()),
        mandatory: level.mandatory,
    });
    let schemas = defaults.flow_schemas.iter().map(|(name, schema)| Standard {
        object: head("FlowSchema", name, schema.spec()),
        mandatory: schema.mandatory,
    });
    Ok(levels.chain(schemas).collect())
}

fn head(kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "annotations": {AUTO_UPDATE: "true"}});
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})
}

impl Level {
    fn spec(&self) -> Value {
        let shares = json!({"nominalConcurrencyShares": self.shares, "lendablePercent": self.lendable});
        if self.exempt {
            return json!({"type": "Exempt", "exempt": shares});
        }
        let mut limited = shares;
        limited["limitResponse"] = match self.queues {
            None => json!({"type": "Reject"}),
            Some([queues, hand, length]) => json!({"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}),
        };
        json!({"type": "Limited", "limited": limited})
    }
}

impl Schema {
    fn spec(&self) -> Value {
        let words = |text: &str| -> Vec<String> {
            text.split(',').map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
        };
        let every = || vec!["*".to_owned()];
        let resource = |verbs, groups, resources, cluster: bool| {
            json!({"verbs": verbs, "apiGroups": groups, "resources": resources,
                "namespaces": every(), "clusterScope": cluster})
        };
        let (mut resources, mut urls) = (Vec::new(), Vec::new());
        for rule in &self.on {
            match &rule[..] {
                [verbs, paths] => urls.push(json!({"verbs": words(verbs), "nonResourceURLs": words(paths)})),
                [verbs, groups, names] => {
                    let cluster = names.contains("nodes");
                    resources.push(resource(words(verbs), words(groups), words(names), cluster));
                }
                _ => {}
            }
        }
        if self.on.is_empty() {
            resources.push(resource(every(), every(), every(), true));
            urls.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        let mut rule = json!({"subjects": self.to.iter().map(|to| subject(to)).collect::<Vec<_>>()});
        if !resources.is_empty() {
            rule["resourceRules"] = resources.into();
        }
        if !urls.is_empty() {
            rule["nonResourceRules"] = urls.into();
        }
        let mut spec = json!({"matchingPrecedence": self.precedence,
            "priorityLevelConfiguration": {"name": self.level}, "rules": [rule]});
        if let Some(by) = &self.by {
            spec["distinguisherMethod"] = json!({ "type": by });
        }
        spec
    }
}

fn subject(text: &str) -> Value {
    match text.split_once(' ') {
        Some(("User", name)) => json!({"kind": "User", "user": {"name": name}}),
        Some(("ServiceAccount", path)) => {
            let (namespace, name) = path.split_once('/').unwrap_or(("kube-system", path));
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}})
        }
        Some((_, name)) => json!({"kind": "Group", "group": {"name": name}}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Gvk, ObjectExt};
    use crate::resources::{Table, builtin};

    #[test]
    fn the_defaults_are_valid_objects_and_know_each_other() {
        let (defaults, table) = (defaults().unwrap(), Table::new(builtin()));
        assert_eq!(defaults.iter().filter(|default| default.mandatory).count(), 4);
        let names: Vec<&str> = defaults
            .iter()
            .filter(|default| default.object["kind"] == "PriorityLevelConfiguration")
            .map(|default| default.object.name())
            .collect();
        for default in &defaults {
            let row = table.by_kind(&Gvk::of_object(&default.object)).unwrap();
            let errors = row.judge(&default.object, None).errors;
            assert!(errors.is_empty(), "{}: {errors:?}", default.object);
            let level = default.object.str_at("/spec/priorityLevelConfiguration/name");
            assert!(level.is_none_or(|level| names.contains(&level)), "{level:?}");
        }
    }
}
