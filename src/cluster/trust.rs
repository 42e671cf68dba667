//! Which registries nodes ask, and whom they trust there: the files that containerd reads at every pull. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::plan::PutFile;
use super::settings::Registries;

/// Where containerd looks, without the first slash.
const DIR: &str = "etc/containerd/certs.d";
/// The port of a registry of minik's own, in its container.
pub const REGISTRY_PORT: u16 = 5000;

/// A registry of minik's own, as nodes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRegistry {
    /// Its container's name, which is its name in the clusters' networks.
    pub container: String,
    pub host_port: u16,
}

impl OwnRegistry {
    /// The names by which its images are asked for.
    fn names(&self) -> [String; 3] {
        [
            format!("localhost:{}", self.host_port),
            format!("127.0.0.1:{}", self.host_port),
            format!("{}:{REGISTRY_PORT}", self.container),
        ]
    }

    fn url(&self) -> String {
        format!("http://{}:{REGISTRY_PORT}", self.container)
    }
}

/// The files for registries of others, as a cluster's specification says.
pub fn of_spec(registries: &Registries) -> Vec<PutFile> {
    let of_mirrors = registries.mirrors.values().flatten().filter_map(|url| host_of(url));
    let mirrors: BTreeSet<&str> = of_mirrors.collect();
    // What is said of a mirror belongs to where it is a mirror of; only what is asked itself has a folder of its own.
    let own = registries.authorities.keys().chain(&registries.insecure).map(String::as_str);
    let hosts: BTreeSet<&str> = registries
        .mirrors
        .keys()
        .map(String::as_str)
        .chain(own.filter(|host| !mirrors.contains(host)))
        .collect();
    let mut files: Vec<PutFile> = registries
        .authorities
        .iter()
        .map(|(host, pem)| (folder(host).join("ca.crt"), pem.clone().into_bytes(), 0o644))
        .collect();
    files
        .extend(hosts.iter().map(|host| (folder(host).join("hosts.toml"), text_of(host, registries), 0o644)));
    files
}

fn text_of(host: &str, registries: &Registries) -> Vec<u8> {
    let mut text = String::new();
    if host != "*" {
        text.push_str(&format!("server = \"{}\"\n", server(host)));
    }
    let pull = ["pull", "resolve"];
    for url in registries.mirrors.get(host).into_iter().flatten() {
        text.push_str(&entry(url, &pull, registries, host_of(url).unwrap_or_default()));
    }
    if host != "*" && (registries.authorities.contains_key(host) || registries.insecure.contains(host)) {
        text.push_str(&entry(&server(host), &pull, registries, host));
        if registries.insecure.contains(host) {
            text.push_str(&entry(&format!("http://{host}"), &pull, registries, ""));
        }
    }
    text.into_bytes()
}

/// Where a registry is when no mirror has an image.
fn server(host: &str) -> String {
    match host {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        host => format!("https://{host}"),
    }
}

fn entry(url: &str, may: &[&str], registries: &Registries, host: &str) -> String {
    let url = url.trim_end_matches('/');
    let may = may.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let mut text = format!("\n[host.\"{url}\"]\n  capabilities = [{may}]\n");
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    if path.is_some() {
        text.push_str("  override_path = true\n");
    }
    if registries.authorities.contains_key(host) {
        text.push_str(&format!("  ca = \"/{}\"\n", folder(host).join("ca.crt").display()));
    }
    if registries.insecure.contains(host) && url.starts_with("https://") {
        text.push_str("  skip_verify = true\n");
    }
    text
}

/// The host of a URL, with its port.
fn host_of(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split('/').next()
}

fn folder(host: &str) -> PathBuf {
    // containerd's own word for every registry that has no folder.
    PathBuf::from(DIR).join(if host == "*" { "_default" } else { host })
}

/// The files for registries of minik's own.
pub fn of_own(registries: &[OwnRegistry]) -> Vec<PutFile> {
    let all = ["pull", "resolve", "push"];
    let of = |registry: &OwnRegistry| {
        let url = registry.url();
        let text = format!("server = \"{url}\"\n{}", entry(&url, &all, &Registries::default(), ""));
        registry.names().map(|name| (folder(&name).join("hosts.toml"), text.clone().into_bytes(), 0o644))
    };
    registries.iter().flat_map(of).collect()
}

/// The same files, as they are when a registry is gone: they say nothing.
pub fn of_gone(registry: &OwnRegistry) -> Vec<PutFile> {
    of_own(std::slice::from_ref(registry))
        .into_iter()
        .map(|(path, _, mode)| (path, Vec::new(), mode))
        .collect()
}

/// What tools look for in a cluster to learn of its registry (KEP-1755), by key.
pub fn hosting(registry: &OwnRegistry) -> BTreeMap<String, String> {
    let inside = format!("{}:{REGISTRY_PORT}", registry.container);
    let text = format!(
        "host: \"localhost:{}\"\nhostFromContainerRuntime: \"{inside}\"\nhostFromClusterNetwork: \"{inside}\"\nhelp: \"minik registry --help\"\n",
        registry.host_port
    );
    [("localRegistryHosting.v1".to_owned(), text)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(files: Vec<PutFile>) -> BTreeMap<String, String> {
        files
            .into_iter()
            .map(|(path, text, _)| {
                let path = path.strip_prefix(DIR).expect("in the folder").display().to_string();
                (path, String::from_utf8(text).expect("text"))
            })
            .collect()
    }

    #[test]
    fn mirrors_are_asked_first() {
        let registries = Registries {
            mirrors: [
                (
                    "docker.io".to_owned(),
                    vec!["https://m.corp".to_owned(), "http://n:5000/v2/hub/".to_owned()],
                ),
                ("*".to_owned(), vec!["https://m.corp".to_owned()]),
            ]
            .into(),
            authorities: [("m.corp".to_owned(), "PEM".to_owned())].into(),
            insecure: BTreeSet::new(),
        };
        let files = texts(of_spec(&registries));
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["_default/hosts.toml", "docker.io/hosts.toml", "m.corp/ca.crt"]
        );
        assert_eq!(
            files["docker.io/hosts.toml"],
            "server = \"https://registry-1.docker.io\"\n\
             \n[host.\"https://m.corp\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"/etc/containerd/certs.d/m.corp/ca.crt\"\n\
             \n[host.\"http://n:5000/v2/hub\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n"
        );
        assert!(!files["_default/hosts.toml"].contains("server"));
    }

    #[test]
    fn what_vouches_for_a_registry_stands_with_it() {
        let registries = Registries {
            authorities: [("r.corp:8443".to_owned(), "PEM".to_owned())].into(),
            insecure: ["old.corp".to_owned()].into(),
            ..Registries::default()
        };
        let files = texts(of_spec(&registries));
        assert_eq!(files["r.corp:8443/ca.crt"], "PEM");
        assert!(
            files["r.corp:8443/hosts.toml"].contains("ca = \"/etc/containerd/certs.d/r.corp:8443/ca.crt\"")
        );
        let old = &files["old.corp/hosts.toml"];
        assert!(old.contains("skip_verify = true") && old.contains("[host.\"http://old.corp\"]"), "{old}");
        assert!(of_spec(&Registries::default()).is_empty());
    }

    #[test]
    fn an_own_registry_is_the_same_by_all_its_names() {
        let registry = OwnRegistry { container: "minik-registry-dev".to_owned(), host_port: 5001 };
        let files = texts(of_own(std::slice::from_ref(&registry)));
        let names =
            ["127.0.0.1:5001/hosts.toml", "localhost:5001/hosts.toml", "minik-registry-dev:5000/hosts.toml"];
        assert_eq!(files.keys().collect::<Vec<_>>(), names);
        assert!(files.values().all(|text| text.contains("[host.\"http://minik-registry-dev:5000\"]")));
        assert!(of_gone(&registry).iter().all(|(_, text, _)| text.is_empty()));
        assert!(hosting(&registry)["localRegistryHosting.v1"].starts_with("host: \"localhost:5001\"\n"));
    }
}
