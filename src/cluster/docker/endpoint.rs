//! Finds the engine as `docker` does.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DockerError;

const DEFAULT: &str = "unix:///var/run/docker.sock";
/// The engine's socket on a machine that is reached by ssh.
const REMOTE: &str = "/var/run/docker.sock";

/// Where the engine is, and who it and we are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`, where the engine is spoken to over TLS.
    pub(super) certificates: Option<PathBuf>,
}

impl Endpoint {
    fn plain(host: &str) -> Self {
        Self { host: host.to_owned(), certificates: None }
    }
}

/// Where the engine is: `DOCKER_HOST` (with `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`), else the context chosen by
/// `DOCKER_CONTEXT` or `docker context use`, else the usual socket. `get` looks an environment variable up.
pub(super) fn find(get: impl Fn(&str) -> Option<String>) -> Result<Endpoint, DockerError> {
    let set = |name: &str| get(name).filter(|value| !value.is_empty());
    let config = set("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|h| Path::new(&h).join(".docker")));
    if let Some(host) = set("DOCKER_HOST") {
        let tls = set("DOCKER_TLS_VERIFY").is_some() || host.starts_with("https://");
        let folder = set("DOCKER_CERT_PATH").map(PathBuf::from).or(config);
        return Ok(Endpoint { host, certificates: folder.filter(|_| tls) });
    }
    let Some(config) = config else { return Ok(Endpoint::plain(DEFAULT)) };
    let Some(context) = set("DOCKER_CONTEXT").or_else(|| current_context(&config)) else {
        return Ok(Endpoint::plain(DEFAULT));
    };
    if context == "default" {
        return Ok(Endpoint::plain(DEFAULT));
    }
    context_endpoint(&config, &context)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    current_context: Option<String>,
}

fn current_context(config: &Path) -> Option<String> {
    let text = std::fs::read(config.join("config.json")).ok()?;
    serde_json::from_slice::<Config>(&text).ok()?.current_context.filter(|name| !name.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    name: String,
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: OfContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfContext {
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// Contexts are folders named by a hash; each says its name inside. Its certificates are in a folder of the same hash.
fn context_endpoint(config: &Path, context: &str) -> Result<Endpoint, DockerError> {
    let entries = std::fs::read_dir(config.join("contexts/meta")).into_iter().flatten().flatten();
    let (hash, found) = entries
        .filter_map(|entry| {
            let text = std::fs::read(entry.path().join("meta.json")).ok()?;
            let meta: Meta = serde_json::from_slice(&text).ok()?;
            (meta.name == context).then_some((entry.file_name(), meta.endpoints.docker))
        })
        .next()
        .ok_or_else(|| DockerError::Context(context.to_owned()))?;
    if found.skip_tls_verify {
        return Err(DockerError::Unreachable {
            endpoint: found.host,
            reason: "the context asks not to verify the engine's certificate, which minik does not do"
                .to_owned(),
        });
    }
    let certificates = config.join("contexts/tls").join(hash).join("docker");
    Ok(Endpoint { host: found.host, certificates: Some(certificates).filter(|dir| dir.is_dir()) })
}

/// What `ssh` is told so that the socket `local` leads to the engine on another machine: `ssh://[USER@]HOST[:PORT]`.
/// `None`: the endpoint is not of this form.
pub(super) fn tunnel(endpoint: &str, local: &Path) -> Option<Vec<String>> {
    let rest = endpoint.strip_prefix("ssh://")?;
    let (host, remote) = match rest.split_once('/') {
        Some((host, path)) if !path.is_empty() => (host, format!("/{path}")),
        Some((host, _)) => (host, REMOTE.to_owned()),
        None => (rest, REMOTE.to_owned()),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
        _ => (host, None),
    };
    // A host that begins with a dash would be an option.
    if host.is_empty() || host.starts_with('-') {
        return None;
    }
    let mut words: Vec<String> = [
        "-N",
        "-T",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        "ConnectTimeout=15",
        "-o",
        "BatchMode=yes",
        "-L",
    ]
    .map(ToOwned::to_owned)
    .into();
    words.push(format!("{}:{remote}", local.display()));
    if let Some(port) = port {
        words.extend(["-p".to_owned(), port.to_owned()]);
    }
    words.extend(["--".to_owned(), host.to_owned()]);
    Some(words)
}

/// Opens a local socket once, as only that tells "nobody there" from "not allowed".
pub(super) fn check_socket(endpoint: &str) -> Result<(), DockerError> {
    let Some(path) = endpoint.strip_prefix("unix://") else { return Ok(()) };
    match UnixStream::connect(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(DockerError::Permission { endpoint: endpoint.to_owned() })
        }
        Err(error) => {
            Err(DockerError::Unreachable { endpoint: endpoint.to_owned(), reason: error.to_string() })
        }
    }
}

/// The host of an endpoint elsewhere.
pub(super) fn remote_host(endpoint: &str) -> Option<String> {
    let schemes = ["tcp://", "http://", "https://", "ssh://"];
    let rest = schemes.iter().find_map(|scheme| endpoint.strip_prefix(scheme))?;
    let host = rest.split('/').next().and_then(|rest| rest.rsplit('@').next()).unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    (!matches!(host, "" | "localhost" | "127.0.0.1")).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first() {
        let get = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://box:2375".to_owned());
        assert_eq!(find(get).expect("found"), Endpoint::plain("tcp://box:2375"));
        assert_eq!(find(|_| None).expect("found"), Endpoint::plain(DEFAULT));
        let secure = |name: &str| match name {
            "DOCKER_HOST" => Some("tcp://box:2376".to_owned()),
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            "HOME" => Some("/home/me".to_owned()),
            _ => None,
        };
        assert_eq!(find(secure).expect("found").certificates, Some("/home/me/.docker".into()));
    }

    #[test]
    fn then_the_current_context() {
        let dir = tempfile::tempdir().expect("folder");
        let meta = dir.path().join("contexts/meta/0123");
        std::fs::create_dir_all(&meta).expect("folder");
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"desk"}"#).expect("file");
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"desk","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///run/desk.sock","SkipTLSVerify":false}}}"#,
        )
        .expect("file");
        let config = dir.path().display().to_string();
        let get = |name: &str| (name == "DOCKER_CONFIG").then(|| config.clone());
        assert_eq!(find(get).expect("found"), Endpoint::plain("unix:///run/desk.sock"));
        let certificates = dir.path().join("contexts/tls/0123/docker");
        std::fs::create_dir_all(&certificates).expect("folder");
        assert_eq!(find(get).expect("found").certificates, Some(certificates));
        let other = |name: &str| match name {
            "DOCKER_CONFIG" => Some(config.clone()),
            "DOCKER_CONTEXT" => Some("gone".to_owned()),
            _ => None,
        };
        assert!(matches!(find(other), Err(DockerError::Context(name)) if name == "gone"));
    }

    #[test]
    fn remote_engines_publish_elsewhere() {
        assert_eq!(remote_host("unix:///var/run/docker.sock"), None);
        assert_eq!(remote_host("tcp://127.0.0.1:2375"), None);
        assert_eq!(remote_host("tcp://box:2375"), Some("box".to_owned()));
        assert_eq!(remote_host("ssh://me@box:2222"), Some("box".to_owned()));
    }

    #[test]
    fn a_tunnel_leads_to_the_engine_s_socket() {
        let check = |endpoint: &str, expect: &str| {
            let words = tunnel(endpoint, Path::new("/l")).map(|words| words.join(" ")).unwrap_or_default();
            assert!(words.ends_with(expect), "{endpoint}: {words}");
        };
        check("ssh://me@box", "-L /l:/var/run/docker.sock -- me@box");
        check("ssh://box:2222", "-L /l:/var/run/docker.sock -p 2222 -- box");
        check("ssh://box/run/user/1/podman.sock", "-L /l:/run/user/1/podman.sock -- box");
        assert_eq!(tunnel("ssh://-oProxyCommand=x", Path::new("/l")), None);
        assert_eq!(tunnel("tcp://box", Path::new("/l")), None);
    }
}
