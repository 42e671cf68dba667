//! Who sends a request, and may they: the first step of every request.

use std::sync::Arc;

use http::request::Parts;

use api::status::ApiError;

use super::auth::{Authenticator, Requester};
use super::authz::{Action, Authorizer};
use super::request::RequestInfo;
use super::user::UserInfo;

/// Authentication and authorisation.
pub struct Gate {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
}

impl Gate {
    /// The user of the request.
    pub async fn who(&self, parts: &Parts) -> Result<Requester, ApiError> {
        self.authenticator.authenticate(parts).await
    }

    /// Whether they may do what it asks for; returns why.
    pub async fn may(&self, user: &UserInfo, info: &RequestInfo) -> Result<String, ApiError> {
        let decision = self.authorizer.authorize(user, info).await;
        match decision.allowed {
            true => Ok(decision.reason),
            false => Err(Authorizer::forbidden(user, &Action::from(info), &decision)),
        }
    }
}
