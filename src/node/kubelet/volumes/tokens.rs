//! ServiceAccount tokens in volumes, renewed in time.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::core::Request;
use kube::{Api, Client};

/// Upstream refreshes after four fifths of a token's life, or a day.
const DAY: i64 = 24 * 3600;

#[derive(Clone, Debug)]
struct Token {
    text: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of one Pod, by audience and lifetime.
#[derive(Clone, Debug, Default)]
pub struct Tokens(HashMap<(String, i64), Token>);

impl Tokens {
    /// When the first of them is to be renewed.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.0.values().map(|token| token.refresh_at).min()
    }

    /// The token for one projection: the one in hand while it is fresh, else a new one bound to the Pod.
    pub async fn get(
        &mut self,
        client: &Client,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, kube::Error> {
        Ok(self.get_dated(client, pod, projection).await?.0)
    }

    /// The same, with the time when it expires.
    pub async fn get_dated(
        &mut self,
        client: &Client,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), kube::Error> {
        let audience = projection.audience.clone().unwrap_or_default();
        let seconds = projection.expiration_seconds.unwrap_or(3600);
        let key = (audience.clone(), seconds);
        if let Some(token) = self.0.get(&key).filter(|token| token.refresh_at > Timestamp::now()) {
            return Ok((token.text.clone(), token.expires_at));
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience].into_iter().filter(|a| !a.is_empty()).collect()),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..Default::default()
        };
        let token = post(client, namespace, account, &request).await?;
        let status = token.status.unwrap_or_default();
        let now = Timestamp::now().as_second();
        let expires = status.expiration_timestamp.map_or(now + seconds, |time| time.0.as_second());
        let refresh = now + ((expires - now) * 4 / 5).min(DAY);
        let text = status.token.unwrap_or_default();
        let refresh_at = Timestamp::from_second(refresh).unwrap_or(Timestamp::MAX);
        let expires_at = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
        self.0.insert(key, Token { text: text.clone(), refresh_at, expires_at });
        Ok((text, expires_at))
    }
}

async fn post(
    client: &Client,
    namespace: &str,
    account: &str,
    body: &TokenRequest,
) -> Result<TokenRequest, kube::Error> {
    let api: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    let request = Request::new(api.resource_url())
        .create_subresource("token", account, &PostParams::default(), bytes)
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}
