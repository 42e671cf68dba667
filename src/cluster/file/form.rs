//! The form of a configuration file: its keys, and its JSON Schema.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{API_VERSION, FileError};
use crate::numbers::MAX_SERVERS;
use crate::spec::ClusterSpec;
use config::{Arguments, Feature};

const NODE: &[&str] = &["memory", "cpus", "labels", "taints", "env", "volumes"];
/// Of several nodes of one role: what it says of each of them, and how many there are.
const COUNTED: &[&str] = &["count", "memory", "cpus", "labels", "taints", "env", "volumes"];

/// Every object of the form: where it is, and its keys.
const TOP: &[&str] = &[
    "apiVersion",
    "kind",
    "name",
    "image",
    "apiAddress",
    "apiPort",
    "tlsSans",
    "server",
    "agents",
    "nodes",
    "ports",
    "network",
    "hostAliases",
    "registries",
    "certificates",
    "datastore",
    "disable",
    "arguments",
    "files",
    "manifests",
    "images",
];
const NETWORK: &[&str] = &["docker", "subnet", "pods", "services", "cni", "proxy"];
const REGISTRIES: &[&str] = &["create", "mirrors", "credentials", "dockerLogin", "authorities", "insecure"];
const DATASTORE: &[&str] = &["endpoints", "authority", "certificate", "key"];
const CREATE: &[&str] = &["name", "port"];
const CREDENTIALS: &[&str] = &["username", "password"];
const FILE: &[&str] = &["source", "content", "target", "mode", "nodes"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Form {
    pub(super) name: Option<String>,
    pub(super) image: Option<String>,
    pub(super) api_address: Option<std::net::Ipv4Addr>,
    pub(super) api_port: Option<u16>,
    pub(super) tls_sans: Vec<String>,
    pub(super) server: Settings,
    pub(super) agents: Settings,
    pub(super) nodes: BTreeMap<String, Settings>,
    pub(super) ports: Vec<Value>,
    pub(super) network: Network,
    pub(super) host_aliases: BTreeMap<String, String>,
    pub(super) registries: RegistriesForm,
    pub(super) certificates: Vec<String>,
    pub(super) datastore: Option<DatastoreForm>,
    pub(super) disable: Vec<String>,
    /// By component and name.
    pub(super) arguments: BTreeMap<String, BTreeMap<String, Value>>,
    pub(super) files: Vec<FileForm>,
    pub(super) manifests: Vec<String>,
    pub(super) images: Vec<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    pub(super) count: Option<u32>,
    pub(super) memory: Option<Value>,
    pub(super) cpus: Option<Value>,
    pub(super) labels: BTreeMap<String, Value>,
    pub(super) taints: Vec<String>,
    pub(super) env: BTreeMap<String, Value>,
    pub(super) volumes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Network {
    pub(super) docker: Option<String>,
    pub(super) subnet: Option<Ipv4Net>,
    pub(super) pods: Option<Ipv4Net>,
    pub(super) services: Option<Ipv4Net>,
    pub(super) cni: Option<bool>,
    pub(super) proxy: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RegistriesForm {
    pub(super) create: Vec<CreateForm>,
    pub(super) mirrors: BTreeMap<String, Vec<String>>,
    pub(super) credentials: BTreeMap<String, CredentialsForm>,
    pub(super) docker_login: bool,
    pub(super) authorities: BTreeMap<String, String>,
    pub(super) insecure: Vec<String>,
}

/// An etcd: its URLs, and files with certificates.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct DatastoreForm {
    pub(super) endpoints: Vec<String>,
    pub(super) authority: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct CreateForm {
    pub(super) name: String,
    pub(super) port: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct CredentialsForm {
    pub(super) username: String,
    pub(super) password: String,
}

#[derive(Deserialize)]
pub(super) struct FileForm {
    pub(super) source: Option<String>,
    pub(super) content: Option<String>,
    pub(super) target: String,
    pub(super) mode: Option<Value>,
    pub(super) nodes: Option<String>,
}

/// Fails with the first key that the form does not have.
pub(super) fn check_keys(value: &Value) -> Result<(), FileError> {
    let Value::Object(map) = value else { return Err(FileError::NotAMap) };
    known(value, TOP, "")?;
    match map.get("apiVersion").map(super::text_of) {
        Some(version) if version == API_VERSION => {}
        other => return Err(FileError::Version(other.unwrap_or_else(|| "missing".to_owned()))),
    }
    match map.get("kind").map(super::text_of) {
        Some(kind) if kind == "Cluster" => {}
        other => return Err(FileError::Kind(other.unwrap_or_else(|| "missing".to_owned()))),
    }
    let objects = [
        ("server", COUNTED),
        ("agents", COUNTED),
        ("network", NETWORK),
        ("registries", REGISTRIES),
        ("datastore", DATASTORE),
    ];
    for (key, list) in objects {
        known(&value[key], list, key)?;
    }
    let of_map = |pointer: &str| value.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    for (name, node) in of_map("/nodes") {
        known(node, NODE, &format!("nodes.{name}"))?;
    }
    for (name, credentials) in of_map("/registries/credentials") {
        known(credentials, CREDENTIALS, &format!("registries.credentials.{name}"))?;
    }
    let of_list = |pointer: &str| value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    for (at, create) in of_list("/registries/create").enumerate() {
        known(create, CREATE, &format!("registries.create[{at}]"))?;
    }
    for (at, file) in of_list("/files").enumerate() {
        known(file, FILE, &format!("files[{at}]"))?;
    }
    Ok(())
}

fn known(value: &Value, list: &'static [&'static str], at: &str) -> Result<(), FileError> {
    for key in value.as_object().into_iter().flat_map(|map| map.keys()) {
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
    let object = |properties: Value| json!({"type": "object", "additionalProperties": false, "properties": properties});
    let node = |count: Option<[u32; 2]>| {
        let mut properties = json!({
            "memory": scalar, "cpus": scalar, "labels": map, "taints": texts, "env": map, "volumes": texts,
        });
        if let Some([minimum, maximum]) = count {
            properties["count"] = json!({"type": "integer", "minimum": minimum, "maximum": maximum});
        }
        object(properties)
    };
    let registries = object(json!({
        "create": {"type": "array", "items": object(json!({"name": text, "port": scalar}))},
        "mirrors": {"type": "object", "additionalProperties": texts},
        "credentials": {"type": "object", "additionalProperties": object(json!({"username": text, "password": text}))},
        "dockerLogin": {"type": "boolean"},
        "authorities": {"type": "object", "additionalProperties": text},
        "insecure": texts,
    }));
    let file =
        object(json!({"source": text, "content": text, "target": text, "mode": scalar, "nodes": text}));
    let mut arguments = object(json!({}));
    for (component, name) in Arguments::ALL {
        let of_component = &mut arguments["properties"][component];
        if of_component.is_null() {
            *of_component = object(json!({}));
        }
        of_component["properties"][name] = scalar.clone();
    }
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
            "tlsSans": texts,
            "server": node(Some([1, MAX_SERVERS])),
            "agents": node(Some([0, ClusterSpec::MAX_NODES - 1])),
            "nodes": {"type": "object", "additionalProperties": node(None)},
            "ports": texts,
            "network": object(json!({"docker": text, "subnet": text, "pods": text, "services": text,
                "cni": {"type": "boolean"}, "proxy": {"type": "boolean"}})),
            "hostAliases": {"type": "object", "additionalProperties": {"type": "string", "format": "ipv4"}},
            "registries": registries,
            "certificates": texts,
            "arguments": arguments,
            "datastore": object(json!({"endpoints": texts, "authority": text, "certificate": text, "key": text})),
            "disable": {"type": "array", "items": {"enum": Feature::ALL.map(Feature::name)}},
            "files": {"type": "array", "items": file},
            "manifests": texts,
            "images": texts,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_form_s_keys() {
        let schema = schema();
        let keys = |pointer: &str| -> Vec<String> {
            let object = schema.pointer(pointer).and_then(Value::as_object).expect(pointer);
            object.keys().cloned().collect()
        };
        let check = |pointer: &str, list: &[&str]| {
            let mut sorted: Vec<String> = list.iter().map(ToString::to_string).collect();
            sorted.sort();
            let mut there = keys(pointer);
            there.sort();
            assert_eq!(there, sorted, "{pointer}");
        };
        check("/properties", TOP);
        check("/properties/agents/properties", COUNTED);
        check("/properties/server/properties", COUNTED);
        check("/properties/nodes/additionalProperties/properties", NODE);
        check("/properties/network/properties", NETWORK);
        check("/properties/registries/properties", REGISTRIES);
        check("/properties/datastore/properties", DATASTORE);
        check("/properties/registries/properties/create/items/properties", CREATE);
        check("/properties/files/items/properties", FILE);
    }
}
