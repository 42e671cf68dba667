//! Which load balancer addresses this node answers for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tokio::sync::watch;

use super::informers::Feed;
use super::model::{Kind, Service};
use super::view::View;
use client::typed::Front;
use rt::Tasks;

/// The LoadBalancer Services that the view says `node` answers for.
fn announced_services<'a>(view: &'a View, node: &'a str) -> impl Iterator<Item = &'a Service> {
    let of_node = move |service: &&Service| service.announced_by.as_deref() == Some(node);
    view.announced().filter(|service| service.kind == Kind::LoadBalancer).filter(of_node)
}

/// The LoadBalancer addresses that `node` answers for, as the view says; None until Services have been listed.
pub fn announced(feed: Feed, node: String, tasks: &Tasks) -> watch::Receiver<Option<BTreeSet<Ipv4Addr>>> {
    derived(feed, tasks, move |view| {
        Some(
            announced_services(view, &node).flat_map(|service| service.ingress_ips.iter().copied()).collect(),
        )
    })
}

/// The LoadBalancer Services that are left to another proxy and whose address `node` answers for.
pub fn announced_fronts(
    feed: Feed,
    node: String,
    tasks: &Tasks,
) -> watch::Receiver<BTreeMap<Ipv4Addr, Front>> {
    derived(feed, tasks, move |view| {
        let left = announced_services(view, &node).filter(|service| service.other_proxy);
        let front = |service: &Service| {
            let key = service.key.clone();
            let gateway = service.gateway.clone();
            Some((
                *service.ingress_ips.first()?,
                Front { namespace: key.namespace, service: key.name, gateway },
            ))
        };
        left.filter_map(front).collect()
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
