//! The configuration file of a cluster: read, checked, and turned into a specification.

mod expand;
mod foreign;
mod form;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::files::{Carried, CarriedFile};
use super::numbers;
use super::ports::{PortMapping, node_numbers};
use super::settings::{Addresses, HostAlias, Registries, is_pem};
use super::size::{Cpus, Memory};
use super::spec::{ClusterName, ClusterSpec, NodeSpec, SpecError, node_label, taint};
use config::{Brought, Datastore};
use expand::expand;
pub use form::schema;
use form::{DatastoreForm, FileForm, Form, RegistriesForm, Settings, check_keys};

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
    /// Of a file for another tool.
    #[error("minik cannot honour {key}: {why}")]
    Foreign { key: String, why: String },
    #[error(transparent)]
    Spec(#[from] SpecError),
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!(" in {at}") }
}

fn nearest(near: Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| format!(": did you mean {near:?}?"))
}

/// What a file asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterFile {
    pub spec: ClusterSpec,
    /// Images of Docker to load into it.
    pub images: Vec<String>,
    /// Files and secrets for its nodes.
    pub carried: Carried,
    /// Objects to apply to it: what to call each text in an error, and the text.
    pub manifests: Vec<(String, String)>,
    /// Registries to make before it: name, and where each listens on the host.
    pub registries: Vec<(ClusterName, Ipv4Addr, u16)>,
    /// Whether its nodes may pull with what `docker login` left on this machine.
    pub docker_login: bool,
    /// What of a file for another tool means nothing here.
    pub notes: Vec<String>,
}

impl ClusterFile {
    /// What there is without a file.
    pub fn of(spec: ClusterSpec) -> Self {
        Self {
            spec,
            images: Vec::new(),
            carried: Carried::default(),
            manifests: Vec::new(),
            registries: Vec::new(),
            docker_login: false,
            notes: Vec::new(),
        }
    }
}

/// Where a file stands, and what surrounds it.
pub struct Surroundings<'a> {
    /// The folder that paths in the file are relative to.
    pub dir: &'a Path,
    /// The cluster's name where the file gives none.
    pub name: &'a str,
    /// Looks up an environment variable.
    pub get: &'a dyn Fn(&str) -> Option<String>,
}

/// Where Debian and Ubuntu have the authorities that a machine's owner added.
const HOST_AUTHORITIES: &str = "/usr/local/share/ca-certificates";
/// The word that means them.
const HOST: &str = "host";
const REGISTRY_PORT: u16 = super::trust::REGISTRY_PORT;

/// Reads a file of minik's own form, or one for k3d or kind. Fails with the first thing that is wrong, or that minik cannot
/// honour.
pub fn parse(text: &str, around: &Surroundings<'_>) -> Result<ClusterFile, FileError> {
    let (value, notes) = translated(text, around)?;
    let form: Form = serde_json::from_value(value)
        .map_err(|error| FileError::Value { at: "the file".to_owned(), why: error.to_string() })?;
    let mut file = read(form, around)?;
    file.notes = notes;
    Ok(file)
}

/// Says a file for k3d or kind in minik's own form, as YAML, and what of it means nothing here. A file of minik's own comes
/// back with its variables filled in.
pub fn migrate(text: &str, around: &Surroundings<'_>) -> Result<(String, Vec<String>), FileError> {
    let (value, notes) = translated(text, around)?;
    let text = serde_yaml::to_string(&value).map_err(|error| FileError::Yaml(error.to_string()))?;
    Ok((text, notes))
}

/// The file's content in minik's own form, its keys checked.
fn translated(text: &str, around: &Surroundings<'_>) -> Result<(Value, Vec<String>), FileError> {
    let yaml =
        |text: &str| serde_yaml::from_str::<Value>(text).map_err(|error| FileError::Yaml(error.to_string()));
    let expanded = expand(text, around.get);
    // kind knows no variables: a dollar sign means itself there.
    let first = yaml(text);
    let (value, notes) = match first.as_ref().ok().and_then(|value| value["apiVersion"].as_str()) {
        Some(version) if version.starts_with("kind.x-k8s.io/") => foreign::kind(&first?)?,
        Some(version) if version.starts_with("k3d.io/") => foreign::k3d(&yaml(&expanded?)?, around.dir)?,
        _ => (yaml(&expanded?)?, Vec::new()),
    };
    check_keys(&value)?;
    Ok((value, notes))
}

fn read(form: Form, around: &Surroundings<'_>) -> Result<ClusterFile, FileError> {
    let servers = form.server.count.unwrap_or(1);
    let count = form.agents.count.unwrap_or_default().saturating_add(servers);
    let name = form.name.as_deref().unwrap_or(around.name).parse()?;
    let mut spec = ClusterSpec::with_servers(name, count, servers)?;
    spec.image = form.image;
    spec.api_address = form.api_address;
    spec.api_port = form.api_port;
    for port in &form.ports {
        spec.ports.push(text_of(port).parse::<PortMapping>()?);
    }
    for node in &mut spec.nodes {
        set(node, if node.is_server() { &form.server } else { &form.agents })?;
    }
    for (which, settings) in &form.nodes {
        let number = numbers::of_short_name(which);
        let node = spec.nodes.iter_mut().find(|node| Some(node.number) == number).ok_or_else(|| {
            FileError::Value {
                at: format!("nodes.{which}"),
                why: format!(
                    "there is no such node: {servers} server(s) and {} agent(s) are asked for",
                    count - servers
                ),
            }
        })?;
        set(node, settings)?;
    }
    spec.tls_sans = form.tls_sans;
    let network = form.network;
    spec.addresses = Addresses {
        network: network.docker,
        subnet: network.subnet,
        pods: network.pods,
        services: network.services,
    };
    spec.brought = Brought { cni: network.cni == Some(false), proxy: network.proxy == Some(false) };
    for (name, address) in &form.host_aliases {
        let alias: HostAlias = format!("{name}={address}").parse()?;
        spec.host_aliases.insert(alias.name, alias.address);
    }
    for word in &form.disable {
        let feature = word.parse().map_err(|why| FileError::Value { at: "disable".to_owned(), why })?;
        spec.disabled.insert(feature);
    }
    for (component, arguments) in &form.arguments {
        for (name, value) in arguments {
            let set = spec.arguments.set(component, name.trim_start_matches('-'), &text_of(value));
            set.map_err(|why| FileError::Value { at: "arguments".to_owned(), why })?;
        }
    }
    spec.datastore = form.datastore.as_ref().map(|form| datastore(form, around.dir)).transpose()?;
    let mut carried = Carried::default();
    for path in &form.certificates {
        carried.authorities.extend(certificates(path, around.dir)?);
    }
    for file in &form.files {
        carried.files.push(carried_file(file, &spec, around.dir)?);
    }
    let (registries, own) = read_registries(&form.registries, &mut carried, around.dir)?;
    spec.registries = registries;
    spec.validate()?;
    carried.validate()?;
    let manifest = |path: &String| Ok((path.clone(), text_in(&around.dir.join(path), "manifests")?));
    Ok(ClusterFile {
        spec,
        carried,
        images: form.images,
        manifests: form.manifests.iter().map(manifest).collect::<Result<_, FileError>>()?,
        registries: own,
        docker_login: form.registries.docker_login,
        notes: Vec::new(),
    })
}

fn datastore(form: &DatastoreForm, dir: &Path) -> Result<Datastore, FileError> {
    let path = |path: &Option<String>| path.as_ref().map(|path| dir.join(path));
    let (authority, certificate, key) = (path(&form.authority), path(&form.certificate), path(&form.key));
    Datastore::read(form.endpoints.clone(), authority.as_deref(), certificate.as_deref(), key.as_deref())
        .map_err(|why| FileError::Value { at: "datastore".to_owned(), why })
}

/// A file that the configuration names.
fn text_in(path: &Path, at: &str) -> Result<String, FileError> {
    let why = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    std::fs::read_to_string(path).map_err(|error| FileError::Value { at: at.to_owned(), why: why(error) })
}

/// The certificates in a file; or, for the word `host`, those that the machine's owner added to the system's. Fails when
/// one cannot be read, or is none.
pub fn certificates(path: &str, dir: &Path) -> Result<Vec<String>, FileError> {
    let paths: Vec<PathBuf> = match path {
        HOST => {
            let entries = std::fs::read_dir(HOST_AUTHORITIES).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.retain(|path| path.extension().is_some_and(|kind| kind == "crt"));
            paths.sort();
            paths
        }
        path => vec![dir.join(path)],
    };
    let mut texts = Vec::new();
    for path in paths {
        let text = text_in(&path, "certificates")?;
        if !is_pem(&text) {
            let why = format!("{} is no certificate in PEM form", path.display());
            return Err(FileError::Value { at: "certificates".to_owned(), why });
        }
        texts.push(text);
    }
    Ok(texts)
}

fn carried_file(file: &FileForm, spec: &ClusterSpec, dir: &Path) -> Result<CarriedFile, FileError> {
    let at = format!("files, {}", file.target);
    let wrong = |why: String| FileError::Value { at: at.clone(), why };
    let content = match (&file.source, &file.content) {
        (Some(source), None) => {
            let path = dir.join(source);
            std::fs::read(&path).map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?
        }
        (None, Some(content)) => content.clone().into_bytes(),
        _ => return Err(wrong("either source or content is expected".to_owned())),
    };
    let mode = match file.mode.as_ref().map(text_of) {
        None => 0o644,
        // As people write it; YAML takes a leading zero for decoration.
        Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| wrong(format!("{text:?} is no mode, for example \"0644\"")))?,
    };
    let known: Vec<u32> = spec.nodes.iter().map(|node| node.number).collect();
    let nodes = file.nodes.as_ref().map(|filter| node_numbers(filter, &known)).transpose().map_err(wrong)?;
    Ok(CarriedFile::new(&file.target, mode, &content, nodes)?)
}

type OwnRegistries = Vec<(ClusterName, Ipv4Addr, u16)>;

fn read_registries(
    form: &RegistriesForm,
    carried: &mut Carried,
    dir: &Path,
) -> Result<(Registries, OwnRegistries), FileError> {
    let mut registries = Registries {
        mirrors: form.mirrors.clone(),
        insecure: form.insecure.iter().cloned().collect(),
        ..Registries::default()
    };
    for (host, path) in &form.authorities {
        registries.authorities.insert(host.clone(), text_in(&dir.join(path), "registries.authorities")?);
    }
    for (host, credentials) in &form.credentials {
        let auth = STANDARD.encode(format!("{}:{}", credentials.username, credentials.password));
        carried.credentials.insert(host.clone(), auth);
    }
    let mut own = Vec::new();
    for create in &form.create {
        let wrong = |why: String| FileError::Value { at: "registries.create".to_owned(), why };
        let text = create.port.as_ref().map_or_else(|| REGISTRY_PORT.to_string(), text_of);
        let (ip, port) = match text.rsplit_once(':') {
            Some((ip, port)) => (ip.parse().map_err(|_| wrong(format!("{ip:?} is no address")))?, port),
            None => (Ipv4Addr::LOCALHOST, text.as_str()),
        };
        let port = port.parse().ok().filter(|port| *port > 0);
        own.push((create.name.parse()?, ip, port.ok_or_else(|| wrong(format!("{text:?} is no port")))?));
    }
    Ok((registries, own))
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: minik.dev/v1alpha1\nkind: Cluster\n";

    fn plain(text: &str) -> Result<ClusterFile, FileError> {
        let get = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        parse(text, &Surroundings { dir: Path::new("/nowhere"), name: "given", get: &get })
    }

    fn read(body: &str) -> Result<ClusterFile, String> {
        plain(&format!("{HEAD}{body}")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_cluster_has_beside_nodes() {
        let file = read(
            "network: {pods: 10.8.0.0/16, services: 10.9.0.0/24}\nhostAliases: {db.corp: 10.1.1.1}\ndisable: [ingress]\n\
             arguments: {kubelet: {max-pods: 20}, controllerManager: {node-monitor-grace-period: 20s}}\n\
             tlsSans: [api.corp]\nregistries:\n  create: [{name: dev, port: 5001}]\n  mirrors: {docker.io: ['https://m.corp']}\n  \
             credentials: {r.corp: {username: u, password: p}}\n  dockerLogin: true\n\
             files: [{content: hello, target: /etc/hello, mode: '0600', nodes: 'server:0'}]\n",
        )
        .expect("good");
        assert_eq!(file.spec.addresses.dns().to_string(), "10.9.0.10");
        assert_eq!(file.spec.host_aliases["db.corp"].to_string(), "10.1.1.1");
        assert!(file.spec.disabled.contains(&config::Feature::Ingress) && file.docker_login);
        assert_eq!(
            (file.spec.arguments.max_pods, file.spec.arguments.node_monitor_grace),
            (Some(20), Some(20))
        );
        assert_eq!(file.registries, [("dev".parse().expect("good"), Ipv4Addr::LOCALHOST, 5001)]);
        assert_eq!(file.carried.credentials["r.corp"], "dTpw");
        let hello = &file.carried.files[0];
        assert_eq!(
            (hello.nodes.as_deref(), hello.content.as_str(), hello.mode),
            (Some(&[0][..]), "aGVsbG8=", 0o600)
        );
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
    fn servers_may_be_several() {
        let file = read(
            "server: {count: 3, memory: 2Gi}\nagents: {count: 2}\nnodes: {server-2: {cpus: 2}, agent-1: {cpus: 1}}\n",
        )
        .expect("good");
        let cpus: Vec<_> = file.spec.nodes.iter().map(|node| (node.number, node.cpus.is_some())).collect();
        assert_eq!(cpus, [(0, false), (1, false), (2, true), (100, false), (101, true)]);
        assert!(file.spec.several && file.spec.servers().all(|server| server.memory.is_some()));
        for (body, part) in [
            ("server: {count: 0}", "0 servers"),
            ("nodes: {server-1: {}}", "1 server(s)"),
            ("server: {count: 8}", "8 servers"),
        ] {
            assert!(read(body).expect_err("refused").contains(part), "{body}");
        }
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
        check("network: {pod: 10.0.0.0/16}", "unknown key \"pod\" in network: did you mean \"pods\"?");
        check("registries: {mirror: {}}", "did you mean \"mirrors\"?");
        check("registries: {credentials: {a: {user: x}}}", "unknown key \"user\"");
        check("files: [{sorce: x, target: /a}]", "did you mean \"source\"?");
        check("files: [{target: /a}]", "either source or content");
        check("files: [{content: a, target: /a, mode: 9}]", "is no mode");
        check("manifests: [m.yaml]", "cannot read /nowhere/m.yaml");
        check("arguments: {kubelet: {maxpods: 20}}", "there are apiServer.service-node-port-range");
        check("arguments: {kubelet: {max-pods: 999}}", "max-pods is \"999\"");
        check("disable: [metrics]", "nothing is measured until somebody asks");
        check("disable: [dns]", "cannot be left out");
        check("hostAliases: {a: b}", "must be an IPv4 address");
        check("network: {subnet: 10.42.0.0/16}", "overlap");
        assert!(read("network: {cni: false}").expect("good").spec.brought.cni);
        check("colour: red", "unknown key \"colour\"");
        check("nodes: {agent-5: {}}", "no such node");
        check("agents: {count: many}", "the file");
        check("agents: {count: 1, memory: 1}", "at least 128Mi");
        check("name: ${NOBODY}", "${NOBODY} is not set");
        check("ports: ['80']", "invalid port");
        check("agents: {count: 200}", "1 to 100 nodes");
        let version = plain("apiVersion: v1\nkind: Cluster\n").expect_err("refused");
        assert_eq!(version, FileError::Version("v1".to_owned()));
        assert!(plain("[1]").is_err() && plain("a: [").is_err());
    }

    #[test]
    fn variables_have_defaults() {
        let get = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(
            expand("x: ${A} ${B:-two} $$ $x\n# ${C}\n", &get).expect("good"),
            "x: 1 two $ $x\n# ${C}\n"
        );
    }

    #[test]
    fn every_example_is_read() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates/clusters");
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the folder") {
            let path = entry.expect("entry").path();
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            plain(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            count += 1;
        }
        assert!(count >= 4);
    }
}
