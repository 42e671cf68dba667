//! Questions about typed Nodes.

use k8s_openapi::api::core::v1::{Node, NodeCondition};

/// The label of nodes that run the control plane.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// A node's condition of a type.
pub fn node_condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the node says that it is Ready.
pub fn node_is_ready(node: &Node) -> bool {
    node_condition(node, "Ready").is_some_and(|condition| condition.status == "True")
}
