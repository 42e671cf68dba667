//! The rows of the resource table, found without copying a request's words.

use std::collections::HashMap;
use std::sync::Arc;

use crate::api::resources::{Resource, table};

/// The table, by plural name.
pub struct Rows {
    by_plural: HashMap<Box<str>, Vec<Arc<Resource>>>,
}

impl Rows {
    pub fn builtin() -> Self {
        let mut by_plural: HashMap<Box<str>, Vec<Arc<Resource>>> = HashMap::new();
        for row in table().iter() {
            by_plural.entry(row.plural.as_ref().into()).or_default().push(row.clone());
        }
        Self { by_plural }
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(plural)?.iter().find(|row| row.group == group && row.version == version)
    }
}
