//! The rows at one moment, and ways to find them.

use std::collections::HashMap;
use std::sync::Arc;

use super::descriptor::Resource;
use super::groups;
use crate::meta::{Gvk, Str};

/// The rows at one moment, and ways to find them. It never changes: another state is another table.
#[derive(Default)]
pub struct Table {
    rows: Vec<Arc<Resource>>,
    by_plural: HashMap<Str, Vec<usize>>,
    by_kind: HashMap<Gvk, usize>,
}

impl Table {
    /// A table of these rows; a later row with the same path or kind does not replace an earlier one.
    pub fn new(rows: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let mut table = Self::default();
        for row in rows {
            if table.find(&row.group, &row.version, &row.plural).is_some() {
                continue;
            }
            let at = table.rows.len();
            table.by_plural.entry(row.plural.clone()).or_default().push(at);
            table.by_kind.entry(row.gvk()).or_insert(at);
            table.rows.push(row);
        }
        table
    }

    /// Copies none of the words.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let mut same = self.by_plural.get(plural)?.iter().map(|at| &self.rows[*at]);
        same.find(|row| row.group == group && row.version == version)
    }

    pub fn by_kind(&self, kind: &Gvk) -> Option<&Arc<Resource>> {
        Some(&self.rows[*self.by_kind.get(kind)?])
    }

    /// In the order groups and versions are preferred.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter()
    }
}

/// Fresh rows of the built-in resources.
pub fn builtin() -> Vec<Arc<Resource>> {
    groups::rows().into_iter().map(Arc::new).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_printer_fills_its_columns_even_for_an_empty_object() {
        let empty = serde_json::json!({"metadata": {"name": "x"}});
        for row in builtin() {
            let cells = row.printer.cells(&empty, jiff::Timestamp::UNIX_EPOCH);
            let heads = row.printer.heads();
            assert_eq!(cells.len(), heads.as_array().map_or(0, Vec::len), "{row:?}");
        }
    }

    #[test]
    fn rows_are_unique() {
        let (mut paths, mut shorts) = (HashSet::new(), HashSet::new());
        let table = Table::new(builtin());
        for row in &builtin() {
            assert!(paths.insert((row.group.clone(), row.version.clone(), row.plural.clone())), "{row:?}");
            for short in row.short_names.iter() {
                assert!(
                    shorts.insert((row.group.clone(), row.version.clone(), short.clone())),
                    "{row:?} {short}"
                );
            }
            assert!(table.by_kind(&row.gvk()).is_some_and(|found| found.plural == row.plural), "{row:?}");
        }
    }
}
