//! Cluster IPs and node ports of Services: given out while a Service is written, taken back when it is gone.
//!
//! ```text
//! free --allocate--> pending (a Hold) --commit, then seen in the store--> owned by the Service's uid --gone or changed--> free
//!                       \--dropped--> free
//! ```
//!
//! All is in memory and rebuilt from the Services themselves at start, so nothing leaks whatever way a Service goes. Where
//! several servers share a store, each knows what the others gave out as soon as it sees their Services; what is given out at
//! the same moment the store itself decides, which keeps [`held_names`] apart.

mod pool;
mod service;

use std::collections::HashSet;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use pool::{Owner, Pool};
use serde_json::Value;

use super::index::Follower;
use super::key::collections::SERVICES;
use super::reservation::Reservation;
use api::meta::ObjectExt;
use api::status::ApiError;
use service::Demand;

/// Ports that Services of type NodePort and LoadBalancer may have on every node, where nobody asks for others.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// What a Service has, or asks for by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub addresses: HashSet<Ipv4Addr>,
    pub ports: HashSet<u16>,
}

struct Pools {
    addresses: Pool<Ipv4Addr>,
    ports: Pool<u16>,
    next_ticket: u64,
}

/// Gives out cluster IPs and node ports.
pub struct Allocator {
    network: Ipv4Net,
    node_ports: RangeInclusive<u16>,
    pools: Mutex<Pools>,
}

/// What one write has reserved. Dropped, it gives everything back.
#[must_use = "dropping it gives back what was reserved"]
pub struct Hold {
    allocator: Option<Arc<Allocator>>,
    ticket: u64,
}

impl Reservation for Hold {
    /// What was reserved now belongs to the stored Service.
    fn commit(mut self: Box<Self>) {
        self.allocator = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(allocator) = self.allocator.take() {
            let mut pools = allocator.lock();
            pools.addresses.release(&Owner::Pending(self.ticket));
            pools.ports.release(&Owner::Pending(self.ticket));
        }
    }
}

impl Allocator {
    /// An allocator over the service network. Addresses in `reserved` are given only to who asks for them by value.
    pub fn new(network: Ipv4Net, reserved: &[Ipv4Addr], node_ports: RangeInclusive<u16>) -> Arc<Self> {
        let addresses = Pool::new(pool::address_candidates(network), reserved.to_vec());
        let ports = Pool::new(pool::banded(node_ports.clone().collect(), 16, 128, 32), Vec::new());
        Arc::new(Self { network, node_ports, pools: Mutex::new(Pools { addresses, ports, next_ticket: 1 }) })
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills in families, cluster IPs and node ports of a Service, and drops those that its type no longer has. Fails if it asks
    /// for what is taken or not to be had.
    pub fn allocate(self: &Arc<Self>, service: &mut Value, old: Option<&Value>) -> Result<Hold, ApiError> {
        let name = service.name().to_owned();
        let demand = service::prepare(service, old)
            .map_err(|error| ApiError::invalid("", "Service", &name, vec![error]))?;
        let uid = old.map(|old| old.uid().to_owned());
        let mut pools = self.lock();
        let ticket = pools.next_ticket;
        pools.next_ticket += 1;
        // From here on a return gives back what was taken; the hold must die after the lock.
        let hold = Hold { allocator: Some(Arc::clone(self)), ticket };
        let result = self.take(&mut pools, service, &demand, uid.as_deref(), ticket);
        drop(pools);
        result.map_err(|error| ApiError::invalid("", "Service", &name, vec![error]))?;
        Ok(hold)
    }

    fn take(
        &self,
        pools: &mut Pools,
        service: &mut Value,
        demand: &Demand,
        uid: Option<&str>,
        ticket: u64,
    ) -> Result<(), api::validate::FieldError> {
        let owner = Owner::Pending(ticket);
        if demand.cluster_ip {
            service::assign_cluster_ip(service, self.network, |wanted| match wanted {
                Some(address) => pools.addresses.claim(address, &owner, uid).then_some(address),
                None => pools.addresses.any(&owner),
            })?;
        }
        if demand.node_ports {
            service::assign_node_ports(service, &self.node_ports, |wanted| match wanted {
                Some(port) => pools.ports.claim(port, &owner, uid).then_some(port),
                None => pools.ports.any(&owner),
            })?;
        }
        if demand.health_check_port {
            service::assign_health_check_port(service, &self.node_ports, |wanted| match wanted {
                Some(port) => pools.ports.claim(port, &owner, uid).then_some(port),
                None => pools.ports.any(&owner),
            })?;
        }
        Ok(())
    }
}

/// The names of what an object has that no other one may have, for a store that several servers write to.
pub fn held_names(key: &str, data: &[u8]) -> Vec<String> {
    if !SERVICES.holds(key) {
        return Vec::new();
    }
    let Ok(service) = serde_json::from_slice::<Value>(data) else { return Vec::new() };
    let Holdings { addresses, ports } = service::holdings(&service);
    let addresses = addresses.iter().map(|address| format!("serviceips/{address}"));
    let mut names: Vec<String> =
        addresses.chain(ports.iter().map(|port| format!("servicenodeports/{port}"))).collect();
    names.sort_unstable();
    names
}

/// Keeps what `uid` holds in a pool equal to what its Service says.
fn settle<T: Copy + Eq + Hash>(pool: &mut Pool<T>, uid: &str, now: &HashSet<T>) {
    let owner = Owner::Service(uid.to_owned());
    pool.release_except(&owner, now);
    for value in now {
        pool.own(*value, &owner);
    }
}

impl Follower for Allocator {
    fn changed(&self, key: &str, object: Option<&Value>, last: Option<&Value>) {
        if !SERVICES.holds(key) {
            return;
        }
        let mut pools = self.lock();
        if let Some(last) = last
            && object.is_none_or(|object| object.uid() != last.uid())
        {
            settle(&mut pools.addresses, last.uid(), &HashSet::new());
            settle(&mut pools.ports, last.uid(), &HashSet::new());
        }
        if let Some(object) = object {
            let holdings = service::holdings(object);
            settle(&mut pools.addresses, object.uid(), &holdings.addresses);
            settle(&mut pools.ports, object.uid(), &holdings.ports);
        }
    }
}

#[cfg(test)]
mod tests;
