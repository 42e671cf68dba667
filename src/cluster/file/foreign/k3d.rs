//! k3d's `k3d.io/v1alpha5`, and v1alpha4, which differs only in what its registries may do.

use std::path::Path;

use serde_json::{Value, json};

use super::{Ours, check, list, refuse, text};
use crate::file::FileError;
use config::Arguments;

const TOP: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "servers",
    "agents",
    "kubeAPI",
    "image",
    "network",
    "subnet",
    "token",
    "volumes",
    "ports",
    "options",
    "env",
    "registries",
    "hostAliases",
    "files",
];
/// What k3s applies by itself.
const MANIFESTS: &str = "/var/lib/rancher/k3s/server/manifests/";

/// How many nodes the file asks for.
#[derive(Clone, Copy)]
struct Nodes {
    servers: u32,
    agents: u32,
}

/// Answers the same cluster in minik's form, and what of the file means nothing here. Paths are relative to `dir`.
pub(in super::super) fn translate(value: &Value, dir: &Path) -> Result<(Value, Vec<String>), FileError> {
    let mut ours = Ours::new();
    check(value, "", TOP)?;
    if !matches!(value["apiVersion"].as_str(), Some("k3d.io/v1alpha5" | "k3d.io/v1alpha4"))
        || value["kind"] != "Simple"
    {
        let version = text(&value["apiVersion"]).unwrap_or_default();
        return Err(FileError::Version(format!(
            "{version}, of k3d's files only Simple of k3d.io/v1alpha5 is read"
        )));
    }
    if let Some(name) = text(&value["metadata"]["name"]) {
        ours.set(&["name"], json!(name));
    }
    let number = |key: &str| value[key].as_u64().and_then(|n| u32::try_from(n).ok());
    let nodes =
        Nodes { servers: number("servers").unwrap_or(1).max(1), agents: number("agents").unwrap_or(0) };
    for (role, count, usual) in [("server", nodes.servers, 1), ("agents", nodes.agents, 0)] {
        if count != usual {
            ours.set(&[role, "count"], json!(count));
        }
    }
    for (key, why) in [
        ("image", "k3s' images are not minik's: it makes its own node image"),
        ("token", "minik draws a token for each cluster"),
    ] {
        if text(&value[key]).is_some() {
            ours.note(key, why);
        }
    }
    api(&value["kubeAPI"], &mut ours)?;
    if let Some(network) = text(&value["network"]) {
        ours.set(&["network", "docker"], json!(network));
    }
    if let Some(subnet) = text(&value["subnet"]).filter(|subnet| subnet != "auto") {
        ours.set(&["network", "subnet"], json!(subnet));
    }
    for port in list(&value["ports"]) {
        let mapped = self::port(port, nodes)?;
        ours.push(&["ports"], json!(mapped));
    }
    volumes(&value["volumes"], nodes, dir, &mut ours)?;
    for entry in list(&value["env"]) {
        let variable = text(&entry["envVar"]).unwrap_or_default();
        let (key, value) = variable.split_once('=').unwrap_or((&variable, ""));
        for place in places(&entry["nodeFilters"], nodes)? {
            ours.set(
                &[&place[..], &["env".to_owned(), key.to_owned()]]
                    .concat()
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
                json!(value),
            );
        }
    }
    files(&value["files"], nodes, &mut ours)?;
    for alias in list(&value["hostAliases"]) {
        for name in list(&alias["hostnames"]).filter_map(text) {
            ours.set(&["hostAliases", &name], alias["ip"].clone());
        }
    }
    registries(&value["registries"], &mut ours)?;
    options(&value["options"], nodes, &mut ours)?;
    Ok(ours.done())
}

fn api(value: &Value, ours: &mut Ours) -> Result<(), FileError> {
    check(value, "kubeAPI", &["host", "hostIP", "hostPort"])?;
    if let Some(host) = text(&value["host"]) {
        ours.push(&["tlsSans"], json!(host));
        ours.note("kubeAPI.host", "the certificate vouches for it; the kubeconfig says the address");
    }
    if let Some(ip) = text(&value["hostIP"]) {
        ours.set(&["apiAddress"], json!(ip));
    }
    if let Some(port) = text(&value["hostPort"]).filter(|port| port != "random") {
        let number = port.parse::<u16>().map_err(|_| refuse("kubeAPI.hostPort", "it is no port"))?;
        ours.set(&["apiPort"], json!(number));
    }
    Ok(())
}

/// A filter in minik's words. `None`: no node, but the load balancer.
fn filter(text: &str, nodes: Nodes) -> Result<Option<String>, FileError> {
    let text = text.trim_start_matches('@');
    let text = text.trim_end_matches(":direct").trim_end_matches(":proxy");
    let wrong = || {
        refuse("nodeFilters", &format!("{text:?} names no node: server:0, agent:*, all or loadbalancer do"))
    };
    let (role, which) = text.split_once(':').unwrap_or((text, "*"));
    let (role, count) = match role {
        "loadbalancer" => return Ok(None),
        "all" => return Ok(Some("all".to_owned())),
        "server" | "servers" => ("server", nodes.servers),
        "agent" | "agents" => ("agent", nodes.agents),
        _ => return Err(wrong()),
    };
    if which == "*" {
        return Ok(Some(format!("{role}:*")));
    }
    let mut parts = Vec::new();
    for index in which.split(',') {
        let index: u32 = index.parse().map_err(|_| wrong())?;
        if index >= count {
            return Err(refuse("nodeFilters", &format!("{text:?}: there is no {role}:{index}")));
        }
        parts.push(format!("{role}:{index}"));
    }
    Ok(Some(parts.join(";")))
}

/// The filters of an entry as one; `None`: all nodes.
fn filters(value: &Value, nodes: Nodes) -> Result<Option<String>, FileError> {
    let mut parts = Vec::new();
    // One text may hold several as well.
    for one in list(value)
        .filter_map(text)
        .flat_map(|text| text.split(';').map(ToOwned::to_owned).collect::<Vec<_>>())
    {
        match filter(&one, nodes)? {
            Some(part) => parts.push(part),
            None => {
                return Err(refuse(
                    "nodeFilters",
                    "the load balancer is no node in minik: only ports go through it",
                ));
            }
        }
    }
    Ok((!parts.is_empty() && !parts.contains(&"all".to_owned())).then(|| parts.join(";")))
}

/// The places in minik's file that a filter means, for what is said of nodes there.
fn places(value: &Value, nodes: Nodes) -> Result<Vec<Vec<String>>, FileError> {
    let Some(filter) = filters(value, nodes)? else {
        let mut all = vec![vec!["server".to_owned()]];
        if nodes.agents > 0 {
            all.push(vec!["agents".to_owned()]);
        }
        return Ok(all);
    };
    let part = |part: &str| match part.split_once(':') {
        Some(("server", index)) if index == "*" || nodes.servers == 1 => vec!["server".to_owned()],
        Some((_, "*")) => vec!["agents".to_owned()],
        Some((role, index)) => vec!["nodes".to_owned(), format!("{role}-{index}")],
        None => vec!["server".to_owned()],
    };
    Ok(filter.split(';').map(part).collect())
}

fn port(entry: &Value, nodes: Nodes) -> Result<String, FileError> {
    check(entry, "ports", &["port", "nodeFilters"])?;
    let mapping = text(&entry["port"]).ok_or_else(|| refuse("ports", "port is missing"))?;
    let (numbers, protocol) = match mapping.split_once('/') {
        Some((numbers, "tcp")) => (numbers.to_owned(), ""),
        Some((numbers, "udp")) => (numbers.to_owned(), "/udp"),
        Some(_) => return Err(refuse("ports", "host ports are TCP or UDP")),
        None => (mapping.clone(), ""),
    };
    let parts: Vec<&str> = numbers.split(':').collect();
    // k3d listens for every machine where nothing else is said.
    let (ip, host, inside) = match parts.as_slice() {
        [host, inside] => ("0.0.0.0", *host, *inside),
        [ip, host, inside] => (*ip, *host, *inside),
        _ => return Err(refuse("ports", &format!("{mapping:?} does not say the port of the host"))),
    };
    let mut parts = Vec::new();
    let mut balanced = false;
    for text in list(&entry["nodeFilters"]).filter_map(text) {
        for one in text.split(';') {
            match filter(one, nodes)? {
                Some(part) => parts.push(part),
                None => balanced = true,
            }
        }
    }
    // What k3d's load balancer carries goes to that port of every node: a NodePort, or what serves LoadBalancers.
    let node_port = inside.parse::<u16>().is_ok_and(|port| (30_000..=32_767).contains(&port));
    let target = match (parts.is_empty() || balanced, node_port) {
        (true, false) => "loadbalancer".to_owned(),
        (true, true) => "all".to_owned(),
        (false, _) => parts.join(";"),
    };
    Ok(format!("{ip}:{host}:{inside}{protocol}@{target}"))
}

fn volumes(value: &Value, nodes: Nodes, dir: &Path, ours: &mut Ours) -> Result<(), FileError> {
    for entry in list(value) {
        check(entry, "volumes", &["volume", "nodeFilters"])?;
        let volume = text(&entry["volume"]).ok_or_else(|| refuse("volumes", "volume is missing"))?;
        let (source, rest) =
            volume.split_once(':').ok_or_else(|| refuse("volumes", &format!("{volume:?} has no source")))?;
        if !source.starts_with(['/', '.', '~']) {
            return Err(refuse(
                "volumes",
                &format!("{source:?} is a volume of Docker: only folders of the host are carried in"),
            ));
        }
        let source = match source.strip_prefix("~/") {
            Some(below) => format!("${{HOME}}/{below}"),
            None => dir.join(source).display().to_string(),
        };
        if rest.starts_with(MANIFESTS) {
            ours.push(&["manifests"], json!(source));
            continue;
        }
        for place in places(&entry["nodeFilters"], nodes)? {
            let mut path: Vec<&str> = place.iter().map(String::as_str).collect();
            path.push("volumes");
            ours.push(&path, json!(format!("{source}:{rest}")));
        }
    }
    Ok(())
}

fn files(value: &Value, nodes: Nodes, ours: &mut Ours) -> Result<(), FileError> {
    for entry in list(value) {
        check(entry, "files", &["description", "source", "destination", "nodeFilters"])?;
        let part = |key: &str| text(&entry[key]).ok_or_else(|| refuse("files", &format!("{key} is missing")));
        let (source, target) = (part("source")?, part("destination")?);
        let inline = source.contains('\n');
        let manifest = target.starts_with(MANIFESTS) || target.starts_with("k3s-manifests");
        if manifest && !inline {
            ours.push(&["manifests"], json!(source));
            continue;
        }
        if !target.starts_with('/') || manifest {
            let why =
                format!("{target:?}: an absolute path in the node, and for manifests a file, is expected");
            return Err(refuse("files.destination", &why));
        }
        let mut file = json!({"target": target});
        file[if inline { "content" } else { "source" }] = json!(source);
        if let Some(filter) = filters(&entry["nodeFilters"], nodes)? {
            file["nodes"] = json!(filter);
        }
        ours.push(&["files"], file);
    }
    Ok(())
}

fn registries(value: &Value, ours: &mut Ours) -> Result<(), FileError> {
    check(value, "registries", &["create", "use", "config"])?;
    let create = &value["create"];
    if create.is_object() {
        check(
            create,
            "registries.create",
            &["name", "host", "hostPort", "image", "proxy", "volumes", "enforcePortMatch"],
        )?;
        if create["proxy"].is_object() {
            return Err(refuse(
                "registries.create.proxy",
                "a registry of minik's serves what is pushed to it; use a mirror",
            ));
        }
        for key in ["image", "volumes"] {
            if !create[key].is_null() {
                ours.note(
                    &format!("registries.create.{key}"),
                    "minik's own registry has its own image and volume",
                );
            }
        }
        let name = text(&create["name"]).unwrap_or_else(|| "default".to_owned());
        let name = name.split('.').next().unwrap_or_default().to_owned();
        let mut ours_create = json!({"name": name});
        let host = text(&create["host"]).map(|host| format!("{host}:")).unwrap_or_default();
        if let Some(port) = text(&create["hostPort"]).filter(|port| port != "random") {
            ours_create["port"] = json!(format!("{host}{port}"));
        }
        ours.push(&["registries", "create"], ours_create);
        let why = format!("in clusters it is called minik-registry-{name}:5000, and localhost with its port");
        ours.note("registries.create.name", &why);
    }
    for used in list(&value["use"]).filter_map(text) {
        let why =
            format!("{used}: registries of minik's own are known to every cluster; others go under mirrors");
        ours.note("registries.use", &why);
    }
    if let Some(config) = text(&value["config"]) {
        let parsed: Value = if config.contains('\n') {
            serde_yaml::from_str(&config).map_err(|error| FileError::Yaml(error.to_string()))?
        } else {
            return Err(refuse("registries.config", "say its content here, or carry it over to registries"));
        };
        registries_config(&parsed, ours);
    }
    Ok(())
}

/// k3s' own form of mirrors and credentials.
fn registries_config(config: &Value, ours: &mut Ours) {
    for (host, mirror) in config["mirrors"].as_object().into_iter().flatten() {
        ours.set(&["registries", "mirrors", host], mirror["endpoint"].clone());
        if !mirror["rewrite"].is_null() {
            ours.note("registries.config.mirrors.rewrite", "names are asked for as they are");
        }
    }
    for (host, settings) in config["configs"].as_object().into_iter().flatten() {
        if let (Some(user), Some(password)) =
            (text(&settings["auth"]["username"]), text(&settings["auth"]["password"]))
        {
            let credentials = json!({"username": user, "password": password});
            ours.set(&["registries", "credentials", host], credentials);
        }
        if settings["tls"]["insecure_skip_verify"] == true {
            ours.push(&["registries", "insecure"], json!(host));
        }
        if let Some(file) = text(&settings["tls"]["ca_file"]) {
            ours.set(&["registries", "authorities", host], json!(file));
            ours.note("registries.config.configs.tls.ca_file", "it is read on the host, not in the node");
        }
    }
}

fn options(value: &Value, nodes: Nodes, ours: &mut Ours) -> Result<(), FileError> {
    check(value, "options", &["k3d", "k3s", "kubeconfig", "runtime"])?;
    for (key, _) in value["k3d"].as_object().into_iter().flatten() {
        let (key, why) = (
            format!("options.k3d.{key}"),
            match key.as_str() {
                "wait" => "say --no-wait",
                "timeout" => "say --timeout",
                "disableRollback" => "say --no-rollback",
                "disableLoadbalancer" | "disableImageVolume" | "loadbalancer" => {
                    "minik has a container for each host port only"
                }
                _ => "minik has no such option",
            },
        );
        ours.note(&key, why);
    }
    for (key, on) in value["kubeconfig"].as_object().into_iter().flatten() {
        match (key.as_str(), on.as_bool()) {
            ("updateDefaultKubeconfig", Some(false)) => {
                ours.note("options.kubeconfig.updateDefaultKubeconfig", "say --no-kubeconfig")
            }
            ("switchCurrentContext", Some(false)) => {
                ours.note("options.kubeconfig.switchCurrentContext", "say --no-switch")
            }
            _ => {}
        }
    }
    let runtime = &value["runtime"];
    for (key, setting) in runtime.as_object().into_iter().flatten() {
        let of = |which: &'static str| (which, setting.clone());
        match key.as_str() {
            "serversMemory" | "agentsMemory" if text(setting).is_none() => {}
            "serversMemory" => ours.set(&[of("server").0, "memory"], setting.clone()),
            "agentsMemory" => ours.set(&[of("agents").0, "memory"], setting.clone()),
            "labels" => ours.note("options.runtime.labels", "labels of containers are minik's own"),
            "gpuRequest" if text(setting).is_none() => {}
            "hostPidMode" if *setting == false => {}
            key => return Err(refuse(&format!("options.runtime.{key}"), "nodes cannot be had so")),
        }
    }
    let k3s = &value["k3s"];
    check(k3s, "options.k3s", &["extraArgs", "nodeLabels"])?;
    for entry in list(&k3s["nodeLabels"]) {
        let label = text(&entry["label"]).unwrap_or_default();
        label_nodes(&label, &entry["nodeFilters"], nodes, ours)?;
    }
    for entry in list(&k3s["extraArgs"]) {
        let argument = text(&entry["arg"]).unwrap_or_default();
        k3s_argument(&argument, &entry["nodeFilters"], nodes, ours)?;
    }
    Ok(())
}

fn label_nodes(label: &str, filters: &Value, nodes: Nodes, ours: &mut Ours) -> Result<(), FileError> {
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    for place in places(filters, nodes)? {
        let mut path: Vec<&str> = place.iter().map(String::as_str).collect();
        path.extend(["labels", key]);
        ours.set(&path, json!(value));
    }
    Ok(())
}

/// Arguments of k3s that mean something here.
fn k3s_argument(argument: &str, filters: &Value, nodes: Nodes, ours: &mut Ours) -> Result<(), FileError> {
    let (name, value) =
        argument.trim_start_matches('-').split_once('=').unwrap_or((argument.trim_start_matches('-'), ""));
    match (name, value) {
        ("disable" | "no-deploy", values) => {
            for value in values.split(',') {
                match value {
                    "traefik" => ours.push(&["disable"], json!("ingress")),
                    "servicelb" => ours.push(&["disable"], json!("loadBalancer")),
                    "metrics-server" => {
                        ours.note("--disable=metrics-server", "nothing runs for metrics here")
                    }
                    other => {
                        return Err(refuse(&format!("--disable={other}"), "it is a part of every cluster"));
                    }
                }
            }
        }
        ("disable-network-policy", _) => ours.push(&["disable"], json!("networkPolicy")),
        ("cluster-cidr", value) => ours.set(&["network", "pods"], json!(value)),
        ("service-cidr", value) => ours.set(&["network", "services"], json!(value)),
        ("tls-san", value) => ours.push(&["tlsSans"], json!(value)),
        ("node-label", value) => label_nodes(value, filters, nodes, ours)?,
        ("node-taint", value) => {
            for place in places(filters, nodes)? {
                let mut path: Vec<&str> = place.iter().map(String::as_str).collect();
                path.push("taints");
                ours.push(&path, json!(value));
            }
        }
        ("service-node-port-range", value) => {
            ours.set(&["arguments", "apiServer", name], json!(value));
        }
        ("kube-apiserver-arg", given) => component_argument("apiServer", given, argument, ours),
        ("kube-controller-manager-arg", given) => {
            component_argument("controllerManager", given, argument, ours);
        }
        ("kubelet-arg", given) if list(filters).all(|filter| filter == "all") => {
            component_argument("kubelet", given, argument, ours);
        }
        ("kubelet-arg", _) => ours.note(argument, "arguments are for all nodes, not for some"),
        ("flannel-backend", "none") => ours.set(&["network", "cni"], json!(false)),
        _ => ours.note(argument, "there is no k3s in minik to give this to"),
    }
    Ok(())
}

/// An argument that is passed on to one of upstream's components.
fn component_argument(component: &str, given: &str, argument: &str, ours: &mut Ours) {
    let (name, value) = given.trim_start_matches('-').split_once('=').unwrap_or((given, ""));
    match Arguments::ALL.contains(&(component, name)) {
        true => ours.set(&["arguments", component, name], json!(value)),
        false => ours.note(argument, "minik has nothing that this sets"),
    }
}
