//! Resources that are questions, not objects: who am I, may I, whose token is this, give me a token. They are answered when
//! they are created and never stored.

mod access;
mod identity;
mod token;

use std::sync::Arc;

use serde_json::Value;

use super::auth::{Authenticator, Tokens};
use super::authz::Authorizer;
use super::index::Index;
use super::request::RequestInfo;
use super::user::UserInfo;
use api::resources::Review;
use api::status::ApiError;
use rt::Clock;

/// Answers reviews and token requests.
pub struct Reviews {
    index: Arc<Index>,
    authenticator: Arc<Authenticator>,
    authorizer: Arc<Authorizer>,
    tokens: Arc<Tokens>,
    clock: Arc<dyn Clock>,
}

impl Reviews {
    pub fn new(
        index: Arc<Index>,
        authenticator: Arc<Authenticator>,
        authorizer: Arc<Authorizer>,
        tokens: Arc<Tokens>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { index, authenticator, authorizer, tokens, clock }
    }

    /// Answers a `create` of the request's resource; `object` is the decoded body, and what comes back is what the client
    /// gets, with 201.
    pub async fn answer(
        &self,
        review: Review,
        user: &UserInfo,
        info: &RequestInfo,
        object: Value,
    ) -> Result<Value, ApiError> {
        match review {
            Review::Token => self.token_review(object).await,
            Review::SelfSubject => Ok(identity::self_subject(user, object)),
            Review::SelfSubjectRules => self.rules_review(user, object).await,
            Review::SelfSubjectAccess => self.access_review(user.clone(), object).await,
            Review::SubjectAccess => {
                let subject = access::subject("SubjectAccessReview", &object)?;
                self.access_review(subject, object).await
            }
            Review::LocalSubjectAccess => {
                access::check_namespace(&object, &info.namespace)?;
                let subject = access::subject("LocalSubjectAccessReview", &object)?;
                self.access_review(subject, object).await
            }
            Review::Binding => Err(ApiError::internal("a binding is not a review")),
        }
    }
}
