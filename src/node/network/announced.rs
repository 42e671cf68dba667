//! Which load balancer addresses this node answers for.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tokio::sync::watch;

use super::informers::Feed;
use super::model::Kind;
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
    let (announced, seen) = watch::channel(None);
    tasks.spawn_until_stop(async move {
        let mut changes = feed.services();
        while changes.wait_for(|generation| *generation > 0).await.is_ok() {
            changes.borrow_and_update();
            let now = Some(announced_at(&feed.read(), &node));
            announced.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            if changes.changed().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    seen
}
