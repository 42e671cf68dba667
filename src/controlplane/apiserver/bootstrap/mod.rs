//! What a cluster holds before anybody has asked for anything: created, and kept complete, at every start.
//!
//! Everything goes through the API itself, so that defaults, validation and admission apply here, too.

mod merge;
mod objects;
mod policy;
mod servers;

use axum::Router;
use axum::body::Body;
use futures::future::try_join_all;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::Value;
use tower::ServiceExt;

use super::convert;
use super::user::UserInfo;
use api::flow_control;
use api::meta::{Gvk, ObjectExt};
use api::resources::{Resource, Table, builtin};
use config::NodeConfig;
use pki::{CertificateInfo, PkiError, ServerPki};
use storage::{StorageError, Store};

use objects::Authorities;
pub use objects::{AUTHENTICATION, api_cluster_ip};
pub(crate) use servers::Servers;

/// Why the first objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("templates/rbac.yaml: {0}")]
    Policy(String),
    #[error("templates/flow-control.yaml: {0}")]
    FlowControl(String),
    #[error("{kind} {name}: {message}")]
    Refused { kind: String, name: String, message: String },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Creates what is missing and completes what lacks something; returns when all of it is durable. Where several servers share the
/// store, who they are is [`Servers`]' to say.
pub async fn run(
    router: &Router,
    store: &dyn Store,
    config: &NodeConfig,
    pki: &ServerPki,
    now: Timestamp,
) -> Result<(), BootstrapError> {
    ensure_all(router, store, objects::namespaces()).await?;
    let mut rest = policy::objects().map_err(BootstrapError::Policy)?;
    let flow_control = flow_control::defaults().map_err(BootstrapError::FlowControl)?;
    rest.extend(flow_control.into_iter().map(|default| default.object));
    // The authority is as old as the cluster.
    let authorities = Authorities::of(pki);
    let made =
        Timestamp::from_second(CertificateInfo::from_pem(authorities.cluster)?.not_before).unwrap_or(now);
    rest.extend(objects::all(config, &authorities, made, now));
    if store.alone() {
        rest.extend(servers::endpoints(&[config.server_ip], config.server_port));
    }
    ensure_all(router, store, rest).await
}

async fn ensure_all(router: &Router, store: &dyn Store, objects: Vec<Value>) -> Result<(), BootstrapError> {
    let builtin = Table::new(builtin());
    try_join_all(objects.into_iter().map(|object| ensure(router, store, &builtin, object))).await?;
    Ok(())
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Stands,
    /// Somebody else made or changed the object meanwhile.
    AnotherFirst,
}

async fn ensure(
    router: &Router,
    store: &dyn Store,
    builtin: &Table,
    object: Value,
) -> Result<Written, BootstrapError> {
    let kind = Gvk::of_object(&object);
    let refused = |message: String| BootstrapError::Refused {
        kind: kind.to_string(),
        name: object.name().to_owned(),
        message,
    };
    let row = builtin.by_kind(&kind).ok_or_else(|| refused("not a known kind".to_owned()))?;
    let key = convert::collection(row).key(object.namespace(), object.name());
    let stored = store.get(&key).await?;
    let (method, path, body) = match stored {
        None => (Method::POST, collection(row, &object), object.clone()),
        Some(entry) => {
            let stored = serde_json::from_slice(&entry.data).map_err(|error| refused(error.to_string()))?;
            let Some(merged) = merge::complete(&stored, &object) else { return Ok(Written::Stands) };
            (Method::PUT, format!("{}/{}", collection(row, &object), object.name()), merged)
        }
    };
    match send(router, method.clone(), &path, &body).await {
        Ok((200..=299, _)) => Ok(Written::Stands),
        // At the latest it is looked at again at the next start.
        Ok((409, _)) => Ok(Written::AnotherFirst),
        // Another server made it meanwhile, and it has the address that was asked for.
        Ok((422, _)) if method == Method::POST && store.get(&key).await?.is_some() => {
            Ok(Written::AnotherFirst)
        }
        Ok((_, answer)) => Err(refused(answer)),
        Err(error) => Err(refused(error)),
    }
}

fn collection(row: &Resource, object: &Value) -> String {
    let root = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
    match row.namespaced {
        true => format!("{root}/{}/namespaces/{}/{}", row.version, object.namespace(), row.plural),
        false => format!("{root}/{}/{}", row.version, row.plural),
    }
}

/// Sends a request as the API server itself; returns the code and the body.
pub(crate) async fn send(
    router: &Router,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<(u16, String), String> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .extension(UserInfo::api_server())
        .body(Body::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    let Ok(response) = router.clone().oneshot(request).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
