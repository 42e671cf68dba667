//! What Docker answered, by what can be done about it.

use bollard::errors::Error;

/// What Docker answered, by what a person can do about it.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("cannot reach Docker at {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// It answered before.
    #[error("Docker went away: {0}")]
    Lost(String),
    #[error("no permission to use Docker at {endpoint}")]
    Permission { endpoint: String },
    #[error("the Docker context {0:?} does not exist")]
    Context(String),
    /// 404: no such container, image, network or volume.
    #[error("{0}")]
    NotFound(String),
    /// 409: the name is taken, or the thing is in use.
    #[error("{0}")]
    Conflict(String),
    #[error("Docker answered {status}: {message}")]
    Refused { status: u16, message: String },
    /// Docker reported a failure in the middle of a long answer (a pull, a build).
    #[error("{0}")]
    Stream(String),
    #[error("Docker: {0}")]
    Client(String),
}

impl DockerError {
    pub(super) fn from_connect(endpoint: &str, error: Error) -> Self {
        match Self::from(error) {
            Self::Client(reason) | Self::Lost(reason) => {
                Self::Unreachable { endpoint: endpoint.to_owned(), reason }
            }
            other => other,
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// The subnet was taken by somebody else in between.
    pub fn is_address_conflict(&self) -> bool {
        self.says(&["pool overlaps", "networks have overlapping", "conflicts with network"])
    }

    /// The host port was taken by somebody else in between.
    pub fn is_port_conflict(&self) -> bool {
        self.says(&["port is already allocated", "address already in use", "ports are not available"])
    }

    /// The machine does not have a capability that was asked for.
    pub fn is_capability_refused(&self) -> bool {
        self.says(&["unable to apply caps", "unable to set capabilities", "apply caps"])
    }

    fn says(&self, any: &[&str]) -> bool {
        let text = self.to_string().to_lowercase();
        any.iter().any(|part| text.contains(part))
    }
}

impl From<Error> for DockerError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => match status_code {
                404 => Self::NotFound(message),
                409 => Self::Conflict(message),
                status => Self::Refused { status, message },
            },
            Error::DockerStreamError { error } => Self::Stream(error),
            Error::UnsupportedURISchemeError { uri } => Self::Unreachable {
                endpoint: uri,
                reason: "only unix://, tcp:// and ssh:// endpoints are supported".to_owned(),
            },
            Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } => {
                Self::Lost(with_sources(&error))
            }
            other => Self::Client(with_sources(&other)),
        }
    }
}

/// The message with its causes: the outermost alone often says only that something failed.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
