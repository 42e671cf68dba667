//! Score: the Pod's images are on the node already.

use super::{MAX, number};
use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;

const MIB: i64 = 1 << 20;
/// Images smaller than this do not count, more than the other bound (per container) count fully.
const LEAST: i64 = 23 * MIB;
const MOST: i64 = 1000 * MIB;

/// Nodes that have the Pod's images, the more bytes the better; an image that few nodes have counts less,
/// so that it does not draw all Pods to them.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let spec = cycle.pod.pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let images: Vec<String> = containers.filter_map(|c| c.image.as_deref()).map(normal).collect();
    let all = cycle.snapshot.nodes().count();
    let spread: Vec<f64> = images
        .iter()
        .map(|image| {
            let having = cycle.snapshot.nodes().filter(|node| size(node, image).is_some()).count();
            count(having) / count(all.max(1))
        })
        .collect();
    let most = number(MOST) * count(images.len().max(1));
    let one = |node: &&NodeInfo| {
        let sum: f64 = images
            .iter()
            .zip(&spread)
            .map(|(image, spread)| number(size(node, image).unwrap_or(0)) * spread)
            .sum();
        ((sum.min(most) - number(LEAST)) / (most - number(LEAST))).max(0.0) * MAX
    };
    nodes.iter().map(one).collect()
}

fn count(n: usize) -> f64 {
    number(i64::try_from(n).unwrap_or(i64::MAX))
}

/// An image's name with its tag, as nodes list it.
fn normal(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

fn size(node: &NodeInfo, image: &str) -> Option<i64> {
    let images = node.node.as_ref()?.status.as_ref()?.images.as_ref()?;
    let library = format!("docker.io/library/{image}");
    let named =
        |name: &String| name == image || *name == library || name.strip_prefix("docker.io/") == Some(image);
    images.iter().find(|entry| entry.names.iter().flatten().any(named))?.size_bytes
}
