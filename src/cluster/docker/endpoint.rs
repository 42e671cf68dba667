//! Finds the engine as `docker` does.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DockerError;

const DEFAULT: &str = "unix:///var/run/docker.sock";

/// Where the engine is: `DOCKER_HOST`, else the context chosen by `DOCKER_CONTEXT` or `docker context use`, else the
/// usual socket. `get` looks an environment variable up.
pub(super) fn find(get: impl Fn(&str) -> Option<String>) -> Result<String, DockerError> {
    let set = |name: &str| get(name).filter(|value| !value.is_empty());
    if let Some(host) = set("DOCKER_HOST") {
        return Ok(host);
    }
    let config = set("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|h| Path::new(&h).join(".docker")));
    let Some(config) = config else { return Ok(DEFAULT.to_owned()) };
    let Some(context) = set("DOCKER_CONTEXT").or_else(|| current_context(&config)) else {
        return Ok(DEFAULT.to_owned());
    };
    if context == "default" {
        return Ok(DEFAULT.to_owned());
    }
    context_host(&config, &context).ok_or(DockerError::Context(context))
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
    docker: Endpoint,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    host: String,
}

/// Contexts are folders named by a hash; each says its name inside.
fn context_host(config: &Path, context: &str) -> Option<String> {
    std::fs::read_dir(config.join("contexts/meta")).ok()?.flatten().find_map(|entry| {
        let text = std::fs::read(entry.path().join("meta.json")).ok()?;
        let meta: Meta = serde_json::from_slice(&text).ok()?;
        (meta.name == context).then_some(meta.endpoints.docker.host)
    })
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

/// The host of a `tcp://` endpoint elsewhere.
pub(super) fn remote_host(endpoint: &str) -> Option<String> {
    let rest = ["tcp://", "http://", "https://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme))?;
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    (!matches!(host, "" | "localhost" | "127.0.0.1")).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first() {
        let get = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://box:2375".to_owned());
        assert_eq!(find(get).expect("found"), "tcp://box:2375");
        assert_eq!(find(|_| None).expect("found"), DEFAULT);
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
        assert_eq!(find(get).expect("found"), "unix:///run/desk.sock");
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
    }
}
