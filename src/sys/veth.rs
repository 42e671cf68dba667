//! Pairs of interfaces that lead from this network namespace into another one.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use ipnet::Ipv4Net;
use nix::libc;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::netlink::{Error, Link, Netlink, failed, is};
use super::netns::Namespace;

/// The two ends of a pair, and the largest packet it carries.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The end in this namespace.
    pub here: &'a str,
    /// The end in the other one.
    pub there: &'a str,
    /// Bytes.
    pub mtu: u32,
}

impl Netlink {
    /// Makes a pair whose other end comes into being in `other`. What is left of an earlier pair of this name is replaced.
    pub async fn add_pair(&self, pair: Pair<'_>, other: &Namespace) -> Result<(), Error> {
        let there = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.there)
            .mtu(pair.mtu)
            .setns_by_fd(other.as_raw_fd())
            .build();
        let message = || {
            LinkVeth::new(pair.here, pair.there)
                .mtu(pair.mtu)
                .up()
                .set_info_data(InfoData::Veth(InfoVeth::Peer(there.clone())))
                .build()
        };
        let what = format!("making the interfaces {} and {}", pair.here, pair.there);
        match self.handle.link().add(message()).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is(&error, libc::EEXIST) => {}
            other => return other.map_err(failed(&what)),
        }
        self.remove_link(pair.here).await?;
        self.handle.link().add(message()).execute().await.map_err(failed(&what))
    }

    /// Removes an interface, and with it the other end of its pair; its absence is no error.
    pub async fn remove_link(&self, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(name).build();
        match self.handle.link().del_with_message(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is(&error, libc::ENODEV) => Ok(()),
            other => other.map_err(failed(&format!("removing the interface {name}"))),
        }
    }

    /// Turns an interface on.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(failed("turning an interface on"))
    }

    /// Gives an interface an address of a network that is not reached through it as a whole: no route comes with it.
    pub async fn add_address_alone(&self, link: &Link, address: Ipv4Net) -> Result<(), Error> {
        let mut request =
            self.handle.address().add(link.index, IpAddr::V4(address.addr()), address.prefix_len());
        let flags = AddressAttribute::Flags(AddressFlags::Noprefixroute);
        request.message_mut().attributes.push(flags);
        request.execute().await.map_err(failed(&format!("adding address {address}")))
    }

    /// A network that is directly at an interface.
    pub async fn add_route_at(&self, to: Ipv4Net, link: &Link) -> Result<(), Error> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(link.index)
            .scope(RouteScope::Link)
            .build();
        let request = self.handle.route().add(message).replace();
        request.execute().await.map_err(failed(&format!("adding the route to {to}")))
    }

    /// A network by way of a gateway, as `ip route add` makes it.
    pub async fn add_route_via(&self, to: Ipv4Net, via: Ipv4Addr) -> Result<(), Error> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .gateway(via)
            .build();
        let request = self.handle.route().add(message).replace();
        request.execute().await.map_err(failed(&format!("adding the route to {to} via {via}")))
    }
}
