//! Where objects stand in storage: `/<group or core>/<plural>/[<namespace>/]<name>`.

/// A collection's place: the group and plural under which its objects are stored (versions and, for events, two groups
/// share one place), and whether its keys have a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionKey<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub namespaced: bool,
}

impl CollectionKey<'_> {
    /// The prefix of all keys; with a namespace, of those in it. Ends with a slash.
    pub fn prefix(&self, namespace: &str) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group };
        let mut prefix = String::with_capacity(group.len() + self.plural.len() + namespace.len() + 40);
        for part in ["/", group, "/", self.plural, "/"] {
            prefix.push_str(part);
        }
        if self.namespaced && !namespace.is_empty() {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        prefix
    }

    /// One object's key.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let mut key = self.prefix(namespace);
        key.push_str(name);
        key
    }
}

/// The object's name, from its key.
pub fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

/// The object's namespace, from the key of a namespaced object.
pub fn namespace_of(key: &str) -> &str {
    key.rsplit('/').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths() {
        let pods = CollectionKey { group: "", plural: "pods", namespaced: true };
        assert_eq!(pods.prefix(""), "/core/pods/");
        assert_eq!(pods.prefix("a"), "/core/pods/a/");
        let key = pods.key("a", "b");
        assert_eq!((name_of(&key), namespace_of(&key)), ("b", "a"));
        let nodes = CollectionKey { group: "", plural: "nodes", namespaced: false };
        assert_eq!(nodes.key("", "n"), "/core/nodes/n");
    }
}
