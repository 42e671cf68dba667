//! Which state a list or watch is about, by its parameters.

use serde_json::Value;

use api::status::ApiError;
use api::validate::{FieldError, FieldErrorKind};

use super::super::wire::{Continue, Params};

/// The parameters that say which state a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub resource_version: Option<String>,
    pub version_match: Option<String>,
    pub limit: usize,
    pub continue_token: Option<String>,
    pub send_initial_events: Option<bool>,
}

/// Which snapshot a list shows, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The state at exactly this revision; `None`: the current one.
    pub at: Option<u64>,
    /// The current state must have reached this revision.
    pub at_least: u64,
    /// Start behind this key, given without the list's prefix.
    pub after: Option<String>,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With synthetic ADDED events for the current state, which must have reached the revision; then, if asked for, a
    /// bookmark that says the state is complete.
    State { at_least: u64, announce_end: bool },
    /// Behind this revision.
    Behind(u64),
    /// With what happens from now on.
    Now,
}

impl ListOptions {
    pub fn read(params: &Params<'_>) -> Result<Self, ApiError> {
        let owned = |name: &str| params.text(name).map(str::to_owned);
        let limit = params.integer("limit")?.unwrap_or(0);
        params.integer("timeoutSeconds")?;
        Ok(Self {
            resource_version: owned("resourceVersion"),
            version_match: owned("resourceVersionMatch"),
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: owned("continue"),
            send_initial_events: params.optional_flag("sendInitialEvents"),
        })
    }

    fn revision(&self) -> Result<u64, ApiError> {
        let Some(text) = &self.resource_version else { return Ok(0) };
        text.parse().map_err(|_| {
            let detail = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
            invalid(FieldErrorKind::Invalid, "resourceVersion", text, detail)
        })
    }

    /// The snapshot of a list, by the table in "Semantics for get and list" of the API concepts.
    pub fn snapshot(&self) -> Result<Snapshot, ApiError> {
        self.check_list()?;
        let revision = self.revision()?;
        if let Some(token) = &self.continue_token {
            if self.resource_version.as_deref().is_some_and(|text| text != "0") {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Continue::decode(token).map_err(|error| ApiError::bad_request(error.to_string()))?;
            let at = (token.revision > 0).then_some(token.revision);
            return Ok(Snapshot { at, at_least: 0, after: Some(token.after) });
        }
        let exact = match self.version_match.as_deref() {
            Some(said) => said == "Exact",
            // Before there was resourceVersionMatch, a page at a revision meant exactly that revision.
            None => self.limit > 0 && revision > 0,
        };
        Ok(match exact {
            true => Snapshot { at: Some(revision), ..Snapshot::default() },
            false => Snapshot { at_least: revision, ..Snapshot::default() },
        })
    }

    /// Where a watch starts, by the table in "Semantics for watch" of the API concepts.
    pub fn start(&self) -> Result<Start, ApiError> {
        self.check_watch()?;
        let revision = self.revision()?;
        Ok(match (self.send_initial_events, revision) {
            (Some(true), at_least) => Start::State { at_least, announce_end: true },
            (Some(false), 0) => Start::Now,
            (Some(false), revision) => Start::Behind(revision),
            (None, 0) => Start::State { at_least: 0, announce_end: false },
            (None, revision) => Start::Behind(revision),
        })
    }

    fn check_list(&self) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        if self.send_initial_events.is_some() {
            errors.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if let Some(said) = self.version_match.as_deref() {
            let field = "resourceVersionMatch";
            if self.resource_version.is_none() {
                errors.push(forbidden(
                    field,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if self.continue_token.is_some() {
                errors.push(forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
            }
            if said != "Exact" && said != "NotOlderThan" {
                errors.push(unsupported(field, said, r#"supported values: "Exact", "NotOlderThan", """#));
            }
            if said == "Exact" && self.resource_version.as_deref() == Some("0") {
                let detail = r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
                errors.push(forbidden(field, detail));
            }
        }
        answer(errors)
    }

    fn check_watch(&self) -> Result<(), ApiError> {
        let field = "resourceVersionMatch";
        let said = self.version_match.as_deref();
        let mut errors = Vec::new();
        if self.send_initial_events.is_some() && said != Some("NotOlderThan") {
            errors.push(forbidden(
                field,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if let Some(said) = said {
            if self.send_initial_events.is_none() {
                let detail =
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(forbidden(field, detail));
            }
            if said != "NotOlderThan" {
                errors.push(unsupported(field, said, r#"supported values: "NotOlderThan""#));
            }
            if self.continue_token.is_some() {
                errors.push(forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
        answer(errors)
    }
}

fn answer(errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors))
}

fn forbidden(field: &str, detail: &str) -> FieldError {
    FieldError {
        kind: FieldErrorKind::Forbidden,
        field: field.to_owned(),
        value: None,
        detail: detail.to_owned(),
    }
}

fn unsupported(field: &str, value: &str, detail: &str) -> FieldError {
    let value = Some(Value::String(value.to_owned()));
    FieldError {
        kind: FieldErrorKind::NotSupported,
        field: field.to_owned(),
        value,
        detail: detail.to_owned(),
    }
}

fn invalid(kind: FieldErrorKind, field: &str, value: &str, detail: String) -> ApiError {
    let error =
        FieldError { kind, field: field.to_owned(), value: Some(Value::String(value.to_owned())), detail };
    ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> ListOptions {
        ListOptions::read(&Params::new(Some(query))).expect("readable")
    }

    fn list(query: &str, at: Option<u64>, at_least: u64) {
        assert_eq!(
            options(query).snapshot().expect(query),
            Snapshot { at, at_least, after: None },
            "{query}"
        );
    }

    #[test]
    fn a_list_shows_the_state_that_was_asked_for() {
        list("", None, 0);
        list("resourceVersion=0", None, 0);
        list("resourceVersion=7", None, 7);
        list("resourceVersion=0&limit=5", None, 0);
        list("resourceVersion=7&limit=5", Some(7), 0);
        list("resourceVersion=7&resourceVersionMatch=Exact", Some(7), 0);
        list("resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=2", None, 7);
        let token = Continue::new(9, "b").encode();
        let page = options(&format!("continue={token}&limit=2")).snapshot().expect("a page");
        assert_eq!(page, Snapshot { at: Some(9), at_least: 0, after: Some("b".to_owned()) });
        for bad in [
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=7&resourceVersionMatch=Newest",
            "resourceVersion=x",
            "continue=x",
            "sendInitialEvents=true",
        ] {
            assert!(options(bad).snapshot().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_watch_starts_where_it_was_asked_to() {
        let state = |at_least, announce_end| Start::State { at_least, announce_end };
        for (query, expect) in [
            ("", state(0, false)),
            ("resourceVersion=0", state(0, false)),
            ("resourceVersion=7", Start::Behind(7)),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", state(0, true)),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=7", state(7, true)),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=7", Start::Behind(7)),
        ] {
            assert_eq!(options(query).start().expect(query), expect, "{query}");
        }
        assert!(options("sendInitialEvents=true").start().is_err());
        assert!(options("resourceVersionMatch=NotOlderThan").start().is_err());
    }
}
