//! Pods that use more of the disk than they said they would.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::usage::{Room, Use};
use crate::kubelet::container::quantity_value;
use crate::kubelet::spec;
use api::quantity::Quantity;
use client::typed::resources::{EPHEMERAL_STORAGE, limited};

/// Whether the Pod says how much of the disk it may use.
pub fn is_limited(pod: &Pod) -> bool {
    let volumes = spec(pod).volumes.iter().flatten();
    let sized =
        volumes.filter_map(|volume| volume.empty_dir.as_ref()).any(|empty| empty.size_limit.is_some());
    sized || limited(pod).contains_key(EPHEMERAL_STORAGE)
}

fn limit(container: &Container) -> Option<&Written> {
    container.resources.as_ref()?.limits.as_ref()?.get(EPHEMERAL_STORAGE)
}

/// Which limit of its own a Pod has broken, in upstream's words and upstream's order: volumes, the whole, containers.
pub fn broken(pod: &Pod, used: &Use) -> Option<String> {
    for volume in spec(pod).volumes.iter().flatten() {
        let limit = volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref());
        let room = used.volumes.iter().find(|(name, _)| *name == volume.name).map(|(_, room)| *room);
        if let (Some(limit), Some(Room { bytes, .. })) = (limit, room)
            && quantity_value(limit).is_some_and(|most| most > 0 && bytes > most)
        {
            let (name, limit) = (&volume.name, canonical(limit));
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". "));
        }
    }
    if let Some(most) = limited(pod).get(EPHEMERAL_STORAGE)
        && i64::try_from(used.disk().bytes).is_ok_and(|bytes| bytes > *most)
    {
        let most = Quantity::from_bytes(*most);
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {most}. "
        ));
    }
    let over = spec(pod).containers.iter().find_map(|container| {
        let limit = limit(container)?;
        let (_, room, _) = used.containers.iter().find(|(name, ..)| *name == container.name)?;
        quantity_value(limit).filter(|most| *most > 0 && room.bytes > *most)?;
        Some((&container.name, canonical(limit)))
    });
    let (name, limit) = over?;
    Some(format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
}

/// As upstream prints a quantity back.
fn canonical(written: &Written) -> String {
    Quantity::parse(&written.0).map_or_else(|_| written.0.clone(), |quantity| quantity.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing;
    use serde_json::{Value, json};

    #[test]
    fn who_breaks_a_limit_is_told_which() {
        let check = |spec: Value, containers: [u64; 2], volume: u64, expect: Option<&str>| {
            let pod = testing::pod(json!({"metadata": {"name": "a", "uid": "a"}, "spec": spec}));
            let room = |bytes: u64| Room { bytes, inodes: 1 };
            let named = ["c", "d"].into_iter().zip(containers);
            let used = Use {
                containers: named.map(|(name, bytes)| (name.to_owned(), room(bytes), 0)).collect(),
                volumes: vec![("v".into(), room(volume))],
                ..Use::default()
            };
            assert_eq!(broken(&pod, &used).as_deref(), expect, "{spec}");
            assert!(is_limited(&pod), "{spec}");
        };
        let sized = json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Ki"}}]});
        check(sized.clone(), [0, 0], 1 << 20, None);
        let text = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        check(sized, [0, 0], 2 << 20, Some(text));
        let limited = |name: &str, most: &str| json!({"name": name, "resources": {"limits": {"ephemeral-storage": most}}});
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
        let one = json!({"containers": [limited("c", "1Mi")], "volumes": [{"name": "v", "emptyDir": {}}]});
        check(one.clone(), [1, 0], 1, None);
        check(one.clone(), [1 << 19, 0], 1 << 20, Some(whole));
        check(one, [2 << 20, 0], 0, Some(whole));
        // Of two, one may be over its own limit while both together are not.
        let two = json!({"containers": [limited("c", "1Mi"), limited("d", "4Mi")]});
        let text = "Container c exceeded its local ephemeral storage limit \"1Mi\". ";
        check(two.clone(), [2 << 20, 1 << 20], 0, Some(text));
        check(two, [1 << 20, 4 << 20], 0, None);
        // A limit of one counts for the sum, as upstream adds only what is said.
        let part = json!({"containers": [{"name": "c"}, limited("d", "1Mi")]});
        check(part, [2 << 20, 0], 0, Some(whole));
    }
}
