//! Something by host name: exact names before `*.parent` before any name.

use std::collections::BTreeMap;

/// How many labels a `*` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcard {
    /// One, as Ingresses have it and as certificates do.
    #[default]
    Label,
    /// One or more, as Gateways have it.
    Labels,
}

/// A map whose keys are host names, `*.parent`, or nothing for every host. Names are compared in small letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Hosts<T> {
    exact: BTreeMap<String, T>,
    /// By what follows `*.`.
    wildcards: BTreeMap<String, T>,
    anywhere: Option<T>,
    depth: Wildcard,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self::new(Wildcard::default())
    }
}

impl<T> Hosts<T> {
    /// No host yet.
    pub fn new(depth: Wildcard) -> Self {
        Self { exact: BTreeMap::new(), wildcards: BTreeMap::new(), anywhere: None, depth }
    }

    /// What stands under exactly this pattern; empty stands for every host.
    pub fn entry(&mut self, pattern: &str) -> &mut T
    where
        T: Default,
    {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix("*.") {
            _ if pattern.is_empty() => self.anywhere.get_or_insert_default(),
            Some(parent) => self.wildcards.entry(parent.to_owned()).or_default(),
            None => self.exact.entry(pattern).or_default(),
        }
    }

    /// What stands under the most particular pattern that a host matches.
    pub fn get(&self, host: &str) -> Option<&T> {
        let host = host.to_ascii_lowercase();
        self.exact.get(&host).or_else(|| Some(self.wildcard(&host)?.1)).or(self.anywhere.as_ref())
    }

    /// How well the pattern fits that [`get`](Self::get) finds: a longer one fits better, the name itself best.
    pub fn fit(&self, host: &str) -> Option<usize> {
        let host = host.to_ascii_lowercase();
        let exact = self.exact.contains_key(&host).then_some(usize::MAX);
        let wildcard = || Some(self.wildcard(&host)?.0.len());
        exact.or_else(wildcard).or_else(|| self.anywhere.as_ref().map(|_| 0))
    }

    fn wildcard<'a>(&self, host: &'a str) -> Option<(&'a str, &T)> {
        let mut rest = host;
        loop {
            let (_, parent) = rest.split_once('.')?;
            if let Some(found) = self.wildcards.get(parent) {
                return Some((parent, found));
            }
            if self.depth == Wildcard::Label {
                return None;
            }
            rest = parent;
        }
    }

    /// Everything that stands here.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcards.values()).chain(&self.anywhere)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.wildcards.values_mut()).chain(&mut self.anywhere)
    }

    /// True when nothing stands here.
    pub fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_name_counts() {
        let check = |depth: Wildcard, host: &str, expect: Option<&str>| {
            let mut hosts = Hosts::<String>::new(depth);
            for pattern in ["a.example", "*.example", "*.b.example"] {
                pattern.clone_into(hosts.entry(pattern));
            }
            assert_eq!(hosts.get(host).map(String::as_str), expect, "{depth:?} {host}");
            "any".clone_into(hosts.entry(""));
            assert_eq!(hosts.get(host).map(String::as_str), expect.or(Some("any")), "{depth:?} {host}");
        };
        for depth in [Wildcard::Label, Wildcard::Labels] {
            check(depth, "A.Example", Some("a.example"));
            check(depth, "x.example", Some("*.example"));
            check(depth, "x.b.example", Some("*.b.example"));
            check(depth, "example", None);
        }
        check(Wildcard::Label, "x.y.example", None);
        check(Wildcard::Labels, "x.y.example", Some("*.example"));
        check(Wildcard::Labels, "x.a.example", Some("*.example"));
        let mut hosts = Hosts::<()>::default();
        for pattern in ["a.example", "*.example", ""] {
            hosts.entry(pattern);
        }
        let fits = ["a.example", "b.example", "c"].map(|host| hosts.fit(host));
        assert!(fits.is_sorted_by(|a, b| a > b) && fits[2] == Some(0), "{fits:?}");
    }
}
