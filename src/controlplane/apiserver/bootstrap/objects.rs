//! The objects that a new cluster starts with, roles aside.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use serde_json::{Value, json};

use crate::api::meta::format_time;
use crate::config::NodeConfig;

/// The namespaces that are always there.
pub(super) fn namespaces() -> Vec<Value> {
    let names = ["default", "kube-node-lease", "kube-public", "kube-system"];
    names.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).to_vec()
}

/// Everything else but roles.
pub(super) fn all(config: &NodeConfig, authority_pem: &str, now: Timestamp) -> Vec<Value> {
    let mut all = priority_classes();
    all.push(storage_class());
    all.extend([
        kubernetes_service(config),
        kubernetes_endpoints(config),
        kubernetes_slice(config),
        dns_service(config.dns_ip),
        authentication(authority_pem),
        cluster_info(config, authority_pem),
    ]);
    all.extend(bootstrap_token(&config.token, now));
    all
}

/// Claims that name no class get a directory on the node of the first Pod that uses them.
fn storage_class() -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "minik.dev/local-path", "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true})
}

fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, what: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "PreemptLowerPriority", "description": what})
    };
    vec![
        class(
            "system-cluster-critical",
            2_000_000_000,
            "For system pods that the cluster needs and that may move to another node.",
        ),
        class(
            "system-node-critical",
            2_000_001_000,
            "For system pods that a node needs and that must stay on it.",
        ),
    ]
}

/// The first address of the service network is the API itself.
pub fn api_cluster_ip(config: &NodeConfig) -> Ipv4Addr {
    config.service_cidr.hosts().next().unwrap_or(config.service_cidr.network())
}

fn kubernetes_service(config: &NodeConfig) -> Value {
    let ip = api_cluster_ip(config).to_string();
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.server_port}]}})
}

fn kubernetes_endpoints(config: &NodeConfig) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": config.server_ip}],
            "ports": [{"name": "https", "port": config.server_port, "protocol": "TCP"}]}]})
}

fn kubernetes_slice(config: &NodeConfig) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [config.server_ip], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.server_port, "protocol": "TCP"}]})
}

/// Without a selector: every node answers this address itself.
fn dns_service(ip: Ipv4Addr) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]}})
}

/// What an extension API server needs to know whom to believe.
fn authentication(authority_pem: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": authority_pem}})
}

/// What a node reads before it has any credentials (kubeadm's discovery): signed with the bootstrap token, so that who
/// knows the token can trust the authority in it.
fn cluster_info(config: &NodeConfig, authority_pem: &str) -> Value {
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://{}:{}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n",
        STANDARD.encode(authority_pem),
        config.server_ip,
        config.server_port
    );
    let mut data = json!({"kubeconfig": kubeconfig});
    if let Some((id, secret)) = config.token.split_once('.') {
        data[format!("jws-kubeconfig-{id}")] = signature(id, secret, &kubeconfig).into();
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": data})
}

/// A JSON Web Signature (HS256) without its payload.
fn signature(id: &str, secret: &str, text: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// How long nodes may join after a start of the server, as kubeadm has it.
const JOIN: SignedDuration = SignedDuration::from_hours(24);

/// The token that nodes join with. It runs out, and every start of the server renews it.
fn bootstrap_token(token: &str, now: Timestamp) -> Option<Value> {
    let (id, secret) = token.split_once('.')?;
    let expiration = format_time(now.checked_add(JOIN).unwrap_or(Timestamp::MAX));
    let encode = |text: &str| STANDARD.encode(text);
    Some(json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
    "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
    "data": {
        "auth-extra-groups": encode("system:bootstrappers:kubeadm:default-node-token"),
        "description": encode("Nodes of this cluster join with it."),
        "expiration": encode(&expiration),
        "token-id": encode(id),
        "token-secret": encode(secret),
        "usage-bootstrap-authentication": encode("true"),
        "usage-bootstrap-signing": encode("true"),
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_described_by_its_configuration() {
        let all = all(&NodeConfig::example(), "PEM", Timestamp::UNIX_EPOCH);
        let find = |kind: &str, name: &str| {
            all.iter()
                .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
                .unwrap_or_else(|| panic!("{kind} {name}"))
        };
        assert_eq!(find("Service", "kubernetes")["spec"]["clusterIP"], "10.43.0.1");
        assert_eq!(find("Service", "kube-dns")["spec"]["clusterIP"], "10.43.0.10");
        assert_eq!(find("EndpointSlice", "kubernetes")["endpoints"][0]["addresses"][0], "172.20.0.2");
        let token = &find("Secret", "bootstrap-token-abcdef")["data"];
        assert_eq!(token["token-id"], STANDARD.encode("abcdef"));
        assert_eq!(token["expiration"], STANDARD.encode("1970-01-02T00:00:00Z"));
        let info = find("ConfigMap", "cluster-info");
        assert!(info["data"]["jws-kubeconfig-abcdef"].as_str().unwrap().contains(".."));
    }
}
