//! Reviews of identity: whose token is this, and who am I.

use serde_json::{Map, Value, json};

use super::Reviews;
use crate::auth::ISSUER;
use crate::user::UserInfo;
use api::meta::ObjectExt;
use api::status::ApiError;

/// A user as `authentication.k8s.io/v1` UserInfo.
fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

/// `kubectl auth whoami`.
pub(super) fn self_subject(user: &UserInfo, mut review: Value) -> Value {
    review["status"] = json!({"userInfo": user_info(user)});
    review
}

impl Reviews {
    /// Whose token is this?
    pub(super) async fn token_review(&self, mut review: Value) -> Result<Value, ApiError> {
        let token = review.str_at("/spec/token").unwrap_or_default();
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = review.array_at("/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned);
        let mut audiences: Vec<String> = asked.collect();
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let status = match self.authenticator.token(token, &audiences).await {
            Some((user, audiences)) => {
                json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
            }
            None => json!({"user": {}, "error": "invalid bearer token"}),
        };
        review["status"] = status;
        Ok(review)
    }
}
