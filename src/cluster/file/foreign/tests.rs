//! Files as people have them for other tools.

use super::super::{Surroundings, migrate, parse};
use crate::file::ClusterFile;
use config::Feature;

fn around() -> Surroundings<'static> {
    Surroundings {
        dir: std::path::Path::new("/conf"),
        name: "given",
        get: &|name| (name == "HOME").then(|| "/home/me".to_owned()),
    }
}

fn read(text: &str) -> Result<ClusterFile, String> {
    parse(text, &around()).map_err(|error| error.to_string())
}

const KIND: &str = "
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: app-1
featureGates: {SomeGate: true}
networking: {apiServerPort: 6443, podSubnet: 10.244.0.0/16, kubeProxyMode: ipvs}
containerdConfigPatches:
- |-
  [plugins.\"io.containerd.grpc.v1.cri\".registry]
    config_path = \"/etc/containerd/certs.d\"
nodes:
- role: control-plane
  image: kindest/node:v1.30.0
  kubeadmConfigPatches:
  - |
    kind: InitConfiguration
    nodeRegistration:
      kubeletExtraArgs:
        node-labels: \"ingress-ready=true\"
        v: \"4\"
  extraPortMappings:
  - {containerPort: 80, hostPort: 8080, protocol: TCP}
  - {containerPort: 53, hostPort: 5353, listenAddress: 127.0.0.1, protocol: UDP}
- role: worker
  labels: {tier: frontend}
  extraMounts: [{hostPath: /src, containerPath: /files, readOnly: true}]
- role: worker
";

#[test]
fn a_file_for_kind_is_read_as_it_is() {
    let file = read(KIND).expect("good");
    let [server, first, second] = file.spec.nodes.as_slice() else { panic!("{file:?}") };
    assert_eq!((file.spec.name.as_str(), file.spec.api_port), ("app-1", Some(6443)));
    assert_eq!(file.spec.addresses.pods().to_string(), "10.244.0.0/16");
    assert_eq!(server.labels["ingress-ready"], "true");
    assert_eq!((first.labels["tier"].as_str(), first.mounts[0].read_only), ("frontend", true));
    assert!(second.labels.is_empty() && second.mounts.is_empty());
    let ports: Vec<String> = file.spec.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["0.0.0.0:8080:80/tcp@server:0", "127.0.0.1:5353:53/udp@server:0"]);
    let notes = file.notes.join("\n");
    for part in ["featureGates", "kubeProxyMode", "nodes.image", "kubeletExtraArgs.v"] {
        assert!(notes.contains(part), "{part} is not named:\n{notes}");
    }
    assert_eq!(file.notes.len(), 4, "the local registry's patch is honoured:\n{notes}");
}

#[test]
fn what_kind_has_and_minik_has_not_is_named() {
    let head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
    let check = |body: &str, part: &str| {
        let said = read(&format!("{head}{body}")).expect_err("refused");
        assert!(said.contains(part), "{body}: {said}");
    };
    check("networking: {ipFamily: dual}", "networking.ipFamily");
    let patches = "kubeadmConfigPatches:\n- |\n  kind: ClusterConfiguration\n  controllerManager:\n    extraArgs: [{name: node-monitor-grace-period, value: 20s}]\n\
         - |\n  kind: KubeletConfiguration\n  maxPods: 20\n  imageGCHighThresholdPercent: 90\n  evictionHard: {nodefs.available: 5%, memory.available: 1Gi}\n";
    let asked = read(&format!("{head}{patches}")).expect("good");
    let arguments = &asked.spec.arguments;
    assert_eq!(
        (arguments.node_monitor_grace, arguments.max_pods, asked.notes.len()),
        (Some(20), Some(20), 0)
    );
    assert_eq!(arguments.image_gc_high, Some(90));
    assert_eq!(arguments.eviction_hard.as_ref().map(std::collections::BTreeMap::len), Some(2));
    let own =
        read(&format!("{head}networking: {{disableDefaultCNI: true, kubeProxyMode: none}}")).expect("good");
    assert!(own.spec.brought.cni && own.spec.brought.proxy);
    check("nodes: [{role: worker}]", "no control-plane");
    check("nodes: [{extraPortMappings: [{containerPort: 80}]}]", "hostPort");
    check("nodes: [{extraPortMappings: [{containerPort: 80, hostPort: 1, protocol: SCTP}]}]", "TCP or UDP");
    check(
        "nodes: [{extraMounts: [{hostPath: /a, containerPath: /b, propagation: Bidirectional}]}]",
        "propagation",
    );
    check("colour: red", "unknown key \"colour\"");
    let three =
        read(&format!("{head}nodes: [{{role: control-plane}}, {{role: control-plane}}, {{role: worker}}]"));
    let three = three.expect("good");
    assert_eq!((three.spec.nodes.len(), three.spec.name.as_str()), (3, "kind"));
    assert_eq!((three.spec.servers().count(), &three.notes[..]), (2, &[][..]));
    let old = read("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha3\n").expect_err("refused");
    assert!(old.contains("v1alpha4"), "{old}");
}

const K3D: &str = "
apiVersion: k3d.io/v1alpha5
kind: Simple
metadata: {name: shop}
servers: 1
agents: 2
kubeAPI: {hostIP: 127.0.0.1, hostPort: \"6445\"}
image: rancher/k3s:v1.30
subnet: 172.28.0.0/16
volumes:
- {volume: ./src:/src, nodeFilters: [\"server:0\", \"agent:*\"]}
ports:
- {port: 8080:80, nodeFilters: [loadbalancer]}
- {port: 30080:30080}
- {port: 0.0.0.0:53:53/udp, nodeFilters: [\"agent:0\"]}
env:
- {envVar: A=b, nodeFilters: [\"agents:1\"]}
registries:
  create: {name: registry.localhost, host: 127.0.0.1, hostPort: \"5000\"}
  config: |
    mirrors:
      docker.io: {endpoint: [\"https://mirror.corp\"]}
    configs:
      mirror.corp: {auth: {username: u, password: p}, tls: {insecure_skip_verify: true}}
hostAliases:
- {ip: 10.1.2.3, hostnames: [db.corp, cache.corp]}
options:
  k3d: {wait: true, timeout: 60s}
  k3s:
    extraArgs:
    - {arg: --disable=traefik, nodeFilters: [\"server:*\"]}
    - {arg: --tls-san=api.corp, nodeFilters: [\"server:*\"]}
    - {arg: --kubelet-arg=max-pods=10, nodeFilters: [\"agent:*\"]}
    - {arg: --kube-apiserver-arg=service-node-port-range=30000-30100, nodeFilters: [\"server:*\"]}
    nodeLabels:
    - {label: tier=web, nodeFilters: [\"agent:1\"]}
  kubeconfig: {updateDefaultKubeconfig: true, switchCurrentContext: true}
  runtime: {agentsMemory: 1g}
";

#[test]
fn a_file_for_k3d_is_read_as_it_is() {
    let file = read(K3D).expect("good");
    let [server, first, second] = file.spec.nodes.as_slice() else { panic!("{file:?}") };
    assert_eq!((file.spec.name.as_str(), file.spec.api_port), ("shop", Some(6445)));
    let ports: Vec<String> = file.spec.ports.iter().map(ToString::to_string).collect();
    let expected =
        ["0.0.0.0:8080:80/tcp@loadbalancer", "0.0.0.0:30080:30080/tcp@all", "0.0.0.0:53:53/udp@agent:0"];
    assert_eq!(ports, expected);
    assert!([server, first, second].iter().all(|node| node.mounts[0].source == "/conf/./src"), "{file:?}");
    assert_eq!((second.env.as_slice(), second.labels["tier"].as_str()), (&["A=b".to_owned()][..], "web"));
    assert!(first.env.is_empty() && first.memory == "1Gi".parse().ok() && server.memory.is_none());
    assert_eq!(file.spec.host_aliases["cache.corp"].to_string(), "10.1.2.3");
    assert!(file.spec.disabled.contains(&Feature::Ingress));
    assert_eq!(file.spec.tls_sans, ["api.corp"]);
    assert_eq!(
        (file.spec.arguments.node_ports, file.spec.arguments.max_pods),
        (Some((30_000, 30_100)), None)
    );
    assert_eq!(file.spec.registries.mirrors["docker.io"], ["https://mirror.corp"]);
    assert!(file.spec.registries.insecure.contains("mirror.corp"));
    assert_eq!((file.registries[0].0.as_str(), file.registries[0].2), ("registry", 5000));
    let notes = file.notes.join("\n");
    for part in ["image", "options.k3d.timeout", "--kubelet-arg", "minik-registry-registry:5000"] {
        assert!(notes.contains(part), "{part} is not named:\n{notes}");
    }
}

#[test]
fn what_k3d_has_and_minik_has_not_is_named() {
    let head = "apiVersion: k3d.io/v1alpha5\nkind: Simple\n";
    let check = |body: &str, part: &str| {
        let said = read(&format!("{head}{body}")).expect_err("refused");
        assert!(said.contains(part), "{body}: {said}");
    };
    check("volumes: [{volume: named:/data}]", "volume of Docker");
    check("options: {runtime: {gpuRequest: all}}", "gpuRequest");
    check("ports: [{port: \"80:80\", nodeFilters: [\"agent:0\"]}]", "no agent:0");
    check("ports: [{port: \"80\"}]", "port of the host");
    check("options: {k3s: {extraArgs: [{arg: --disable=coredns}]}}", "part of every cluster");
    check("registries: {create: {name: r, proxy: {remoteURL: x}}}", "proxy");
    check("env: [{envVar: A=b, nodeFilters: [loadbalancer]}]", "no node in minik");
    let three =
        read(&format!("{head}servers: 3\nagents: 1\nenv: [{{envVar: A=b, nodeFilters: [\"server:2\"]}}]"));
    let three = three.expect("good");
    assert_eq!((three.spec.nodes.len(), three.spec.servers().count()), (4, 3));
    assert_eq!((three.spec.nodes[3].number, &three.spec.nodes[3].env[..]), (101, &["A=b".to_owned()][..]));
}

#[test]
fn migrated_files_mean_the_same() {
    for text in [KIND, K3D] {
        let (ours, notes) = migrate(text, &around()).expect("good");
        assert!(ours.contains("minik.dev/v1alpha1") && !notes.is_empty(), "{ours}");
        let (mut theirs, again) = (read(text).expect("good"), read(&ours).expect(&ours));
        theirs.notes.clear();
        assert_eq!(again, theirs, "{ours}");
    }
}
