//! Who sends a request, and may they: the first step of every request.

use std::sync::Arc;

use http::request::Parts;

use api::status::ApiError;
use metrics::{Counter, Kind, Text};

use super::auth::Authenticator;
use super::authz::{Action, Authorizer};
use super::request::RequestInfo;
use super::user::UserInfo;

/// Authentication and authorisation.
pub struct Gate {
    authenticator: Arc<Authenticator>,
    authorizer: Arc<Authorizer>,
    /// Requests that are from somebody, and others.
    known: [Counter; 2],
    /// Requests that may be, and others.
    allowed: [Counter; 2],
}

impl Gate {
    pub fn new(authenticator: Arc<Authenticator>, authorizer: Arc<Authorizer>) -> Self {
        Self { authenticator, authorizer, known: Default::default(), allowed: Default::default() }
    }

    /// The user of the request.
    pub async fn who(&self, parts: &Parts) -> Result<UserInfo, ApiError> {
        let user = self.authenticator.authenticate(parts).await;
        self.known[usize::from(user.is_err())].add(1);
        user
    }

    /// Who the user acts as, if that is somebody else.
    pub async fn acts_as(&self, user: &UserInfo, parts: &Parts) -> Result<Option<UserInfo>, ApiError> {
        self.authenticator.impersonated(user, parts).await
    }

    /// Whether they may do what it asks for; returns why.
    pub async fn may(&self, user: &UserInfo, info: &RequestInfo) -> Result<String, ApiError> {
        let decision = self.authorizer.authorize(user, info).await;
        self.allowed[usize::from(!decision.allowed)].add(1);
        match decision.allowed {
            true => Ok(decision.reason),
            false => Err(Authorizer::forbidden(user, &Action::from(info), &decision)),
        }
    }

    /// Tells how often, under upstream's names.
    pub fn tell(&self, text: &mut Text) {
        let mut family = |name: &str, about: &str, results: [&str; 2], counts: &[Counter; 2]| {
            text.family(name, Kind::Counter, about);
            for (result, count) in results.into_iter().zip(counts) {
                text.sample(name, &[("result", result)], count.get() as f64);
            }
        };
        let about = "Requests by whether it is known who sends them.";
        family("authentication_attempts", about, ["success", "error"], &self.known);
        let about = "Requests by whether some rule allows them.";
        family("authorization_attempts_total", about, ["allowed", "no-opinion"], &self.allowed);
        self.authenticator.tell(text);
    }
}
