//! Discovery, group by group and version by version.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::aggregation::{Remotes, group_priority};
use api::meta::compare_versions;
use api::resources::{Resource, Storage};

/// Versions, each with how much it is preferred.
type Preferred = Vec<(i64, String)>;

/// Groups, each with its versions, all in order of preference: of the table's own and of other servers'.
pub fn groups(rows: &[Arc<Resource>], remotes: &Remotes) -> Vec<(String, Vec<String>)> {
    // Other servers' versions say themselves how much they are preferred; those here stand by their name.
    let mut groups: Vec<(String, i64, Preferred)> = Vec::new();
    let mut add = |group: &str, preferred: i64, version: (i64, &str)| {
        let at = groups.iter().position(|(name, ..)| name == group).unwrap_or_else(|| {
            groups.push((group.to_owned(), preferred, Vec::new()));
            groups.len() - 1
        });
        let (_, highest, versions) = &mut groups[at];
        *highest = preferred.max(*highest);
        if !versions.iter().any(|(_, known)| known == version.1) {
            versions.push((version.0, version.1.to_owned()));
        }
    };
    for remote in remotes.iter() {
        add(&remote.group, remote.group_priority, (remote.version_priority, &remote.version));
    }
    for row in rows {
        add(&row.group, group_priority(&row.group), (0, &row.version));
    }
    // The sort is stable: groups that are preferred alike stay in the table's order.
    let place = |group: &str| rows.iter().position(|row| row.group == group).unwrap_or(usize::MAX);
    groups.sort_by_key(|(name, preferred, _)| (std::cmp::Reverse(*preferred), place(name)));
    let sorted = groups.into_iter().map(|(name, _, mut versions)| {
        versions.sort_by(|(ours, a), (theirs, b)| theirs.cmp(ours).then_with(|| compare_versions(b, a)));
        (name, versions.into_iter().map(|(_, version)| version).collect())
    });
    sorted.collect()
}

/// Every plain discovery document that is answered here, by its path.
pub fn documents(rows: &[Arc<Resource>], remotes: &Remotes) -> BTreeMap<String, Value> {
    let groups = groups(rows, remotes);
    let mut documents = BTreeMap::new();
    documents.insert("/api".to_owned(), core_versions());
    let named = groups.iter().filter(|(name, _)| !name.is_empty());
    let list: Vec<Value> = named.clone().map(|(name, versions)| group(name, versions)).collect();
    documents.insert("/apis".to_owned(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}));
    for (name, versions) in named {
        let mut document = group(name, versions);
        document["kind"] = "APIGroup".into();
        document["apiVersion"] = "v1".into();
        documents.insert(format!("/apis/{name}"), document);
    }
    for (name, versions) in &groups {
        for version in versions.iter().filter(|version| remotes.find(name, version).is_none()) {
            let path =
                if name.is_empty() { format!("/api/{version}") } else { format!("/apis/{name}/{version}") };
            let of_version = rows.iter().filter(|row| row.group == *name && row.version == *version);
            documents.insert(path, resources(of_version));
        }
    }
    documents
}

fn core_versions() -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

fn group(name: &str, versions: &[String]) -> Value {
    let version = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": all, "preferredVersion": all[0]})
}

/// The APIResourceList of one group and version.
fn resources<'a>(rows: impl Iterator<Item = &'a Arc<Resource>>) -> Value {
    let mut group_version = String::new();
    let mut list = Vec::new();
    for row in rows {
        group_version = row.api_version();
        let mut entry = json!({
            "name": row.plural,
            "singularName": row.singular,
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": row.verbs,
        });
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        if row.storage == Storage::Stored {
            entry["storageVersionHash"] = json!(storage_version_hash(row));
        }
        list.push(entry);
        for sub in &row.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", row.plural, sub.name()),
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": sub.kind.kind,
                "verbs": sub.verbs,
            });
            if sub.kind.group != row.group || sub.kind.version != row.version {
                entry["group"] = json!(sub.kind.group);
                entry["version"] = json!(sub.kind.version);
            }
            list.push(entry);
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

/// Changes with the version in which objects are stored: what migrates them watches it. Made as upstream makes it.
fn storage_version_hash(row: &Resource) -> String {
    let stored = row.stored_as.as_deref().unwrap_or(row);
    let kind = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    STANDARD.encode(&digest(&SHA256, kind.as_bytes()).as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_versions_have_upstreams_hashes() {
        let documents = documents(&api::resources::builtin(), &Remotes::default());
        let hash = |path: &str, name: &str| {
            let list = documents[path]["resources"].as_array().cloned().unwrap_or_default();
            let entry = list.into_iter().find(|entry| entry["name"] == name).expect("listed");
            entry["storageVersionHash"].as_str().map(str::to_owned)
        };
        assert_eq!(hash("/api/v1", "pods").as_deref(), Some("xPOwRZ+Yhw8="));
        assert_eq!(hash("/apis/apps/v1", "deployments").as_deref(), Some("8aSe+NMegvE="));
        // Stored as core events.
        assert_eq!(hash("/apis/events.k8s.io/v1", "events").as_deref(), Some("r2yiGXH7wu8="));
        assert_eq!(hash("/api/v1", "pods/status"), None);
        assert_eq!(hash("/apis/authorization.k8s.io/v1", "subjectaccessreviews"), None);
    }

    #[test]
    fn every_row_can_be_discovered() {
        let rows: Vec<_> = api::resources::builtin();
        let documents = documents(&rows, &Remotes::default());
        let pods = &documents["/api/v1"]["resources"];
        let names: Vec<&str> =
            pods.as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect();
        for name in ["pods", "pods/log", "pods/eviction", "namespaces/finalize", "configmaps"] {
            assert!(names.contains(&name), "{name}");
        }
        assert_eq!(documents["/apis/apps"]["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(documents["/apis/autoscaling"]["preferredVersion"]["version"], "v2");
    }
}
