//! A container's environment.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, FileKeySelector, Pod};

use super::env_file::EnvFiles;
use super::expand;
use super::fields::{self, Facts, FieldError};
use crate::kubelet::objects::Kind;
use crate::kubelet::services::Service;

/// Why a container's environment cannot be made; the text is what users see as CreateContainerConfigError.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    #[error("{} \"{name}\" not found", kind.lower())]
    Missing { kind: Kind, name: String },
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.name())]
    Key { kind: Kind, namespace: String, name: String, key: String },
    #[error("cannot read environment file {path:?} of volume {volume:?}: {why}")]
    File { volume: String, path: String, why: String },
    #[error("environment variable key {key:?} not found in file {path:?} of volume {volume:?}")]
    FileKey { volume: String, path: String, key: String },
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// The contents of one ConfigMap or Secret.
pub type Data = Arc<BTreeMap<String, Vec<u8>>>;

/// The ConfigMaps and Secrets a Pod refers to, as far as they exist.
#[derive(Clone, Debug, Default)]
pub struct Source(pub HashMap<(Kind, String), Option<Data>>);

impl Source {
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Data> {
        self.0.get(&(kind, name.to_owned()))?.as_ref()
    }
}

/// What goes into one container's environment.
pub struct Environment<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub source: &'a Source,
    pub facts: &'a Facts,
    /// Services of the Pod's namespace (and `default/kubernetes`), for variables.
    pub services: &'a [Service],
    /// The files in volumes that variables are read from.
    pub files: &'a EnvFiles,
}

/// The variables, in order: Services, then envFrom, then env; later ones replace earlier ones of the same name.
pub fn environment(input: &Environment<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut vars = Vars::default();
    for (name, value) in service_variables(input.pod, input.services) {
        vars.set(&name, value);
    }
    for from in input.container.env_from.iter().flatten() {
        let reference = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => Some((Kind::ConfigMap, &map.name, map.optional)),
            (None, Some(secret)) => Some((Kind::Secret, &secret.name, secret.optional)),
            (None, None) => None,
        };
        let Some((kind, name, optional)) = reference else { continue };
        let Some(data) = input.source.get(kind, name) else {
            if optional == Some(true) {
                continue;
            }
            return Err(EnvError::Missing { kind, name: name.clone() });
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in data.iter() {
            vars.set(&format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    for var in input.container.env.iter().flatten() {
        if let Some(value) = value_of(input, var, &vars)? {
            vars.set(&var.name, value);
        }
    }
    Ok(vars.list)
}

#[derive(Default)]
struct Vars {
    list: Vec<(String, String)>,
}

impl Vars {
    fn set(&mut self, name: &str, value: String) {
        match self.list.iter_mut().find(|(have, _)| have == name) {
            Some((_, old)) => *old = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

fn value_of(input: &Environment<'_>, var: &EnvVar, vars: &Vars) -> Result<Option<String>, EnvError> {
    let Some(from) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, |name| vars.get(name))));
    };
    reference(input, from)
}

fn reference(input: &Environment<'_>, from: &EnvVarSource) -> Result<Option<String>, EnvError> {
    if let Some(field) = &from.field_ref {
        return Ok(Some(fields::field(input.pod, &field.field_path, input.facts)?));
    }
    if let Some(resource) = &from.resource_field_ref {
        return Ok(Some(fields::resource_field(input.pod, input.container, resource, input.facts)?));
    }
    if let Some(file) = &from.file_key_ref {
        return file_key(input.files, file);
    }
    let (kind, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, &map.key, map.optional),
        (None, Some(secret)) => (Kind::Secret, &secret.name, &secret.key, secret.optional),
        (None, None) => return Ok(None),
    };
    let data = input.source.get(kind, name);
    match (data, data.and_then(|data| data.get(key))) {
        (_, Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        _ if optional == Some(true) => Ok(None),
        (None, _) => Err(EnvError::Missing { kind, name: name.clone() }),
        (Some(_), None) => {
            let namespace = input.pod.metadata.namespace.clone().unwrap_or_default();
            Err(EnvError::Key { kind, namespace, name: name.clone(), key: key.clone() })
        }
    }
}

/// The value of a key in a file; a file or key that may be missing and is gives none.
fn file_key(files: &EnvFiles, from: &FileKeySelector) -> Result<Option<String>, EnvError> {
    let (volume, path) = (from.volume_name.clone(), from.path.clone());
    let found = match files.get(&(volume.clone(), path.clone())) {
        Some(Ok(variables)) => variables.get(&from.key).cloned(),
        Some(Err(why)) => return Err(EnvError::File { volume, path, why: why.clone() }),
        None if from.optional == Some(true) => None,
        None => return Err(EnvError::File { volume, path, why: "no such file".to_owned() }),
    };
    match found {
        None if from.optional != Some(true) => Err(EnvError::FileKey { volume, path, key: from.key.clone() }),
        found => Ok(found),
    }
}

/// Docker-style link variables. The API server's Service is always told; the namespace's own unless the Pod opts out.
pub fn service_variables(pod: &Pod, services: &[Service]) -> Vec<(String, String)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let api = |service: &&Service| service.namespace == "default" && service.name == "kubernetes";
    let mut told: Vec<&Service> = services.iter().filter(api).collect();
    if links {
        told.extend(services.iter().filter(|s| s.namespace == namespace && !api(s)));
    }
    told.into_iter()
        .flat_map(|service| link_variables(&service.name, service.cluster_ip, &service.ports))
        .collect()
}

fn link_variables(name: &str, ip: Ipv4Addr, ports: &[(String, u16, String)]) -> Vec<(String, String)> {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(name);
    let Some((_, first, protocol)) = ports.first() else { return Vec::new() };
    let mut vars = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_string()),
        (format!("{prefix}_SERVICE_PORT"), first.to_string()),
    ];
    for (port_name, port, _) in ports.iter().filter(|(name, ..)| !name.is_empty()) {
        vars.push((format!("{prefix}_SERVICE_PORT_{}", upper(port_name)), port.to_string()));
    }
    vars.push((format!("{prefix}_PORT"), format!("{}://{ip}:{first}", protocol.to_lowercase())));
    for (_, port, protocol) in ports {
        let stem = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        let lower = protocol.to_lowercase();
        vars.push((stem.clone(), format!("{lower}://{ip}:{port}")));
        vars.push((format!("{stem}_PROTO"), lower));
        vars.push((format!("{stem}_PORT"), port.to_string()));
        vars.push((format!("{stem}_ADDR"), ip.to_string()));
    }
    vars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing::pod;
    use serde_json::json;

    fn data(pairs: &[(&str, &str)]) -> Option<Data> {
        Some(Arc::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()))
    }

    fn check(container: serde_json::Value, expect: Result<&[(&str, &str)], &str>) {
        let pod = pod(
            json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": [container]}}),
        );
        let source = Source(HashMap::from([
            ((Kind::ConfigMap, "conf".into()), data(&[("a", "1"), ("b", "2")])),
            ((Kind::Secret, "gone".into()), None),
        ]));
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        let facts = Facts::default();
        let files = EnvFiles::from([
            (("v".into(), "env".into()), Ok(BTreeMap::from([("A".to_owned(), "1".to_owned())]))),
            (("v".into(), "bad".into()), Err("line 1: no".to_owned())),
        ]);
        let input = Environment {
            pod: &pod,
            container,
            source: &source,
            facts: &facts,
            services: &[],
            files: &files,
        };
        let expect = expect
            .map(|vars| vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
            .map_err(str::to_owned);
        assert_eq!(environment(&input).map_err(|error| error.to_string()), expect, "{container:?}");
    }

    #[test]
    fn values_references_and_expansion() {
        check(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "conf"}}],
                "env": [{"name": "X", "value": "$(P_a)-$(LATER)"}, {"name": "LATER", "value": "y"},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "P_b", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}}]}),
            Ok(&[("P_a", "1"), ("P_b", "1"), ("X", "1-$(LATER)"), ("LATER", "y"), ("N", "web")]),
        );
        check(
            json!({"name": "c", "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]}),
            Err("secret \"gone\" not found"),
        );
        check(
            json!({"name": "c", "env": [{"name": "S", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "z"}}}]}),
            Err("couldn't find key z in ConfigMap shop/conf"),
        );
        check(json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone", "optional": true}}]}), Ok(&[]));
    }

    #[test]
    fn variables_are_read_from_files() {
        let of = |path: &str, key: &str, optional: bool| {
            let from = json!({"volumeName": "v", "path": path, "key": key, "optional": optional});
            json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fileKeyRef": from}}]})
        };
        check(of("env", "A", false), Ok(&[("X", "1")]));
        check(of("env", "B", true), Ok(&[]));
        check(of("none", "A", true), Ok(&[]));
        let missing = "environment variable key \"B\" not found in file \"env\" of volume \"v\"";
        check(of("env", "B", false), Err(missing));
        let none = "cannot read environment file \"none\" of volume \"v\": no such file";
        check(of("none", "A", false), Err(none));
        let bad = "cannot read environment file \"bad\" of volume \"v\": line 1: no";
        check(of("bad", "A", true), Err(bad));
    }

    #[test]
    fn services_become_variables() {
        let vars =
            link_variables("redis-db", Ipv4Addr::new(10, 43, 0, 9), &[("main".into(), 6379, "TCP".into())]);
        let expect = [
            ("REDIS_DB_SERVICE_HOST", "10.43.0.9"),
            ("REDIS_DB_SERVICE_PORT", "6379"),
            ("REDIS_DB_SERVICE_PORT_MAIN", "6379"),
            ("REDIS_DB_PORT", "tcp://10.43.0.9:6379"),
            ("REDIS_DB_PORT_6379_TCP", "tcp://10.43.0.9:6379"),
            ("REDIS_DB_PORT_6379_TCP_PROTO", "tcp"),
            ("REDIS_DB_PORT_6379_TCP_PORT", "6379"),
            ("REDIS_DB_PORT_6379_TCP_ADDR", "10.43.0.9"),
        ];
        assert_eq!(vars, expect.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
