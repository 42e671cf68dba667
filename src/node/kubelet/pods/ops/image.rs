//! Operations on images.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use serde_json::Value;

use super::{Failure, Job, Outcome, failure};
use crate::node::cri::RuntimeError;
use crate::node::cri::api::{AuthConfig, Image};
use crate::node::kubelet::container::{Source, check_user};
use crate::node::kubelet::context::reference;
use crate::node::kubelet::image::{self, Policy};
use crate::node::kubelet::objects::Kind;
use crate::node::kubelet::spec;

impl Job {
    /// Makes sure of a container's image, by its pull policy.
    pub async fn pull(self, container: String) -> Outcome {
        let result = match self.container(&container) {
            Some(spec) => self.ensure_image(&spec).await,
            None => Err(failure("ErrImagePull", "no such container")),
        };
        Outcome::Pulled { container, result }
    }

    async fn ensure_image(&self, spec: &Spec) -> Result<String, Failure> {
        let events = &self.context.events;
        let about = || reference(&self.pod, Some(&spec.name));
        let short = spec.image.clone().unwrap_or_default();
        let name = image::normalize(&short).map_err(|error| {
            events.warning(about(), "InspectFailed", error.to_string());
            failure("InvalidImageName", error)
        })?;
        let runtime = &self.context.runtime;
        let present = runtime.image(&name).await.map_err(|error| failure("ImageInspectError", error))?;
        match (image::policy(spec), present) {
            (Policy::IfNotPresent | Policy::Never, Some(image)) => {
                let text = format!("Container image \"{short}\" already present on machine");
                events.normal(about(), "Pulled", text);
                return self.checked(spec, &image);
            }
            (Policy::Never, None) => {
                let text = format!("Container image \"{short}\" is not present with pull policy of Never");
                events.warning(about(), "ErrImageNeverPull", text.clone());
                return Err(failure("ErrImageNeverPull", text));
            }
            _ => {}
        }
        events.normal(about(), "Pulling", format!("Pulling image \"{short}\""));
        let began = tokio::time::Instant::now();
        if let Err(error) = self.fetch(&name).await {
            events.warning(about(), "Failed", format!("Failed to pull image \"{short}\": {error}"));
            events.warning(about(), "Failed", "Error: ErrImagePull");
            return Err(failure("ErrImagePull", error));
        }
        let image = runtime.image(&name).await.map_err(|error| failure("ImageInspectError", error))?;
        let image = image.unwrap_or_default();
        let took = format!("{:.3}s", began.elapsed().as_secs_f64());
        let text = format!(
            "Successfully pulled image \"{short}\" in {took} ({took} including waiting). Image size: {} bytes.",
            image.size
        );
        events.normal(about(), "Pulled", text);
        self.checked(spec, &image)
    }

    /// Tries every matching credential in turn; without any it asks as nobody.
    async fn fetch(&self, name: &str) -> Result<(), RuntimeError> {
        let mut result = Ok(());
        let matching = credentials(&self.pod, &self.source, name);
        let all: Vec<Option<AuthConfig>> =
            if matching.is_empty() { vec![None] } else { matching.into_iter().map(Some).collect() };
        for auth in all {
            result = self.context.runtime.pull(name, auth).await.map(drop);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn checked(&self, container: &Spec, image: &Image) -> Result<String, Failure> {
        check_user(spec(&self.pod), container, image).map_err(|error| {
            self.context.events.warning(
                reference(&self.pod, Some(&container.name)),
                "Failed",
                format!("Error: {error}"),
            );
            failure("CreateContainerConfigError", error)
        })?;
        Ok(image.id.clone())
    }
}

/// The registry's credentials among the Pod's imagePullSecrets; those for a longer path first.
fn credentials(pod: &Pod, source: &Source, image: &str) -> Vec<AuthConfig> {
    let secrets = spec(pod).image_pull_secrets.iter().flatten();
    let mut all: Vec<(usize, AuthConfig)> = secrets
        .filter_map(|secret| source.get(Kind::Secret, &secret.name))
        .flat_map(|data| registry_auths(data, image))
        .collect();
    all.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    all.into_iter().map(|(_, auth)| auth).collect()
}

/// The entries of one Secret that speak for `image`, each with the length of what it matched.
fn registry_auths(data: &BTreeMap<String, Vec<u8>>, image: &str) -> Vec<(usize, AuthConfig)> {
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
