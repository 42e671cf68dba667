//! Which objects of a collection a list or watch wants, decided on keys and attributes. Objects are parsed only if they were stored
//! before their definition named the field.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use api::resources::Resource;
use api::selector::{FieldSelector, LabelSelector, SelectorError};
use api::status::ApiError;
use storage::{Entry, Filter};

use super::convert;
use super::key::{name_of, namespace_of};
use super::wire::Params;

/// Label and field selector of one request.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    /// The only name there can be, if the path says so.
    name: Option<String>,
    namespaced: bool,
    /// The row, where a definition says which fields may be selected on.
    defined: Option<Arc<Resource>>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; 400 if they do not parse or name a field that cannot be selected on.
    /// `name`: the only name there can be; empty for any.
    pub fn read(resource: &Arc<Resource>, params: &Params<'_>, name: &str) -> Result<Self, ApiError> {
        let bad = |error: SelectorError| ApiError::bad_request(error.to_string());
        let labels = params.text("labelSelector").map(LabelSelector::parse).transpose().map_err(bad)?;
        let mut fields = params.text("fieldSelector").map(FieldSelector::parse).transpose().map_err(bad)?;
        if let Some(fields) = &mut fields {
            check_fields(resource, fields)?;
        }
        let name = (!name.is_empty()).then(|| name.to_owned());
        let defined = (!resource.selectable.is_empty()).then(|| Arc::clone(resource));
        Ok(Self { labels, fields, name, namespaced: resource.namespaced, defined }.trimmed())
    }

    /// Selectors without terms select everything.
    fn trimmed(mut self) -> Self {
        self.labels = self.labels.filter(|labels| !labels.is_empty());
        self.fields = self.fields.filter(|fields| !fields.is_empty());
        self
    }

    pub fn is_all(&self) -> bool {
        self.labels.is_none() && self.fields.is_none() && self.name.is_none()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        if self.name.as_deref().is_some_and(|name| name_of(&entry.key) != name) {
            return false;
        }
        let labels =
            self.labels.as_ref().is_none_or(|labels| labels.matches(|key| prefixed(entry, "l:", key)));
        labels && self.fields.as_ref().is_none_or(|fields| fields.matches(|path| self.field(entry, path)))
    }

    fn field<'e>(&self, entry: &'e Entry, path: &str) -> Option<Cow<'e, str>> {
        let value = match path {
            "metadata.name" => name_of(&entry.key),
            "metadata.namespace" if self.namespaced => namespace_of(&entry.key),
            "metadata.namespace" => "",
            _ => match prefixed(entry, "f:", path) {
                Some(value) => value,
                None => return self.parsed(entry, path).map(Cow::Owned),
            },
        };
        Some(Cow::Borrowed(value))
    }

    /// A field of an object that was stored before its definition named it.
    fn parsed(&self, entry: &Entry, path: &str) -> Option<String> {
        let row = self.defined.as_ref()?;
        let object = convert::read(row, &entry.data).ok()?;
        let mut fields = row.selectable_fields(&object).into_iter();
        fields.find(|(name, _)| name == path).map(|(_, value)| value)
    }

    /// The same as a filter for storage; `None` if everything is wanted.
    pub fn filter(&self) -> Option<Filter> {
        if self.is_all() {
            return None;
        }
        let selection = self.clone();
        Some(Arc::new(move |entry: &Entry| selection.matches(entry)))
    }
}

/// The attribute `<prefix><name>`, found without building its name.
fn prefixed<'e>(entry: &'e Entry, prefix: &str, name: &str) -> Option<&'e str> {
    let found = entry.attrs.iter().find(|(key, _)| key.strip_prefix(prefix) == Some(name));
    found.map(|(_, value)| value.as_ref())
}

/// Every term must name a field that can be selected on; it is then called as the stored fields are.
fn check_fields(resource: &Resource, fields: &mut FieldSelector) -> Result<(), ApiError> {
    let known = resource.selectable_fields(&Value::Null);
    for term in fields.terms_mut() {
        let stored = resource.strategy().stored_field(&term.field).into_owned();
        let ok = matches!(stored.as_str(), "metadata.name" | "metadata.namespace")
            || known.iter().any(|(own, _)| *own == stored);
        if !ok {
            let field = &term.field;
            return Err(ApiError::bad_request(if known.is_empty() {
                format!(
                    "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            } else {
                format!("field label not supported: {field}")
            }));
        }
        term.field = stored;
    }
    Ok(())
}
