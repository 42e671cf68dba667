//! Sets of completion indexes, as Jobs' statuses write them.

use std::collections::BTreeSet;
use std::fmt;

/// Completion indexes, written as Jobs' statuses write them: `0-3,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexSet(BTreeSet<i32>);

impl IndexSet {
    /// Reads a list of indexes and ranges, without those at or above `completions`. Parts that are no numbers are
    /// left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut set = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) else {
                continue;
            };
            set.extend(first.max(0)..=last.min(completions - 1));
        }
        Self(set)
    }

    pub(super) fn insert(&mut self, index: i32) -> bool {
        self.0.insert(index)
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub(super) fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// How many of these are among the others.
    pub(super) fn common(&self, others: &Self) -> i32 {
        i32::try_from(self.0.intersection(&others.0).count()).unwrap_or(i32::MAX)
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                1 => write!(f, "{separator}{first},{last}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_they_are_read() {
        for text in ["", "3", "0-2", "0,1,3-5", "1,2,4"] {
            assert_eq!(IndexSet::parse(text, 10).to_string(), text, "{text}");
        }
        assert_eq!(IndexSet::parse("0-20", 4).to_string(), "0-3");
        assert_eq!(IndexSet::parse("1,2,3", 4).to_string(), "1-3");
    }
}
