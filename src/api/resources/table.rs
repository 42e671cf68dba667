use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::descriptor::Resource;
use super::groups;
use crate::api::meta::Gvk;

/// The rows, and ways to find them.
pub struct Table {
    rows: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
    by_kind: HashMap<Gvk, usize>,
}

impl Table {
    /// A table of these rows; a later row with the same path or kind does not replace an earlier one.
    pub fn new(rows: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let rows: Vec<Arc<Resource>> = rows.into_iter().collect();
        let mut by_path = HashMap::new();
        let mut by_kind = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            let path = (row.group.to_string(), row.version.to_string(), row.plural.to_string());
            by_path.entry(path).or_insert(at);
            by_kind.entry(row.gvk()).or_insert(at);
        }
        Self { rows, by_path, by_kind }
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let at = self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))?;
        Some(self.rows[*at].clone())
    }

    pub fn by_kind(&self, kind: &Gvk) -> Option<Arc<Resource>> {
        Some(self.rows[*self.by_kind.get(kind)?].clone())
    }

    /// In the order groups and versions are preferred.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter()
    }
}

/// The built-in resources.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::new(groups::rows().into_iter().map(Arc::new)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_printer_fills_its_columns_even_for_an_empty_object() {
        let empty = serde_json::json!({"metadata": {"name": "x"}});
        for row in table().iter() {
            let cells = (row.printer.cells)(&empty, jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), row.printer.columns.len(), "{row:?}");
        }
    }

    #[test]
    fn rows_are_unique() {
        let mut paths = HashSet::new();
        let mut shorts = HashSet::new();
        for row in table().iter() {
            assert!(paths.insert((&row.group, &row.version, &row.plural)), "{row:?}");
            for short in row.short_names.iter() {
                assert!(shorts.insert((&row.group, &row.version, short)), "{row:?} {short}");
            }
            assert!(table().by_kind(&row.gvk()).is_some_and(|found| found.plural == row.plural), "{row:?}");
        }
    }
}
