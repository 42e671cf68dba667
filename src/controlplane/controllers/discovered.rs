//! What kinds of objects there are, as discovery tells: for controllers that act on all of them.

use kube::Client;
use kube::core::discovery::Scope;
use kube::discovery::{ApiResource, Discovery, verbs};

/// A kind that can be listed, watched and deleted.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub collection: bool,
}

/// Every kind with stored objects, once, in its preferred version. Events are left out when `events` is false.
pub(super) async fn kinds(client: &Client, events: bool) -> Result<Vec<Kind>, kube::Error> {
    // Two requests, however many groups there are.
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut kinds: Vec<Kind> = Vec::new();
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        let usable = [verbs::LIST, verbs::WATCH, verbs::DELETE];
        let usable = usable.iter().all(|verb| capabilities.supports_operation(verb));
        let is_event = resource.kind == "Event";
        // Events are stored once and served in two groups.
        let double = is_event && (!events || resource.group == "events.k8s.io");
        if usable && !double {
            kinds.push(Kind {
                namespaced: capabilities.scope == Scope::Namespaced,
                collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
                resource,
            });
        }
    }
    Ok(kinds)
}
