//! Names that Services and their endpoints carry, for those who write them and those who read them.

/// Which node answers for the addresses of a LoadBalancer Service (annotation): written by the controller that gives the
/// addresses out, read by the agents.
pub const ANNOUNCED_BY: &str = "minik.dev/announced-by";

/// A Service with this label is left to the proxy that the value names (upstream's label): it has no rules.
pub const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// A Service with this label is one that no proxy serves, whatever addresses it has (upstream's label, also on the
/// EndpointSlices of headless Services): it has no rules.
pub const UNPROXIED: &str = "service.kubernetes.io/headless";

/// Which Gateway of the Service's namespace is served at its address (annotation).
pub const GATEWAY: &str = "minik.dev/gateway";

/// Which Service an EndpointSlice belongs to (label), as upstream defines.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service whose address a proxy of ours listens at, as the node that answers for the address sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    pub namespace: String,
    pub service: String,
    /// The Gateway that is served there; None where it is for something else.
    pub gateway: Option<String>,
}
