//! Credentials for registries, in the forms that Docker writes them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::api::AuthConfig;

/// What every Pod of this node may pull with, as upstream's kubelet reads it.
const OF_NODE: &str = "/var/lib/kubelet/config.json";

/// The entries of the node's own file that speak for `image`, each with the length of what it matched.
pub fn node_auths(image: &str) -> Vec<(usize, AuthConfig)> {
    match std::fs::read(OF_NODE) {
        Ok(text) => registry_auths(&BTreeMap::from([(".dockerconfigjson".to_owned(), text)]), image),
        // Most nodes have none.
        Err(_) => Vec::new(),
    }
}

/// The entries of one Secret that speak for `image`, each with the length of what it matched.
pub fn registry_auths(data: &BTreeMap<String, Vec<u8>>, image: &str) -> Vec<(usize, AuthConfig)> {
    let read = |key: &str| data.get(key).and_then(|text| serde_json::from_slice::<Value>(text).ok());
    // The old form is the list itself.
    let auths = read(".dockerconfigjson").and_then(|config| config.get("auths").cloned());
    let Some(Value::Object(auths)) = auths.or_else(|| read(".dockercfg")) else { return Vec::new() };
    let matching = auths.iter().filter_map(|(key, entry)| Some((matches(key, image)?, entry)));
    matching
        .map(|(length, entry)| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let auth = AuthConfig {
                username: text("username"),
                password: text("password"),
                auth: text("auth"),
                identity_token: text("identitytoken"),
                ..Default::default()
            };
            (length, auth)
        })
        .collect()
}

/// The length of the path by which `key` (a registry, perhaps with a path) covers `image`; `None` when it does not.
fn matches(key: &str, image: &str) -> Option<usize> {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_end_matches('/').trim_start_matches("v1").trim_start_matches("v2").trim_matches('/');
    let (registry, name) = image.split_once('/')?;
    let docker = registry == "docker.io" && host.ends_with("docker.io");
    // `*` stands for one part of a host name.
    let parts = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (wanted, have) = (parts(host), parts(registry));
    let same = wanted.len() == have.len() && wanted.iter().zip(&have).all(|(w, h)| w == "*" || w == h);
    let below = path.is_empty() || name == path || name.starts_with(&format!("{path}/"));
    ((docker || same) && below).then_some(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "r.example": {"username": "u"},
            "*.cloud.example/team": {"username": "t"}}});
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), config.to_string().into_bytes())]);
        let check = |image: &str, expect: &[&str]| {
            let found = registry_auths(&data, image);
            let names: Vec<String> = found.iter().map(|(_, a)| format!("{}{}", a.auth, a.username)).collect();
            assert_eq!(names, expect, "{image}");
        };
        check("docker.io/library/redis:latest", &["YTpi"]);
        check("r.example/a/b:1", &["u"]);
        check("eu.cloud.example/team/web:1", &["t"]);
        check("eu.cloud.example/teams/web:1", &[]);
        check("other/x", &[]);
        let old = json!({"r.example": {"username": "old"}});
        let data = BTreeMap::from([(".dockercfg".to_owned(), old.to_string().into_bytes())]);
        assert_eq!(registry_auths(&data, "r.example/x").len(), 1, "the old form");
    }
}
