//! The objects that a new cluster starts with, roles aside.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use config::{JoinToken, NodeConfig};
use pki::ServerPki;

/// The namespaces that are always there.
pub(super) fn namespaces() -> Vec<Value> {
    let names = ["default", "kube-node-lease", "kube-public", "kube-system"];
    names.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).to_vec()
}

/// Whose certificates are believed, PEM.
#[derive(Clone, Copy)]
pub(super) struct Authorities<'a> {
    /// Clients' and servers'.
    pub cluster: &'a str,
    /// This server's, where it passes on other people's requests.
    pub front_proxy: &'a str,
}

impl<'a> Authorities<'a> {
    pub(super) fn of(pki: &'a ServerPki) -> Self {
        Self { cluster: pki.authority.certificate_pem(), front_proxy: &pki.front_proxy_authority_pem }
    }
}

/// Everything else but roles; `made`: when the cluster was.
pub(super) fn all(
    config: &NodeConfig,
    authorities: &Authorities<'_>,
    made: Timestamp,
    now: Timestamp,
) -> Vec<Value> {
    let mut all = priority_classes();
    all.push(storage_class());
    all.extend([
        kubernetes_service(config),
        dns_service(config.dns_ip),
        authentication(authorities),
        cluster_info(config, authorities.cluster),
    ]);
    all.extend(bootstrap_token(config, made, now));
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

pub(super) fn kubernetes_endpoints(servers: &[Ipv4Addr], port: u16) -> Value {
    let address = |ip: &Ipv4Addr| json!({"ip": ip});
    json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": servers.iter().map(address).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]})
}

/// Without a selector: every node answers this address itself.
fn dns_service(ip: Ipv4Addr) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153}]}})
}

/// The ConfigMap that says whom to believe.
pub const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// What an extension API server needs to know whom to believe.
fn authentication(authorities: &Authorities<'_>) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
    "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"},
    "data": {
        "client-ca-file": authorities.cluster,
        "requestheader-allowed-names": json!([ServerPki::FRONT_PROXY]).to_string(),
        "requestheader-client-ca-file": authorities.front_proxy,
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
    }})
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
    if let Some(token) = JoinToken::parse(&config.token) {
        data[format!("jws-kubeconfig-{}", token.id())] =
            signature(token.id(), token.secret(), &kubeconfig).into();
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

/// The token that the cluster's first nodes join with. It runs out; a server that starts later makes none.
fn bootstrap_token(config: &NodeConfig, made: Timestamp, now: Timestamp) -> Option<Value> {
    let expires = made.checked_add(JoinToken::LIFETIME).unwrap_or(Timestamp::MAX);
    let token = JoinToken::parse(&config.token).filter(|_| now < expires)?;
    Some(token.object(expires, "The first nodes of this cluster join with it."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_described_by_its_configuration() {
        let authorities = Authorities { cluster: "PEM", front_proxy: "FRONT" };
        let made = Timestamp::UNIX_EPOCH;
        let all = all(&NodeConfig::example(), &authorities, made, made);
        let find = |kind: &str, name: &str| {
            all.iter()
                .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
                .unwrap_or_else(|| panic!("{kind} {name}"))
        };
        assert_eq!(find("Service", "kubernetes")["spec"]["clusterIP"], "10.43.0.1");
        assert_eq!(find("Service", "kube-dns")["spec"]["clusterIP"], "10.43.0.10");
        let token = &find("Secret", "bootstrap-token-abcdef")["data"];
        assert_eq!(token["token-id"], STANDARD.encode("abcdef"));
        assert_eq!(token["expiration"], STANDARD.encode("1970-01-01T01:00:00Z"));
        let believed = &find("ConfigMap", "extension-apiserver-authentication")["data"];
        assert_eq!(
            (&believed["client-ca-file"], &believed["requestheader-client-ca-file"]),
            (&json!("PEM"), &json!("FRONT"))
        );
        assert_eq!(believed["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
        let info = find("ConfigMap", "cluster-info");
        assert!(info["data"]["jws-kubeconfig-abcdef"].as_str().unwrap().contains(".."));
    }

    #[test]
    fn a_server_that_starts_later_lets_nobody_join_by_the_first_token() {
        let made: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let check = |now: &str, expect: Option<&str>| {
            let token = bootstrap_token(&NodeConfig::example(), made, now.parse().unwrap());
            let expires = token.map(|token| token["data"]["expiration"].clone());
            assert_eq!(expires, expect.map(|at| STANDARD.encode(at).into()), "{now}");
        };
        check("2030-01-01T00:00:01Z", Some("2030-01-01T01:00:00Z"));
        check("2030-01-01T00:59:59Z", Some("2030-01-01T01:00:00Z"));
        check("2030-01-01T01:00:00Z", None);
        check("2031-01-01T00:00:00Z", None);
    }
}
