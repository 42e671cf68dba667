//! What `docker login` left on this machine: credentials for registries, from its file or from the helpers it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::ClusterError;
use sys::exec::{Exec, Invocation, System};

/// What a helper says where it holds a token instead of a password.
const TOKEN_USER: &str = "<token>";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
}

/// The host's credentials by registry, `USER:PASSWORD` in base64; `get` looks an environment variable up. Empty where
/// nobody has logged in. Fails when the file or a helper cannot be read.
pub async fn host_credentials(
    get: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, ClusterError> {
    let dir = get("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| get("HOME").map(|home| Path::new(&home).join(".docker")));
    let Some(path) = dir.map(|dir| dir.join("config.json")) else { return Ok(BTreeMap::new()) };
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(|source| ClusterError::File { path: path.clone(), source })?,
    };
    credentials(&text, &System).await.map_err(|why| {
        ClusterError::Login(format!("cannot use what docker login left in {}: {why}", path.display()))
    })
}

async fn credentials(text: &str, exec: &dyn Exec) -> Result<BTreeMap<String, String>, String> {
    let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for (registry, auth) in &config.auths {
        let encoded = match auth.auth.is_empty() {
            true if auth.username.is_empty() => continue,
            true => STANDARD.encode(format!("{}:{}", auth.username, auth.password)),
            false => auth.auth.clone(),
        };
        found.insert(host(registry), encoded);
    }
    let mut asked: BTreeMap<String, String> = BTreeMap::new();
    if let Some(store) = config.creds_store.as_ref().filter(|store| !store.is_empty()) {
        for registry in
            helper(exec, store, "list", "").await?.as_object().into_iter().flat_map(|map| map.keys())
        {
            asked.insert(registry.clone(), store.clone());
        }
    }
    // A registry's own helper goes before the one for all.
    asked.extend(config.cred_helpers);
    for (registry, name) in asked {
        // A helper that has nothing for a registry says so with an error.
        let Ok(told) = helper(exec, &name, "get", &registry).await else { continue };
        let (user, secret) = (told["Username"].as_str(), told["Secret"].as_str());
        if let (Some(user), Some(secret)) = (user, secret)
            && user != TOKEN_USER
        {
            found.insert(host(&registry), STANDARD.encode(format!("{user}:{secret}")));
        }
    }
    Ok(found)
}

async fn helper(exec: &dyn Exec, name: &str, verb: &str, input: &str) -> Result<Value, String> {
    let invocation = Invocation::new(&format!("docker-credential-{name}"), [verb]).with_stdin(input);
    let output = exec.run(invocation).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// Docker writes its own registry as a URL of old.
fn host(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::exec::{Output, Recorder};

    #[tokio::test]
    async fn the_file_and_the_helpers_are_asked() {
        let recorder = Recorder::default();
        for answer in [
            r#"{"https://r.corp/v1/": "me"}"#,
            r#"{"ServerURL": "own.corp", "Username": "o", "Secret": "s"}"#,
            r#"{"ServerURL": "r.corp", "Username": "<token>", "Secret": "t"}"#,
        ] {
            recorder.answer(Ok(Output { stdout: answer.as_bytes().to_vec(), stderr: Vec::new() }));
        }
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.corp": {}},
            "credsStore": "desktop", "credHelpers": {"a.corp": "own"}}"#;
        let found = credentials(text, &recorder).await.expect("read");
        assert_eq!(found["docker.io"], "dTpw");
        assert_eq!(found["a.corp"], STANDARD.encode("o:s"));
        assert!(!found.contains_key("r.corp"), "a token is no password");
        let lines: Vec<String> = recorder.take().iter().map(Invocation::line).collect();
        let expected =
            ["docker-credential-desktop list", "docker-credential-own get", "docker-credential-desktop get"];
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn nobody_has_logged_in() {
        assert!(credentials("{}", &Recorder::default()).await.expect("read").is_empty());
        assert!(credentials("no JSON", &Recorder::default()).await.is_err());
    }
}
