//! Errors a client is told, as `metav1.Status`, with upstream's codes, reasons and sentences.

use serde_json::{Map, Value, json};

use super::validate::FieldError;

/// `Status.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    /// The reason of this name, as other servers write it in their answers.
    pub fn parse(name: &str) -> Option<Self> {
        const ALL: [Reason; 18] = [
            Reason::BadRequest,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Gone,
            Reason::Expired,
            Reason::RequestEntityTooLarge,
            Reason::UnsupportedMediaType,
            Reason::Invalid,
            Reason::TooManyRequests,
            Reason::InternalError,
            Reason::ServerTimeout,
            Reason::ServiceUnavailable,
            Reason::Timeout,
        ];
        ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }
}

/// One cause in `Status.details`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    /// Empty: the whole object.
    pub field: String,
}

/// `Status.details`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// The resource's plural; for `Invalid`, the kind.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    /// 0: not said.
    pub retry_after_seconds: u32,
}

/// An error with everything a client is told about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

/// `pods`, `deployments.apps`: how messages name a resource (or a kind).
pub fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn about(group: &str, kind: &str, name: &str) -> Details {
    Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() }
}

impl ApiError {
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn with(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Adds a cause to the details.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// An empty message reads "Unauthorized" in kubectl's words.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(401, Reason::Unauthorized, if message.is_empty() { "Unauthorized".into() } else { message })
    }

    /// `name` may be empty: then the resource as a whole is forbidden.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = match (plural.is_empty() && group.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", qualified(group, plural)),
            (false, false) => format!("{} {name:?} is forbidden: {why}", qualified(group, plural)),
        };
        Self::new(403, Reason::Forbidden, message).with(about(group, plural, name))
    }

    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, plural));
        Self::new(404, Reason::NotFound, message).with(about(group, plural, name))
    }

    /// No such path, or no such resource: kubectl reads it as "the server could not find the requested resource".
    pub fn unknown_path() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .with(Details::default())
    }

    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, plural));
        Self::new(409, Reason::AlreadyExists, message).with(about(group, plural, name))
    }

    /// `generateName` met taken names only; the client may try again.
    pub fn generate_name_conflict(group: &str, plural: &str, name: &str) -> Self {
        let resource = qualified(group, plural);
        let message = format!(
            "{resource} {name:?} already exists, the server was not able to generate a unique name for the object"
        );
        let details = Details { retry_after_seconds: 1, ..about(group, plural, name) };
        Self::new(409, Reason::AlreadyExists, message).with(details)
    }

    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, plural));
        Self::new(409, Reason::Conflict, message).with(about(group, plural, name))
    }

    /// The conflict of an update whose `resourceVersion` is not the current one.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// `kind` is the kind, not the plural. One error stands alone, several in brackets, repeated ones once.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let mut messages: Vec<String> = Vec::new();
        for error in &errors {
            let message = error.to_string();
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        let all = match messages.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {all}", qualified(group, kind));
        let cause = |error: &FieldError| Cause {
            reason: error.kind.cause().into(),
            message: error.body(),
            field: error.field.clone(),
        };
        let details = Details { causes: errors.iter().map(cause).collect(), ..about(group, kind, name) };
        Self::new(422, Reason::Invalid, message).with(details)
    }

    pub fn method_not_supported(group: &str, plural: &str, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind {:?}", qualified(group, plural));
        Self::new(405, Reason::MethodNotAllowed, message).with(about(group, plural, ""))
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with(Details::default())
    }

    /// `accepted`: the media types there are.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    pub fn too_large(message: &str) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    /// 410: a continue token or resourceVersion whose history is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    pub fn timeout(message: &str, retry_after_seconds: u32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self::new(504, Reason::Timeout, format!("Timeout: {message}")).with(details)
    }

    /// The client asks for a state later than the newest.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let why = format!("Too large resource version: {asked}, current: {current}");
        Self::timeout(&why, 1).with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self::new(429, Reason::TooManyRequests, message).with(details)
    }

    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {why}"))
            .with_cause("", &why, "")
    }

    pub fn server_timeout(group: &str, plural: &str, operation: &str) -> Self {
        let resource = qualified(group, plural);
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        let details = Details { name: operation.into(), ..about(group, plural, "") };
        Self::new(500, Reason::ServerTimeout, message).with(details)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// The `metav1.Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if self.reason != Reason::Unknown {
            status["reason"] = self.reason.as_str().into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_value();
        }
        status
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, text: &str| {
            if !text.is_empty() {
                map.insert(key.to_owned(), text.into());
            }
        };
        put("name", &self.name);
        put("group", &self.group);
        put("kind", &self.kind);
        put("uid", &self.uid);
        if !self.causes.is_empty() {
            map.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(map)
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                map.insert(key.into(), text.as_str().into());
            }
        }
        Value::Object(map)
    }
}

/// The `Status` that answers a delete which left nothing behind.
pub fn deleted(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let details = Details { uid: uid.into(), ..about(group, plural, name) };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_value(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_upstream_says() {
        let error = ApiError::not_found("apps", "deployments", "web");
        assert_eq!(error.message, "deployments.apps \"web\" not found");
        assert_eq!(
            error.to_status(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" not found", "reason": "NotFound", "code": 404,
                "details": {"name": "web", "group": "apps", "kind": "deployments"}})
        );
    }

    #[test]
    fn several_field_errors_stand_in_brackets() {
        let errors = vec![
            FieldError::required("spec.a", ""),
            FieldError::required("spec.a", ""),
            FieldError::invalid("spec.b", 3, "must be less"),
        ];
        let error = ApiError::invalid("", "Pod", "x", errors);
        assert_eq!(
            error.message,
            "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Invalid value: 3: must be less]"
        );
        assert_eq!(error.details.unwrap().causes.len(), 3);
    }
}
