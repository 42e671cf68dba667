//! Volumes written from ConfigMaps, Secrets, the downward API and tokens.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIVolumeFile, KeyToPath, Pod, SecretProjection, Volume,
    VolumeProjection,
};
use kube::Client;

use super::atomic::{File, Files};
use super::prepare::VolumeError;
use super::tokens::Tokens;
use crate::cri::Runtime;
use crate::cri::api::Image;
use crate::kubelet::container::{Data, Facts, Source, field, resource_field};
use crate::kubelet::objects::Kind;
use crate::kubelet::plugins::Drivers;

/// What the contents of written volumes come from.
pub struct Contents<'a> {
    pub pod: &'a Pod,
    pub source: &'a Source,
    pub facts: &'a Facts,
    pub client: &'a Client,
    pub drivers: &'a Drivers,
    pub runtime: &'a Runtime,
    pub images: &'a Images,
}

/// The images of a Pod's image volumes, by volume.
pub type Images = HashMap<String, Image>;

const MODE: i32 = 0o644;

/// The files of a volume minik writes itself; `None` for volumes of other kinds.
pub async fn files(
    contents: &Contents<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
) -> Result<Option<Files>, VolumeError> {
    let mut out = Files::new();
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode.unwrap_or(MODE);
        object(contents, Kind::ConfigMap, &map.name, map.items.as_deref(), map.optional, mode, &mut out)?;
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let mode = secret.default_mode.unwrap_or(MODE);
        object(contents, Kind::Secret, name, secret.items.as_deref(), secret.optional, mode, &mut out)?;
    } else if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(MODE);
        self::downward(contents, downward.items.as_deref().unwrap_or_default(), mode, &mut out)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(MODE);
        for source in projected.sources.iter().flatten() {
            projection(contents, source, mode, tokens, &mut out).await?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(out))
}

async fn projection(
    contents: &Contents<'_>,
    source: &VolumeProjection,
    mode: i32,
    tokens: &mut Tokens,
    out: &mut Files,
) -> Result<(), VolumeError> {
    if let Some(ConfigMapProjection { name, items, optional }) = &source.config_map {
        object(contents, Kind::ConfigMap, name, items.as_deref(), *optional, mode, out)?;
    }
    if let Some(SecretProjection { name, items, optional }) = &source.secret {
        object(contents, Kind::Secret, name, items.as_deref(), *optional, mode, out)?;
    }
    if let Some(items) = source.downward_api.as_ref().and_then(|downward| downward.items.as_ref()) {
        downward(contents, items, mode, out)?;
    }
    if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
        let kind = if source.pod_certificate.is_some() { "podCertificate" } else { "clusterTrustBundle" };
        return Err(VolumeError::Unsupported(format!("projected {kind}")));
    }
    if let Some(token) = &source.service_account_token {
        let text = tokens
            .get(contents.client, contents.pod, token)
            .await
            .map_err(|error| VolumeError::Token(Box::new(error)))?;
        let owner = only_user(contents.pod);
        put(out, &token.path, text.into_bytes(), token_mode(contents.pod, owner, mode))?;
        if let Some(file) = out.get_mut(&token.path) {
            file.owner = owner;
        }
    }
    Ok(())
}

/// The one user all containers of the Pod run as, where there is one.
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let default = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let user = |container: &Container| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(default)
    };
    let mut users = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(user);
    let first = users.next()??;
    if users.all(|other| other == Some(first)) { u32::try_from(first).ok() } else { None }
}

/// Tokens are readable by their owner alone where a group shares the volume (it is let in by that) or all containers
/// run as one user, who owns them then.
fn token_mode(pod: &Pod, owner: Option<u32>, mode: i32) -> i32 {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let grouped = context.is_some_and(|context| context.fs_group.is_some());
    if grouped || owner.is_some() { 0o600 } else { mode }
}

/// The keys of a ConfigMap or Secret: all of them, or those listed under the paths listed.
fn object(
    contents: &Contents<'_>,
    kind: Kind,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
    out: &mut Files,
) -> Result<(), VolumeError> {
    let optional = optional == Some(true);
    let Some(data) = contents.source.get(kind, name) else {
        return if optional { Ok(()) } else { Err(VolumeError::Missing { kind, name: name.to_owned() }) };
    };
    match items.filter(|items| !items.is_empty()) {
        None => all(data, mode, out),
        Some(items) => listed(data, items, kind, name, optional, mode, out),
    }
}

fn all(data: &Data, mode: i32, out: &mut Files) -> Result<(), VolumeError> {
    data.iter().try_for_each(|(key, value)| put(out, key, value.clone(), mode))
}

fn listed(
    data: &Data,
    items: &[KeyToPath],
    kind: Kind,
    name: &str,
    optional: bool,
    mode: i32,
    out: &mut Files,
) -> Result<(), VolumeError> {
    for item in items {
        match data.get(&item.key) {
            Some(value) => put(out, &item.path, value.clone(), item.mode.unwrap_or(mode))?,
            None if optional => {}
            None => return Err(VolumeError::Key { kind, name: name.to_owned(), key: item.key.clone() }),
        }
    }
    Ok(())
}

fn downward(
    contents: &Contents<'_>,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    out: &mut Files,
) -> Result<(), VolumeError> {
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            field(contents.pod, &reference.field_path, contents.facts)?
        } else if let Some(reference) = &item.resource_field_ref {
            let own = contents.pod.spec.as_ref().and_then(|spec| spec.containers.first());
            match own {
                Some(own) => resource_field(contents.pod, own, reference, contents.facts)?,
                None => continue,
            }
        } else {
            continue;
        };
        put(out, &item.path, text.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

/// Adds a file; a path that would leave the volume is refused, whatever validation let through.
fn put(out: &mut Files, path: &str, contents: Vec<u8>, mode: i32) -> Result<(), VolumeError> {
    let inside = !path.starts_with('/') && path.split('/').all(|part| !part.is_empty() && part != "..");
    if !inside {
        return Err(VolumeError::Path(path.to_owned()));
    }
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
    out.insert(path.to_owned(), File { contents, mode, owner: None });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing::pod;
    use serde_json::{Value, json};

    #[test]
    fn tokens_are_for_those_who_run() {
        let check = |context: Value, own: Value, expect: (Option<u32>, i32)| {
            let pod = pod(json!({"spec": {"securityContext": context,
                "containers": [{"name": "a"}, {"name": "b", "securityContext": own}]}}));
            let owner = only_user(&pod);
            assert_eq!((owner, token_mode(&pod, owner, 0o644)), expect, "{pod:?}");
        };
        check(json!({}), json!({}), (None, 0o644));
        check(json!({"runAsUser": 1000}), json!({}), (Some(1000), 0o600));
        check(json!({"runAsUser": 1000}), json!({"runAsUser": 1}), (None, 0o644));
        check(json!({"fsGroup": 5}), json!({}), (None, 0o600));
    }
}
