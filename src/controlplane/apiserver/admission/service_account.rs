//! Every Pod has a ServiceAccount and, unless it says otherwise, its token.

use rand::RngExt;
use serde_json::{Value, json};

use super::{Attributes, Context, Operation, Plugin, pod};
use api::meta::ObjectExt;
use api::status::ApiError;

/// Where every container finds its token, the cluster's authority and its namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// One hour, and the seven seconds by which upstream tells its own default from somebody's choice.
const TOKEN_SECONDS: i64 = 3607;

/// Every Pod runs as a ServiceAccount, and gets its token unless it or the account says otherwise.
pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let namespace = attributes.namespace;
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        if object.annotation(pod::MIRROR).is_some() {
            return Ok(());
        }
        let Some(name) = set_name(object) else { return Ok(()) };
        let Some(account) = context.known.service_account(namespace, &name) else {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            return Err(attributes.forbidden(&why));
        };
        let wanted = object
            .bool_at("/spec/automountServiceAccountToken")
            .or_else(|| account.bool_at("/automountServiceAccountToken"));
        if wanted.unwrap_or(true) {
            mount_token(object);
        }
        if object.array_at("/spec/imagePullSecrets").is_empty() {
            let secrets = account.array_at("/imagePullSecrets");
            if !secrets.is_empty() {
                object["spec"]["imagePullSecrets"] = secrets.to_vec().into();
            }
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = attributes.object.as_ref() else { return Ok(()) };
        if object.annotation(pod::MIRROR).is_some() {
            let name = object.str_at("/spec/serviceAccountName").unwrap_or_default();
            return match name {
                "" => Ok(()),
                _ => Err(attributes.forbidden("a mirror pod may not reference service accounts")),
            };
        }
        let name = object.str_at("/spec/serviceAccountName").unwrap_or_default();
        match context.known.service_account(attributes.namespace, name) {
            Some(_) => Ok(()),
            None => {
                let namespace = attributes.namespace;
                let why = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
                );
                Err(attributes.forbidden(&why))
            }
        }
    }
}

/// The account a Pod names, or the default one; in both fields.
fn set_name(pod: &mut Value) -> Option<String> {
    let of = |pointer| pod.str_at(pointer).filter(|name| !name.is_empty());
    let name = of("/spec/serviceAccountName").or_else(|| of("/spec/serviceAccount")).unwrap_or("default");
    let name = name.to_owned();
    let spec = pod.get_mut("spec")?.as_object_mut()?;
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.clone().into());
    Some(name)
}

fn mounts_token(container: &Value) -> bool {
    container.array_at("/volumeMounts").iter().any(|mount| mount.str_at("/mountPath") == Some(MOUNT_PATH))
}

fn mount_token(object: &mut Value) {
    let existing = object.array_at("/spec/volumes").iter().filter_map(|volume| volume.str_at("/name"));
    let existing = existing.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let needed = pod::containers(object).any(|container| !mounts_token(container));
    if !needed {
        return;
    }
    let fresh = existing.is_none();
    let name = existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    for container in pod::containers_mut(object).filter(|container| !mounts_token(container)) {
        let mount = json!({"name": name, "mountPath": MOUNT_PATH, "readOnly": true});
        pod::push(container, "volumeMounts", mount);
    }
    if fresh && let Some(spec) = object.get_mut("spec") {
        pod::push(spec, "volumes", volume(&name));
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// Five characters of the alphabet that upstream makes generated names from.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}
