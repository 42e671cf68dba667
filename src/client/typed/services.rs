//! Names that Services and their endpoints carry, for those who write them and those who read them.

/// Which node answers for the addresses of a LoadBalancer Service (annotation): written by the controller that gives the
/// addresses out, read by the agents.
pub const ANNOUNCED_BY: &str = "minik.dev/announced-by";

/// Which Service an EndpointSlice belongs to (label), as upstream defines.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
