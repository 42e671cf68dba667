//! Asks for volumes of storage drivers to be attached to the nodes of the Pods that use them, and lets go of them after the
//! last Pod: by a VolumeAttachment each, which the driver's own attacher acts on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::claims::used_by;
use super::plan::claim_of;
use crate::context::{Context, Error, ignore_exists, ignore_not_found};
use crate::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use client::typed::is_terminal;

/// Pods by `namespace/claim`, attachments by volume.
const BY_CLAIM: &str = "attach-claim";
const BY_VOLUME: &str = "volume";

pub fn start(context: &Context) {
    let me = Reconciler {
        context: context.clone(),
        volumes: context.cache(),
        claims: context.cache(),
        pods: context.cache(),
        nodes: context.cache(),
        drivers: context.cache(),
        attachments: context.cache(),
    };
    me.pods.index(BY_CLAIM, |pod| claims_of(pod).iter().map(ToString::to_string).collect());
    me.attachments.index(BY_VOLUME, |attachment| volume_of(attachment).into_iter().collect());
    let mut harness = Harness::new(context);
    harness.watches(&me.volumes, |change, queue| {
        change.latest().into_iter().for_each(|volume| queue.add(Key::of(&volume.metadata)));
    });
    harness.watches(&me.claims, |change, queue| {
        let named = change.both().filter_map(|claim| claim.spec.as_ref()?.volume_name.clone());
        named.for_each(|volume| queue.add(Key::cluster(volume)));
    });
    let claims = me.claims.clone();
    harness.watches(&me.pods, move |change, queue| {
        let used = change.latest().map(|pod| claims_of(pod)).unwrap_or_default();
        let volumes = used.into_iter().filter_map(|key| claims.get(&key)?.spec.as_ref()?.volume_name.clone());
        volumes.for_each(|volume| queue.add(Key::cluster(volume)));
    });
    harness.watches(&me.attachments, |change, queue| {
        change
            .both()
            .filter_map(|attachment| volume_of(attachment))
            .for_each(|volume| queue.add(Key::cluster(volume)));
    });
    // What a node no longer uses may go; so may all of a node that is gone.
    let attachments = me.attachments.clone();
    harness.watches(&me.nodes, move |change, queue| {
        let used = |node: &Arc<Node>| node.status.as_ref().and_then(|status| status.volumes_in_use.clone());
        if change.new.map(used) == change.old.map(used) {
            return;
        }
        let name = change.latest().map(|node| node.name_any()).unwrap_or_default();
        let there = attachments.list().into_iter().filter(|attachment| attachment.spec.node_name == name);
        there
            .filter_map(|attachment| volume_of(&attachment))
            .for_each(|volume| queue.add(Key::cluster(volume)));
    });
    let volumes = me.volumes.clone();
    harness.watches(&me.drivers, move |change, queue| {
        let name = change.latest().map(|driver| driver.name_any());
        let its = |volume: &Arc<PersistentVolume>| csi(volume).map(|(driver, _)| driver) == name;
        volumes
            .list()
            .iter()
            .filter(|volume| its(volume))
            .for_each(|volume| queue.add(Key::of(&volume.metadata)));
    });
    harness.run(2, Arc::new(me));
}

fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.namespace().unwrap_or_default();
    used_by(pod).into_iter().map(|name| Key::new(namespace.clone(), name)).collect()
}

fn volume_of(attachment: &VolumeAttachment) -> Option<String> {
    attachment.spec.source.persistent_volume_name.clone()
}

/// Driver and handle of a volume of a storage driver.
fn csi(volume: &PersistentVolume) -> Option<(String, String)> {
    let source = volume.spec.as_ref()?.csi.as_ref()?;
    Some((source.driver.clone(), source.volume_handle.clone()))
}

/// What is made and what goes, by name, with the node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    attach: BTreeMap<String, String>,
    detach: BTreeMap<String, String>,
}

/// Compares the nodes that want a volume with the attachments there are. `is_in_use` says whether a node has it mounted.
fn difference(
    driver: &str,
    handle: &str,
    wanted: &BTreeSet<String>,
    there: &[Arc<VolumeAttachment>],
    is_in_use: impl Fn(&str) -> bool,
) -> Difference {
    let name = |node: &str| {
        let text = format!("{handle}{driver}{node}");
        format!("csi-{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes())))
    };
    let going = |attachment: &VolumeAttachment| attachment.metadata.deletion_timestamp.is_some();
    let has = |node: &String| there.iter().any(|attachment| attachment.spec.node_name == *node);
    let idle = there.iter().filter(|attachment| {
        let node = &attachment.spec.node_name;
        attachment.spec.attacher == driver
            && attachment.name_any() == name(node)
            && !going(attachment)
            && !wanted.contains(node)
            && !is_in_use(node)
    });
    Difference {
        attach: wanted.iter().filter(|node| !has(node)).map(|node| (name(node), node.clone())).collect(),
        detach: idle.map(|attachment| (attachment.name_any(), attachment.spec.node_name.clone())).collect(),
    }
}

struct Reconciler {
    context: Context,
    volumes: Cache<PersistentVolume>,
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    drivers: Cache<CSIDriver>,
    attachments: Cache<VolumeAttachment>,
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Outcome::Done) };
        let Some((driver, handle)) = csi(&volume) else { return Ok(Outcome::Done) };
        let there = self.attachments.find(BY_VOLUME, &key.name);
        let unique = format!("kubernetes.io/csi/{driver}^{handle}");
        let uses = |node: &Node| {
            let used = node.status.as_ref().and_then(|status| status.volumes_in_use.as_ref());
            used.is_some_and(|used| used.contains(&unique))
        };
        let is_in_use = |node: &str| self.nodes.get(&Key::cluster(node)).is_some_and(|node| uses(&node));
        let Difference { attach, detach } =
            difference(&driver, &handle, &self.wanted(&volume, &driver), &there, is_in_use);
        let api = self.context.all::<VolumeAttachment>();
        for (name, node) in attach {
            let attachment = json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
                "metadata": {"name": name},
                "spec": {"attacher": driver, "nodeName": node, "source": {"persistentVolumeName": key.name}},
            });
            let attachment: VolumeAttachment =
                serde_json::from_value(attachment).map_err(|error| Error::Other(error.to_string()))?;
            ignore_exists(api.create(&PostParams::default(), &attachment).await)?;
        }
        let nodes = self.context.all::<Node>();
        for (name, node) in detach {
            // The end of the Pod may be known here sooner than that the node had mounted the volume for it.
            if nodes.get_opt(&node).await?.is_some_and(|node| uses(&node)) {
                continue;
            }
            ignore_not_found(api.delete(&name, &DeleteParams::default()).await)?;
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    /// The nodes of the Pods that use a volume; none where its driver attaches nothing.
    fn wanted(&self, volume: &PersistentVolume, driver: &str) -> BTreeSet<String> {
        let rules = self.drivers.get(&Key::cluster(driver));
        if rules.is_some_and(|rules| rules.spec.attach_required == Some(false)) {
            return BTreeSet::new();
        }
        let Some(claim) = claim_of(volume) else { return BTreeSet::new() };
        let key =
            Key::new(claim.namespace.clone().unwrap_or_default(), claim.name.clone().unwrap_or_default());
        let bound = self.claims.get(&key).is_some_and(|bound| {
            bound.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == Some(&volume.name_any())
        });
        let pods = if bound { self.pods.find(BY_CLAIM, &key.to_string()) } else { Vec::new() };
        let living = pods.iter().filter(|pod| !is_terminal(pod));
        living
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
            .filter(|node| !node.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_where_it_is_wanted_and_kept_where_it_is_mounted() {
        let nodes = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let first = difference("d", "h", &nodes(&["a"]), &[], |_| false);
        let name = first.attach.keys().next().expect("one").clone();
        assert_eq!((name.len(), first.attach[&name].as_str()), ("csi-".len() + 64, "a"));
        let attachment: VolumeAttachment = serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": "v"}}}))
        .expect("an attachment");
        let there = [Arc::new(attachment)];
        assert_eq!(difference("d", "h", &nodes(&["a"]), &there, |_| false), Difference::default());
        assert_eq!(difference("d", "h", &nodes(&[]), &there, |_| true), Difference::default());
        let gone = difference("d", "h", &nodes(&[]), &there, |_| false).detach;
        assert_eq!(gone, BTreeMap::from([(name, "a".to_owned())]));
        let moved = difference("d", "h", &nodes(&["b"]), &there, |_| true);
        assert_eq!((moved.attach.values().next().map(String::as_str), moved.detach.len()), (Some("b"), 0));
    }
}
