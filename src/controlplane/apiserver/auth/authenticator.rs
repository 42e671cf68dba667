//! Finds out who sends a request.

use std::sync::Arc;

use http::request::Parts;
use serde::Deserialize;

use super::claims::{Claims, Reference};
use super::impersonate::Impersonation;
use super::tokens::{ISSUER, Tokens};
use super::{PeerCertificate, bootstrap_token};
use crate::authz::Authorizer;
use crate::index::Index;
use crate::key::CollectionKey;
use crate::key::collections::{NODES, PODS, SECRETS};
use crate::user::UserInfo;
use api::meta::ObjectExt;
use api::status::ApiError;
use config::JoinToken;
use metrics::{Amounts, Kind, Text};
use rt::Clock;

/// Upstream's bounds, in seconds: from half an hour to 360 days.
const LIFETIMES: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// Finds out who sends a request.
pub struct Authenticator {
    index: Arc<Index>,
    tokens: Arc<Tokens>,
    authorizer: Arc<Authorizer>,
    clock: Arc<dyn Clock>,
    /// How long the certificates of requests are still good.
    certificates: Amounts<14>,
}

/// The parts of a stored object that a bound token is checked against.
#[derive(Deserialize)]
struct Partial {
    metadata: PartialMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialMeta {
    #[serde(default)]
    uid: String,
    deletion_timestamp: Option<String>,
    deletion_grace_period_seconds: Option<i64>,
}

impl Authenticator {
    pub fn new(
        index: Arc<Index>,
        tokens: Arc<Tokens>,
        authorizer: Arc<Authorizer>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { index, tokens, authorizer, clock, certificates: Amounts::default() }
    }

    /// Tells how long the certificates of requests are still good.
    pub fn tell(&self, text: &mut Text) {
        let name = "apiserver_client_certificate_expiration_seconds";
        let about = "How long the client certificates of requests are still good.";
        text.family(name, Kind::Histogram, about);
        self.certificates.tell(text, name, &LIFETIMES, &[]);
    }

    /// The request's user. A `UserInfo` in the extensions wins (in-process clients); then the client certificate, then a
    /// bearer token; without any of these it is `system:anonymous`. Credentials that are wrong are 401, never anonymous.
    pub async fn authenticate(&self, parts: &Parts) -> Result<UserInfo, ApiError> {
        if let Some(user) = parts.extensions.get::<UserInfo>() {
            return Ok(user.clone());
        }
        if let Some(user) = parts.extensions.get::<Arc<UserInfo>>() {
            return Ok(UserInfo::clone(user));
        }
        if let Some(peer) = parts.extensions.get::<Arc<PeerCertificate>>() {
            // The handshake has verified it, but that may be long ago.
            let left = peer.not_after - self.clock.now().as_second();
            self.certificates.observe_amount(&LIFETIMES, u64::try_from(left).unwrap_or(0));
            if left < 0 {
                return Err(ApiError::unauthorized("the client certificate has expired"));
            }
            return Ok(peer.user.clone());
        }
        let Some(header) = parts.headers.get(http::header::AUTHORIZATION) else {
            return Ok(UserInfo::anonymous());
        };
        let text = header.to_str().unwrap_or_default();
        let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match bearer.map(|(_, token)| token.trim()).filter(|token| !token.is_empty()) {
            // As upstream: another scheme is nobody's credentials.
            None => Ok(UserInfo::anonymous()),
            Some(token) => match self.token(token, &[ISSUER.to_owned()]).await {
                Some((user, _)) => Ok(user),
                None => Err(ApiError::unauthorized("")),
            },
        }
    }

    /// Whose token this is, and which of the audiences it is good for; `None` if it is nobody's.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Option<(UserInfo, Vec<String>)> {
        if let Some(claims) = self.tokens.verify(token) {
            let good: Vec<String> = audiences.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
            if good.is_empty() {
                return None;
            }
            return Some((self.service_account(&claims).await?, good));
        }
        let token = JoinToken::parse(token)?;
        let look = || {
            let known = self.index.read();
            bootstrap_token::user(&token, known.bootstrap_token(token.id())?, self.clock.now())
        };
        let mut user = look();
        if user.is_none() && !self.index.is_current() {
            self.index.caught_up().await;
            user = look();
        }
        Some((user?, audiences.to_vec()))
    }

    async fn service_account(&self, claims: &Claims) -> Option<UserInfo> {
        let now = self.clock.now().as_second();
        if claims.exp <= now || claims.nbf > now {
            return None;
        }
        let bound = &claims.kubernetes;
        let account = &bound.serviceaccount;
        let stands = || {
            let known = self.index.read();
            let object = known.service_account(&bound.namespace, &account.name);
            object.is_some_and(|o| o.uid() == account.uid && o.deletion_timestamp().is_none())
        };
        if !stands() {
            self.index.caught_up().await;
            if !stands() {
                return None;
            }
        }
        let mut user = UserInfo::service_account(&bound.namespace, &account.name, &account.uid);
        let mut say = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        say("credential-id", &format!("JTI={}", claims.jti));
        if let Some(pod) = &bound.pod {
            self.bound_stands(PODS, &bound.namespace, pod).await.then_some(())?;
            say("pod-name", &pod.name);
            say("pod-uid", &pod.uid);
        }
        if let Some(secret) = &bound.secret {
            self.bound_stands(SECRETS, &bound.namespace, secret).await.then_some(())?;
        }
        if let Some(node) = &bound.node {
            // A Pod's token names its node for information; a token of the node alone needs it to stand.
            if bound.pod.is_none() {
                self.bound_stands(NODES, "", node).await.then_some(())?;
            }
            say("node-name", &node.name);
            say("node-uid", &node.uid);
        }
        Some(user)
    }

    async fn bound_stands(&self, of: CollectionKey<'_>, namespace: &str, reference: &Reference) -> bool {
        let key = of.key(namespace, &reference.name);
        let Ok(Some(entry)) = self.index.store().get(&key).await else { return false };
        let Ok(stored) = serde_json::from_slice::<Partial>(&entry.data) else { return false };
        let leaving = stored.metadata.deletion_timestamp.and_then(|t| t.parse::<jiff::Timestamp>().ok());
        // The deletion timestamp lies the grace period ahead; upstream gives a minute beyond it.
        let grace = stored.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0);
        let over = leaving.is_some_and(|at| self.clock.now().as_second() > at.as_second() + grace.max(60));
        stored.metadata.uid == reference.uid && !over
    }

    /// Whom the user wants the request to count as from, by its headers; `None`: nobody else. Fails where the rules do not allow it.
    pub async fn impersonated(&self, user: &UserInfo, parts: &Parts) -> Result<Option<UserInfo>, ApiError> {
        let Some(wanted) = Impersonation::from_headers(&parts.headers) else { return Ok(None) };
        if wanted.user.is_empty() {
            return Err(ApiError::internal("requested impersonation without impersonating a user"));
        }
        for action in wanted.actions() {
            let decision = self.authorizer.decide(user, &action).await;
            if !decision.allowed {
                return Err(Authorizer::forbidden(user, &action, &decision));
            }
        }
        Ok(Some(wanted.into_user()))
    }
}
