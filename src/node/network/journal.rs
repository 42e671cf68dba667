//! Which Services changed, and in which order: whoever has seen all up to a moment asks for what came after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::model::ServiceKey;

/// So many changed Services are remembered one by one.
const REMEMBERED: usize = 16_384;

/// What a reader has to look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Everything,
    /// These Services and their endpoints.
    Of(BTreeSet<ServiceKey>),
}

impl Changed {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Of(mut some), Self::Of(more)) => {
                some.extend(more);
                Self::Of(some)
            }
            _ => Self::Everything,
        }
    }

    /// Nothing at all.
    pub fn nothing() -> Self {
        Self::Of(BTreeSet::new())
    }
}

/// The last change of each Service, numbered in the order of changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    now: u64,
    /// Everything may have changed up to here.
    everything: u64,
    last: HashMap<ServiceKey, u64>,
    order: BTreeMap<u64, ServiceKey>,
}

impl Journal {
    /// The number of the latest change.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn changed(&mut self, key: &ServiceKey) {
        self.now += 1;
        if let Some(before) = self.last.insert(key.clone(), self.now) {
            self.order.remove(&before);
        }
        self.order.insert(self.now, key.clone());
        if self.order.len() > REMEMBERED
            && let Some((oldest, key)) = self.order.pop_first()
        {
            self.last.remove(&key);
            self.everything = oldest;
        }
    }

    /// Everything has changed, for those as well who have seen changes up to `seen` of something else.
    pub(super) fn everything_changed(&mut self, seen: u64) {
        self.now = self.now.max(seen) + 1;
        self.everything = self.now;
        self.last.clear();
        self.order.clear();
    }

    /// What changed after `seen`.
    pub(super) fn since(&self, seen: u64) -> Changed {
        if seen < self.everything {
            return Changed::Everything;
        }
        Changed::Of(self.order.range(seen + 1..).map(|(_, key)| key.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("shop", name)
    }

    fn of(names: &[&str]) -> Changed {
        Changed::Of(names.iter().map(|name| key(name)).collect())
    }

    #[test]
    fn readers_are_told_what_came_after_they_looked() {
        let mut journal = Journal::default();
        assert_eq!(journal.since(0), of(&[]));
        journal.changed(&key("a"));
        journal.changed(&key("b"));
        let seen = journal.now();
        journal.changed(&key("a"));
        assert_eq!(journal.since(0), of(&["a", "b"]));
        assert_eq!(journal.since(seen), of(&["a"]));
        assert_eq!(journal.since(journal.now()), of(&[]));
        journal.everything_changed(0);
        assert_eq!(journal.since(seen), Changed::Everything);
        assert_eq!(journal.since(journal.now()), of(&[]));
    }

    #[test]
    fn what_is_not_remembered_is_everything() {
        let mut journal = Journal::default();
        for number in 0..REMEMBERED + 2 {
            journal.changed(&key(&number.to_string()));
        }
        assert_eq!(journal.since(1), Changed::Everything);
        assert_eq!(journal.since(2), Changed::Of(journal.order.values().cloned().collect()));
    }
}
