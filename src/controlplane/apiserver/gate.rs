//! Who sends a request, and may they: the first step of every request.

use std::sync::Arc;

use http::request::Parts;

use crate::api::status::ApiError;

use super::auth::Authenticator;
use super::authz::{Action, Authorizer};
use super::request::RequestInfo;
use super::user::UserInfo;

/// Authentication and authorisation.
pub struct Gate {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
}

impl Gate {
    /// The user of the request, if they may do what it asks for.
    pub async fn pass(&self, parts: &Parts, info: &RequestInfo) -> Result<UserInfo, ApiError> {
        let user = self.authenticator.authenticate(parts).await?;
        let decision = self.authorizer.authorize(&user, info).await;
        if decision.allowed {
            return Ok(user);
        }
        Err(Authorizer::forbidden(&user, &Action::from(info), &decision))
    }
}
