//! Questions that many clients ask about typed objects: does it match, is it ready, who owns it.

mod host_ports;
mod ingress;
mod labels;
mod node_terms;
mod nodes;
mod owner;
mod pods;
pub mod resources;
mod scaled;
mod services;
mod taints;

pub use host_ports::{HostPort, host_ports};
pub use ingress::{
    Annotations, BackendProtocol, CorsAnnotations, INGRESS_CLASS, INGRESS_CONTROLLER, INGRESS_SERVICE, NGINX,
    SecretKey, expression, is_served, problems,
};
pub use labels::{Labels, selects, selects_map};
pub use node_terms::{node_allowed, node_selected, node_term};
pub use nodes::{CONTROL_PLANE, node_condition, node_is_ready};
pub use owner::{controller_of, is_controlled_by, owner_ref};
pub use pods::{
    available_in, is_active, is_available, is_ready, is_terminal, pod_condition, ready_condition,
};
pub use scaled::scaled;
pub use services::{ANNOUNCED_BY, Front, GATEWAY, OTHER_PROXY, SERVICE_NAME, UNPROXIED};
pub use taints::{first_untolerated, tolerates, tolerates_any};
