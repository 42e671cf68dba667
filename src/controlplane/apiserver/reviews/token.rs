//! Token requests.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Reviews;
use crate::auth::{Bound, Claims, ISSUER, Reference};
use crate::key::collections::{NODES, PODS, SECRETS};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::meta::{ObjectExt, format_time};
use api::status::ApiError;
use api::validate::FieldError;

const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;
/// What the admission plugin asks for in Pods. Clients that never read the token again are given a year, and the kubelet
/// renews it long before (upstream: `--service-account-extend-token-expiration`).
const POD_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

impl Reviews {
    /// A token for the ServiceAccount of the path.
    pub async fn token_request(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        mut request: Value,
    ) -> Result<Value, ApiError> {
        let (namespace, name) = (info.namespace.as_str(), info.name.as_str());
        self.index.caught_up().await;
        let account = self.index.read().service_account(namespace, name).cloned();
        let account = account.ok_or_else(|| ApiError::not_found("", "serviceaccounts", name))?;
        let seconds = request.int_at("/spec/expirationSeconds").unwrap_or(DEFAULT_SECONDS);
        let audiences =
            request.array_at("/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned);
        let mut audiences: Vec<String> = audiences.collect();
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        check_seconds(name, seconds)?;
        let account = Reference { name: name.to_owned(), uid: account.uid().to_owned() };
        let mut bound =
            Bound { namespace: namespace.to_owned(), serviceaccount: account, ..Bound::default() };
        self.bind(user, &request, &mut bound).await?;
        let now = self.clock.now();
        let claims = claims(now, seconds, audiences.clone(), bound);
        let token = self.tokens.sign(&claims).map_err(ApiError::internal)?;
        let expires = now.checked_add(SignedDuration::from_secs(seconds)).map_err(ApiError::internal)?;
        request["metadata"] = json!({
            "name": name, "namespace": namespace, "creationTimestamp": format_time(now),
        });
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = seconds.into();
        request["status"] = json!({"token": token, "expirationTimestamp": format_time(expires)});
        Ok(request)
    }

    /// Reads `spec.boundObjectRef`, and checks that a node asks only for the tokens of Pods that it runs.
    async fn bind(&self, user: &UserInfo, request: &Value, bound: &mut Bound) -> Result<(), ApiError> {
        let node = user.node();
        let refuse = |why: &str| ApiError::forbidden("", "serviceaccounts", &bound.serviceaccount.name, why);
        let Some(reference) = request.map_at("/spec/boundObjectRef") else {
            return match node {
                Some(_) => Err(refuse("node requested token not bound to a pod")),
                None => Ok(()),
            };
        };
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
        let collection = match kind {
            "Pod" => PODS,
            "Secret" => SECRETS,
            "Node" => NODES,
            other => {
                let why = format!("cannot bind token to object of type {other:?}");
                return Err(ApiError::bad_request(why));
            }
        };
        if node.is_some() && kind != "Pod" {
            return Err(refuse("node requested token not bound to a pod"));
        }
        let object = self.stored(&collection.key(&bound.namespace, name)).await?;
        let object = object.ok_or_else(|| ApiError::not_found("", collection.plural, name))?;
        if !uid.is_empty() && uid != object.uid() {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict("", collection.plural, name, &why));
        }
        let reference = Reference { name: name.to_owned(), uid: object.uid().to_owned() };
        match kind {
            "Secret" => bound.secret = Some(reference),
            "Node" => bound.node = Some(reference),
            _ => {
                let account = object.str_at("/spec/serviceAccountName").unwrap_or_default();
                if account != bound.serviceaccount.name {
                    let why = format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        bound.serviceaccount.name
                    );
                    return Err(ApiError::bad_request(why));
                }
                let on = object.str_at("/spec/nodeName").unwrap_or_default();
                if node.is_some_and(|node| node != on) {
                    return Err(refuse("node requested token bound to a pod scheduled on a different node"));
                }
                bound.pod = Some(reference);
                if let Some(node) = self.stored(&NODES.key("", on)).await? {
                    bound.node = Some(Reference { name: on.to_owned(), uid: node.uid().to_owned() });
                }
            }
        }
        Ok(())
    }

    async fn stored(&self, key: &str) -> Result<Option<Value>, ApiError> {
        let entry = self.index.store().get(key).await;
        match entry.map_err(ApiError::internal)? {
            Some(entry) => serde_json::from_slice(&entry.data).map(Some).map_err(ApiError::internal),
            None => Ok(None),
        }
    }
}

fn check_seconds(name: &str, seconds: i64) -> Result<(), ApiError> {
    let why = match seconds {
        _ if seconds < MIN_SECONDS => "may not specify a duration less than 10 minutes",
        _ if seconds > MAX_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, vec![error]))
}

fn claims(now: Timestamp, seconds: i64, audiences: Vec<String>, mut bound: Bound) -> Claims {
    let now = now.as_second();
    let mut lifetime = seconds;
    if seconds == POD_SECONDS && bound.pod.is_some() && audiences == [ISSUER] {
        bound.warnafter = Some(now + seconds);
        lifetime = EXTENDED_SECONDS;
    }
    Claims {
        aud: audiences,
        exp: now + lifetime,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name),
        nbf: now,
        kubernetes: bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_a_year_and_others_what_they_ask_for() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |seconds: i64, pod: bool, expect: i64| {
            let bound = Bound { pod: pod.then(Reference::default), ..Bound::default() };
            let made = claims(now, seconds, vec![ISSUER.to_owned()], bound);
            assert_eq!(made.exp - made.iat, expect);
        };
        check(3607, true, EXTENDED_SECONDS);
        check(3607, false, 3607);
        check(600, true, 600);
        assert!(check_seconds("x", 599).is_err() && check_seconds("x", 600).is_ok());
    }
}
