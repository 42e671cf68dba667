//! The configuration file of a cluster: read, checked, and turned into a specification.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ports::PortMapping;
use super::size::{Cpus, Memory};
use super::spec::{ClusterSpec, NodeSpec, SpecError, node_label, taint};

/// The version of the form.
pub const API_VERSION: &str = "minik.dev/v1alpha1";

/// Why a file was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FileError {
    #[error("it is not YAML: {0}")]
    Yaml(String),
    #[error("it is not a map")]
    NotAMap,
    #[error("unknown key {key:?}{}{}", place(at), nearest(*near))]
    UnknownKey { key: String, at: String, near: Option<&'static str> },
    #[error("{at}: {why}")]
    Value { at: String, why: String },
    #[error("apiVersion is {0}, this minik reads {API_VERSION}")]
    Version(String),
    #[error("kind is {0}, a configuration of minik is of kind Cluster")]
    Kind(String),
    #[error("${{{0}}} is not set, and the file gives no default (${{{0}:-DEFAULT}})")]
    Variable(String),
    #[error(transparent)]
    Spec(#[from] SpecError),
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!(" in {at}") }
}

fn nearest(near: Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| format!(": did you mean {near:?}?"))
}

const TOP: &[&str] = &[
    "apiVersion",
    "kind",
    "name",
    "image",
    "apiAddress",
    "apiPort",
    "server",
    "agents",
    "nodes",
    "ports",
    "images",
];
const NODE: &[&str] = &["memory", "cpus", "labels", "taints", "env", "volumes"];
const AGENTS: &[&str] = &["count", "memory", "cpus", "labels", "taints", "env", "volumes"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Form {
    name: Option<String>,
    image: Option<String>,
    api_address: Option<std::net::Ipv4Addr>,
    api_port: Option<u16>,
    server: Settings,
    agents: Settings,
    nodes: BTreeMap<String, Settings>,
    ports: Vec<Value>,
    images: Vec<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    count: u32,
    memory: Option<Value>,
    cpus: Option<Value>,
    labels: BTreeMap<String, Value>,
    taints: Vec<String>,
    env: BTreeMap<String, Value>,
    volumes: Vec<String>,
}

/// What a file asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterFile {
    pub spec: ClusterSpec,
    /// Images of Docker to load into it.
    pub images: Vec<String>,
}

/// Reads a file; `get` looks up environment variables, `name` is the cluster's where the file gives none. Fails with the
/// first thing that is wrong.
pub fn parse(text: &str, name: &str, get: impl Fn(&str) -> Option<String>) -> Result<ClusterFile, FileError> {
    let text = expand(text, get)?;
    let value: Value = serde_yaml::from_str(&text).map_err(|error| FileError::Yaml(error.to_string()))?;
    check_keys(&value)?;
    let form: Form = serde_json::from_value(value)
        .map_err(|error| FileError::Value { at: "the file".to_owned(), why: error.to_string() })?;
    let count = form.agents.count.saturating_add(1);
    let mut spec = ClusterSpec::new(form.name.as_deref().unwrap_or(name).parse()?, count)?;
    spec.image = form.image;
    spec.api_address = form.api_address;
    spec.api_port = form.api_port;
    for port in &form.ports {
        spec.ports.push(text_of(port).parse::<PortMapping>()?);
    }
    for node in &mut spec.nodes {
        set(node, if node.number == 0 { &form.server } else { &form.agents })?;
    }
    for (which, settings) in &form.nodes {
        let number = match (which.as_str(), which.strip_prefix("agent-")) {
            ("server-0", _) => Some(0),
            (_, Some(index)) => index.parse::<u32>().ok().map(|index| index + 1),
            _ => None,
        };
        let node = spec.nodes.iter_mut().find(|node| Some(node.number) == number).ok_or_else(|| {
            FileError::Value {
                at: format!("nodes.{which}"),
                why: format!("there is no such node: server-0 and {} agent(s) are asked for", count - 1),
            }
        })?;
        set(node, settings)?;
    }
    spec.validate()?;
    Ok(ClusterFile { spec, images: form.images })
}

/// Adds settings to a node; a size replaces the one before.
fn set(node: &mut NodeSpec, settings: &Settings) -> Result<(), FileError> {
    if let Some(memory) = &settings.memory {
        node.memory = Some(text_of(memory).parse::<Memory>()?);
    }
    if let Some(cpus) = &settings.cpus {
        node.cpus = Some(text_of(cpus).parse::<Cpus>()?);
    }
    for (key, value) in &settings.labels {
        let (key, value) = node_label(&format!("{key}={}", text_of(value)))?;
        node.labels.insert(key, value);
    }
    for text in &settings.taints {
        node.taints.push(taint(text)?);
    }
    node.env.extend(settings.env.iter().map(|(key, value)| format!("{key}={}", text_of(value))));
    for text in &settings.volumes {
        node.mounts.push(text.parse()?);
    }
    Ok(())
}

/// A scalar as it was written.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// `${NAME}` and `${NAME:-DEFAULT}`; `$$` is a dollar sign. Lines that are comments stay as they are.
fn expand(text: &str, get: impl Fn(&str) -> Option<String>) -> Result<String, FileError> {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('#') {
            out.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$$") {
                out.push('$');
                rest = after;
            } else if let Some((inside, after)) =
                rest.strip_prefix("${").and_then(|rest| rest.split_once('}'))
            {
                let (name, default) = match inside.split_once(":-") {
                    Some((name, default)) => (name, Some(default.to_owned())),
                    None => (inside, None),
                };
                let value = get(name).filter(|value| !value.is_empty()).or(default);
                out.push_str(&value.ok_or_else(|| FileError::Variable(name.to_owned()))?);
                rest = after;
            } else {
                out.push('$');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

fn check_keys(value: &Value) -> Result<(), FileError> {
    let Value::Object(map) = value else { return Err(FileError::NotAMap) };
    known(map.keys(), TOP, "")?;
    match map.get("apiVersion").map(text_of) {
        Some(version) if version == API_VERSION => {}
        other => return Err(FileError::Version(other.unwrap_or_else(|| "missing".to_owned()))),
    }
    match map.get("kind").map(text_of) {
        Some(kind) if kind == "Cluster" => {}
        other => return Err(FileError::Kind(other.unwrap_or_else(|| "missing".to_owned()))),
    }
    let keys = |value: &Value| {
        value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    for (key, list) in [("server", NODE), ("agents", AGENTS)] {
        if let Some(value) = map.get(key) {
            known(keys(value).iter(), list, key)?;
        }
    }
    for (name, value) in map.get("nodes").and_then(Value::as_object).into_iter().flatten() {
        known(keys(value).iter(), NODE, &format!("nodes.{name}"))?;
    }
    Ok(())
}

fn known<'a>(
    keys: impl Iterator<Item = &'a String>,
    list: &'static [&'static str],
    at: &str,
) -> Result<(), FileError> {
    for key in keys {
        if !list.contains(&key.as_str()) {
            let distance = |word: &&&str| edits(&key.to_lowercase(), &word.to_lowercase());
            let near = list.iter().min_by_key(distance).filter(|word| distance(word) <= 3).copied();
            return Err(FileError::UnknownKey { key: key.clone(), at: at.to_owned(), near });
        }
    }
    Ok(())
}

/// How many characters have to be changed, added or left out.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

/// The JSON Schema of the form.
pub fn schema() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": text});
    let scalar = json!({"type": ["string", "number"]});
    let map = json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}});
    let node = |with_count: bool| {
        let mut properties = json!({
            "memory": scalar, "cpus": scalar, "labels": map, "taints": texts, "env": map, "volumes": texts,
        });
        if with_count {
            properties["count"] =
                json!({"type": "integer", "minimum": 0, "maximum": ClusterSpec::MAX_NODES - 1});
        }
        json!({"type": "object", "additionalProperties": false, "properties": properties})
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "minik cluster",
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": "Cluster"},
            "name": text,
            "image": text,
            "apiAddress": {"type": "string", "format": "ipv4"},
            "apiPort": {"type": "integer", "minimum": 1, "maximum": 65535},
            "server": node(false),
            "agents": node(true),
            "nodes": {"type": "object", "additionalProperties": node(false)},
            "ports": texts,
            "images": texts,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: minik.dev/v1alpha1\nkind: Cluster\n";

    fn read(body: &str) -> Result<ClusterFile, String> {
        let get = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        parse(&format!("{HEAD}{body}"), "given", get).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_becomes_a_specification() {
        let file = read(
            "name: dev\napiPort: 6443\nserver: {memory: 2Gi}\nagents: {count: 2, cpus: 1.5, labels: {tier: 1}, volumes: ['${HOME}:/src']}\n\
             nodes: {agent-1: {taints: ['a=b:NoSchedule'], cpus: 2}}\nports: ['8080:80']\nimages: [redis]\n",
        )
        .expect("good");
        let [server, first, second] = file.spec.nodes.as_slice() else { panic!("{file:?}") };
        assert_eq!((file.spec.name.as_str(), file.spec.api_port), ("dev", Some(6443)));
        assert_eq!((server.memory, server.cpus), ("2Gi".parse().ok(), None));
        assert_eq!((first.cpus, second.cpus), ("1.5".parse().ok(), "2".parse().ok()));
        assert_eq!((first.labels["tier"].as_str(), first.mounts[0].source.as_str()), ("1", "/home/me"));
        assert!(first.taints.is_empty() && second.taints == ["a=b:NoSchedule"]);
        assert_eq!(file.images, ["redis"]);
        assert_eq!(read("").expect("good").spec.name.as_str(), "given");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |body: &str, part: &str| {
            let said = read(body).expect_err("refused");
            assert!(said.contains(part), "{body}: {said}");
        };
        check("agent: {count: 2}", "unknown key \"agent\": did you mean \"agents\"?");
        check("agents: {memroy: 2Gi}", "unknown key \"memroy\" in agents: did you mean \"memory\"?");
        check("nodes: {agent-0: {label: {}}}", "did you mean \"labels\"?");
        check("colour: red", "unknown key \"colour\"");
        check("nodes: {agent-5: {}}", "no such node");
        check("agents: {count: many}", "the file");
        check("agents: {count: 1, memory: 1}", "at least 128Mi");
        check("name: ${NOBODY}", "${NOBODY} is not set");
        check("ports: ['80']", "invalid port");
        check("agents: {count: 200}", "1 to 100 nodes");
        let version = parse("apiVersion: v1\nkind: Cluster\n", "x", |_| None).expect_err("refused");
        assert_eq!(version, FileError::Version("v1".to_owned()));
        assert!(parse("[1]", "x", |_| None).is_err() && parse("a: [", "x", |_| None).is_err());
    }

    #[test]
    fn variables_have_defaults() {
        let get = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(
            expand("x: ${A} ${B:-two} $$ $x\n# ${C}\n", get).expect("good"),
            "x: 1 two $ $x\n# ${C}\n"
        );
    }

    #[test]
    fn the_schema_knows_the_keys_the_reader_knows() {
        let schema = schema();
        let keys = |value: &Value| {
            let mut keys: Vec<String> =
                value["properties"].as_object().expect("a map").keys().cloned().collect();
            keys.sort();
            keys
        };
        let sorted = |list: &[&str]| {
            let mut list: Vec<String> = list.iter().map(ToString::to_string).collect();
            list.sort();
            list
        };
        assert_eq!(keys(&schema), sorted(TOP));
        assert_eq!(keys(&schema["properties"]["agents"]), sorted(AGENTS));
        assert_eq!(keys(&schema["properties"]["server"]), sorted(NODE));
    }

    #[test]
    fn every_example_is_read() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/clusters");
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the folder") {
            let path = entry.expect("entry").path();
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            let get = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
            parse(&text, "x", get).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            count += 1;
        }
        assert!(count >= 4);
    }
}
