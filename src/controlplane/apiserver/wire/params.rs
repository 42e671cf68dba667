//! Query parameters.

use std::borrow::Cow;

use serde_json::Value;

use api::status::ApiError;
use api::validate::FieldError;

/// The parameters of a query, decoded.
#[derive(Clone, Debug, Default)]
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads a raw query; most requests have none.
    pub fn new(query: Option<&'a str>) -> Self {
        let query = query.unwrap_or_default();
        if query.is_empty() {
            Self::default()
        } else {
            Self(form_urlencoded::parse(query.as_bytes()).collect())
        }
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The first value of `name`, if it is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All values of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// A boolean as upstream reads it: absent, `false` and `0` are false; all else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(truth)
    }

    /// The same, told apart from absent.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(truth)
    }

    /// An integer; 400 if it is not one.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {why}", Value::from(text)))
        })
    }

    /// `dryRun=All`; 422 for any other value.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        let mut dry = false;
        for value in self.all("dryRun") {
            if value != "All" {
                let error = FieldError::not_supported("dryRun", value, &["All"]);
                return Err(ApiError::invalid("meta.k8s.io", "CreateOptions", "", vec![error]));
            }
            dry = true;
        }
        Ok(dry)
    }
}

fn truth(value: &str) -> bool {
    !value.eq_ignore_ascii_case("false") && value != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_upstream_reads_them() {
        let params = Params::new(Some("watch=1&a=true&b=&c=false&d=0&limit=5"));
        let flags: Vec<bool> =
            ["watch", "a", "b", "c", "d", "none"].iter().map(|name| params.flag(name)).collect();
        assert_eq!(flags, [true, true, true, false, false, false]);
        assert_eq!(params.integer("limit").expect("a number"), Some(5));
        assert_eq!(params.integer("none").expect("nothing"), None);
        assert!(params.integer("a").is_err());
        assert!(params.integer("b").is_err(), "nothing is no number");
    }
}
