//! Which load balancer addresses this node answers for.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tokio::sync::watch;

use super::informers::Feed;
use super::model::{Kind, ServiceKey};
use super::view::View;
use crate::rt::Tasks;

/// The LoadBalancer addresses that the view says `node` answers for.
fn announced_at(view: &View, node: &str) -> BTreeSet<Ipv4Addr> {
    view.services()
        .filter(|service| service.kind == Kind::LoadBalancer)
        .filter(|service| service.announced_by.as_deref() == Some(node))
        .flat_map(|service| service.ingress_ips.iter().copied())
        .collect()
}

/// The LoadBalancer addresses that `node` answers for, as the view says; None until Services have been listed.
pub fn announced(feed: Feed, node: String, tasks: &Tasks) -> watch::Receiver<Option<BTreeSet<Ipv4Addr>>> {
    derived(feed, tasks, move |view| Some(announced_at(view, &node)))
}

/// The address of one LoadBalancer Service, while `node` answers for it.
pub fn announced_address(
    feed: Feed,
    service: ServiceKey,
    node: String,
    tasks: &Tasks,
) -> watch::Receiver<Option<Ipv4Addr>> {
    derived(feed, tasks, move |view| {
        let service = view.service(&service)?;
        service
            .ingress_ips
            .first()
            .copied()
            .filter(|_| service.announced_by.as_deref() == Some(node.as_str()))
    })
}

/// What a function makes of the view, kept up to date; its default until Services have been listed.
fn derived<T: Default + PartialEq + Send + Sync + 'static>(
    feed: Feed,
    tasks: &Tasks,
    of: impl Fn(&View) -> T + Send + 'static,
) -> watch::Receiver<T> {
    let (derived, seen) = watch::channel(T::default());
    tasks.spawn_until_stop(async move {
        let mut changes = feed.services();
        while changes.wait_for(|generation| *generation > 0).await.is_ok() {
            changes.borrow_and_update();
            let now = of(&feed.read());
            derived.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            if changes.changed().await.is_err() {
                break;
            }
        }
        // Kept open: what was seen last stays.
        std::future::pending::<()>().await;
    });
    seen
}
