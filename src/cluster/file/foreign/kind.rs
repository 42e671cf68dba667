//! kind's `kind.x-k8s.io/v1alpha4`.

use serde_json::{Value, json};

use super::{Ours, check, list, refuse, text};
use crate::file::FileError;
use config::Arguments;

const TOP: &[&str] = &[
    "kind",
    "apiVersion",
    "name",
    "nodes",
    "networking",
    "featureGates",
    "runtimeConfig",
    "kubeadmConfigPatches",
    "kubeadmConfigPatchesJSON6902",
    "containerdConfigPatches",
    "containerdConfigPatchesJSON6902",
];
const NETWORKING: &[&str] = &[
    "ipFamily",
    "apiServerAddress",
    "apiServerPort",
    "podSubnet",
    "serviceSubnet",
    "disableDefaultCNI",
    "kubeProxyMode",
    "dnsSearch",
];
const NODE: &[&str] = &[
    "role",
    "image",
    "labels",
    "extraMounts",
    "extraPortMappings",
    "kubeadmConfigPatches",
    "kubeadmConfigPatchesJSON6902",
];
const MOUNT: &[&str] = &["hostPath", "containerPath", "readOnly", "selinuxRelabel", "propagation"];
const PORT: &[&str] = &["containerPort", "hostPort", "listenAddress", "protocol"];

/// Answers the same cluster in minik's form, and what of the file means nothing here.
pub(in super::super) fn translate(value: &Value) -> Result<(Value, Vec<String>), FileError> {
    let mut ours = Ours::new();
    check(value, "", TOP)?;
    if value["apiVersion"] != "kind.x-k8s.io/v1alpha4" || value["kind"] != "Cluster" {
        let version = text(&value["apiVersion"]).unwrap_or_default();
        return Err(FileError::Version(format!(
            "{version}, of kind's files only kind.x-k8s.io/v1alpha4 is read"
        )));
    }
    // kind calls a cluster without a name so.
    ours.set(&["name"], json!(text(&value["name"]).unwrap_or_else(|| "kind".to_owned())));
    networking(&value["networking"], &mut ours)?;
    for key in ["featureGates", "runtimeConfig"] {
        if value[key].as_object().is_some_and(|map| !map.is_empty()) {
            ours.note(key, "minik's API server has no such switches");
        }
    }
    for key in ["kubeadmConfigPatchesJSON6902", "containerdConfigPatchesJSON6902"] {
        if list(&value[key]).next().is_some() {
            ours.note(key, "minik's nodes are not configured by these");
        }
    }
    for patch in list(&value["containerdConfigPatches"]) {
        let patch = text(patch).unwrap_or_default();
        // What kind's own page on local registries says is so here without it.
        let known = |line: &str| {
            let line = line.trim();
            line.is_empty()
                || line.starts_with('#')
                || (line.starts_with("[plugins.") && line.ends_with(".registry]"))
                || line.replace(' ', "") == "config_path=\"/etc/containerd/certs.d\""
        };
        if !patch.lines().all(known) {
            ours.note(
                "containerdConfigPatches",
                "containerd is configured by minik; mirrors go under registries",
            );
        }
    }
    for patch in list(&value["kubeadmConfigPatches"]) {
        kubeadm(patch, None, &mut ours);
    }
    nodes(&value["nodes"], &mut ours)?;
    Ok(ours.done())
}

fn networking(value: &Value, ours: &mut Ours) -> Result<(), FileError> {
    check(value, "networking", NETWORKING)?;
    match value["ipFamily"].as_str() {
        None | Some("ipv4") => {}
        Some(_) => return Err(refuse("networking.ipFamily", "minik's clusters have IPv4 addresses only")),
    }
    if value["disableDefaultCNI"] == true {
        ours.set(&["network", "cni"], json!(false));
    }
    match value["kubeProxyMode"].as_str() {
        Some("none") => ours.set(&["network", "proxy"], json!(false)),
        Some(mode) => {
            let why = format!(
                "{mode} is not asked for: minik takes nftables, or iptables where the kernel lacks it"
            );
            ours.note("networking.kubeProxyMode", &why);
        }
        None => {}
    }
    if !value["dnsSearch"].is_null() {
        ours.note("networking.dnsSearch", "search domains of nodes are Docker's");
    }
    let keys = [
        ("apiServerAddress", &["apiAddress"][..]),
        ("apiServerPort", &["apiPort"]),
        ("podSubnet", &["network", "pods"]),
        ("serviceSubnet", &["network", "services"]),
    ];
    for (theirs, path) in keys {
        if !value[theirs].is_null() && value[theirs] != 0 && value[theirs] != "" {
            ours.set(path, value[theirs].clone());
        }
    }
    Ok(())
}

fn nodes(value: &Value, ours: &mut Ours) -> Result<(), FileError> {
    let all: Vec<&Value> = list(value).collect();
    let is_server = |node: &&&Value| node["role"].as_str().is_none_or(|role| role == "control-plane");
    let (servers, workers): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|node| is_server(node));
    if !all.is_empty() && servers.is_empty() {
        return Err(refuse("nodes", "there is no control-plane node"));
    }
    for (role, count, usual) in [("server", servers.len().max(1), 1), ("agents", workers.len(), 0)] {
        if count != usual {
            ours.set(&[role, "count"], json!(count));
        }
    }
    let named = |role: &'static str| (0_u32..).map(move |index| (role, index));
    let in_order = named("server").zip(servers).chain(named("agent").zip(workers));
    for ((role, index), node) in in_order {
        let name = format!("{role}-{index}");
        check(node, "nodes", NODE)?;
        if !matches!(node["role"].as_str(), None | Some("control-plane" | "worker")) {
            return Err(refuse("nodes.role", "a node is a control-plane or a worker"));
        }
        if !node["image"].is_null() {
            ours.note("nodes.image", "kind's node images are not minik's: it makes its own");
        }
        if list(&node["kubeadmConfigPatchesJSON6902"]).next().is_some() {
            ours.note("nodes.kubeadmConfigPatchesJSON6902", "minik's nodes are not configured by these");
        }
        for (key, label) in node["labels"].as_object().into_iter().flatten() {
            ours.set(&["nodes", &name, "labels", key], label.clone());
        }
        for patch in list(&node["kubeadmConfigPatches"]) {
            kubeadm(patch, Some(&name), ours);
        }
        for mount in list(&node["extraMounts"]) {
            let volume = volume(mount)?;
            ours.push(&["nodes", &name, "volumes"], json!(volume));
        }
        for mapping in list(&node["extraPortMappings"]) {
            ours.push(&["ports"], json!(port(mapping, &format!("{role}:{index}"))?));
        }
    }
    Ok(())
}

fn volume(mount: &Value) -> Result<String, FileError> {
    check(mount, "nodes.extraMounts", MOUNT)?;
    let part = |key: &str| {
        text(&mount[key]).ok_or_else(|| refuse("nodes.extraMounts", &format!("{key} is missing")))
    };
    if !matches!(mount["propagation"].as_str(), None | Some("None")) {
        return Err(refuse(
            "nodes.extraMounts.propagation",
            "mounts of the host made later do not show in nodes",
        ));
    }
    let mode = if mount["readOnly"] == true { ":ro" } else { "" };
    Ok(format!("{}:{}{mode}", part("hostPath")?, part("containerPath")?))
}

fn port(mapping: &Value, node: &str) -> Result<String, FileError> {
    check(mapping, "nodes.extraPortMappings", PORT)?;
    let inside = text(&mapping["containerPort"])
        .ok_or_else(|| refuse("nodes.extraPortMappings", "containerPort is missing"))?;
    let host = text(&mapping["hostPort"])
        .filter(|port| port != "0" && port != "-1")
        .ok_or_else(|| refuse("nodes.extraPortMappings.hostPort", "a port of the host must be said"))?;
    let protocol = text(&mapping["protocol"]).unwrap_or_default().to_ascii_lowercase();
    let protocol = match protocol.as_str() {
        "" | "tcp" => "",
        "udp" => "/udp",
        _ => return Err(refuse("nodes.extraPortMappings.protocol", "host ports are TCP or UDP")),
    };
    // kind listens for every machine where nothing else is said.
    let address = text(&mapping["listenAddress"]).unwrap_or_else(|| "0.0.0.0".to_owned());
    Ok(format!("{address}:{host}:{inside}{protocol}@{node}"))
}

/// What of a patch for kubeadm means something here: labels of nodes, and names of the API server.
fn kubeadm(patch: &Value, node: Option<&str>, ours: &mut Ours) {
    let at = if node.is_some() { "nodes.kubeadmConfigPatches" } else { "kubeadmConfigPatches" };
    let parsed: Value = text(patch).and_then(|text| serde_yaml::from_str(&text).ok()).unwrap_or(Value::Null);
    let mut left = Vec::new();
    for (key, value) in parsed.as_object().into_iter().flatten() {
        match (key.as_str(), node) {
            ("kind" | "apiVersion" | "metadata", _) => {}
            ("nodeRegistration", Some(node)) => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if key == "kubeletExtraArgs" {
                        left.extend(kubelet(value, node, ours));
                    } else {
                        left.push(format!("nodeRegistration.{key}"));
                    }
                }
            }
            ("apiServer", _) => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match key.as_str() {
                        "certSANs" => list(value).for_each(|name| ours.push(&["tlsSans"], name.clone())),
                        "extraArgs" => left.extend(extra("apiServer", value, ours)),
                        key => left.push(format!("apiServer.{key}")),
                    }
                }
            }
            ("controllerManager", _) => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match key.as_str() {
                        "extraArgs" => left.extend(extra("controllerManager", value, ours)),
                        key => left.push(format!("controllerManager.{key}")),
                    }
                }
            }
            ("maxPods", _) if parsed["kind"] == "KubeletConfiguration" => {
                ours.set(&["arguments", "kubelet", "max-pods"], value.clone());
            }
            (key, _) if parsed["kind"] == "KubeletConfiguration" && kept_free(key, value, ours) => {}
            (key, _) => left.push(key.to_owned()),
        }
    }
    if parsed.is_null() {
        left.push("what is no YAML".to_owned());
    }
    if !left.is_empty() {
        let why = format!("there is no kubeadm in minik: {} mean(s) nothing", left.join(", "));
        ours.note(at, &why);
    }
}

/// What a node keeps free, by the names of a kubelet's configuration; false for another key.
fn kept_free(key: &str, value: &Value, ours: &mut Ours) -> bool {
    let (name, value) = match key {
        "evictionHard" => {
            let all = value.as_object().into_iter().flatten();
            let all: Vec<String> =
                all.filter_map(|(signal, least)| Some(format!("{signal}<{}", text(least)?))).collect();
            ("eviction-hard", Value::from(all.join(",")))
        }
        "evictionPressureTransitionPeriod" => ("eviction-pressure-transition-period", value.clone()),
        "imageGCHighThresholdPercent" => ("image-gc-high-threshold", value.clone()),
        "imageGCLowThresholdPercent" => ("image-gc-low-threshold", value.clone()),
        _ => return false,
    };
    ours.set(&["arguments", "kubelet", name], value);
    true
}

/// Arguments of a component, as a map or as a list of names and values.
fn arguments(value: &Value) -> impl Iterator<Item = (String, String)> {
    let named = list(value).filter_map(|entry| Some((text(&entry["name"])?, text(&entry["value"])?)));
    let mapped = value.as_object().into_iter().flatten();
    named.chain(mapped.filter_map(|(name, value)| Some((name.clone(), text(value)?))))
}

/// Arguments of a part of the control plane; returns those that mean nothing.
fn extra(component: &str, value: &Value, ours: &mut Ours) -> Vec<String> {
    let mut left = Vec::new();
    for (name, value) in arguments(value) {
        match Arguments::ALL.contains(&(component, name.as_str())) {
            true => ours.set(&["arguments", component, &name], json!(value)),
            false => left.push(format!("{component}.extraArgs.{name}")),
        }
    }
    left
}

/// Arguments of a kubelet; returns those that mean nothing.
fn kubelet(value: &Value, node: &str, ours: &mut Ours) -> Vec<String> {
    let mut left = Vec::new();
    for (name, value) in arguments(value) {
        if name == "node-labels" {
            for label in value.split(',') {
                let (key, value) = label.split_once('=').unwrap_or((label, ""));
                ours.set(&["nodes", node, "labels", key], json!(value));
            }
        } else {
            left.push(format!("kubeletExtraArgs.{name}"));
        }
    }
    left
}
