//! Addresses, routes and links through rtnetlink, and the one ARP packet that says an address has moved.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::sync::Mutex;

use rt::Tasks;

/// The kernel refused, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("netlink is not available: {0}")]
    Open(#[source] io::Error),
    #[error("{what}: {source}")]
    Request { what: String, source: rtnetlink::Error },
    #[error("there is no network interface {0}")]
    NoLink(String),
    #[error("announcing {address}: {source}")]
    Announce { address: Ipv4Addr, source: io::Error },
}

/// Marks routes as ours (`ip route` shows the number), so that after a restart leftovers can be told from others'.
const OUR_ROUTES: u8 = 109;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub mac: [u8; 6],
}

/// A route to a network: by way of a gateway, or to nowhere, so that whoever asks for what is not there is told so at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub to: Ipv4Net,
    /// None for what cannot be reached.
    pub via: Option<Ipv4Addr>,
}

/// A connection to the kernel's routing tables, in the network namespace in which it was opened.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
    /// Held while the kernel lists something: it refuses a second list on the same socket (EBUSY).
    listing: Arc<Mutex<()>>,
}

impl Netlink {
    /// Opens a connection that lives as long as `tasks`.
    pub fn open(tasks: &Tasks) -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        tasks.spawn_until_stop(connection);
        Ok(Self { handle, listing: Arc::default() })
    }

    /// The interface of this name.
    pub async fn link(&self, name: &str) -> Result<Link, Error> {
        let links = self.handle.link().get().match_name(name.to_owned()).execute();
        let message = std::pin::pin!(links).try_next().await;
        let Ok(Some(message)) = message else { return Err(Error::NoLink(name.to_owned())) };
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        Ok(Link { index: message.header.index, mac: mac.unwrap_or_default() })
    }

    /// The IPv4 addresses of an interface, with their prefix lengths.
    pub async fn addresses(&self, link: &Link) -> Result<Vec<Ipv4Net>, Error> {
        let _alone = self.listing.lock().await;
        let request = self.handle.address().get().set_link_index_filter(link.index).execute();
        let messages: Vec<_> = request.try_collect().await.map_err(failed("listing addresses"))?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let ip = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                    _ => None,
                })?;
                Ipv4Net::new(ip, message.header.prefix_len).ok()
            })
            .collect())
    }

    /// Gives an interface an address; having it already is no error.
    pub async fn add_address(&self, link: &Link, address: Ipv4Addr) -> Result<(), Error> {
        let request = self.handle.address().add(link.index, IpAddr::V4(address), 32).replace();
        request.execute().await.map_err(failed(&format!("adding address {address}")))
    }

    /// Takes an address (a /32) from an interface; not having it is no error.
    pub async fn remove_address(&self, link: &Link, address: Ipv4Addr) -> Result<(), Error> {
        let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link.index)
            .address(address, 32)
            .build();
        match self.handle.address().del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is(&error, libc::EADDRNOTAVAIL) => Ok(()),
            other => other.map_err(failed(&format!("removing address {address}"))),
        }
    }

    /// The routes that earlier calls of `add_route` left in the kernel, by whatever process.
    pub async fn our_routes(&self) -> Result<Vec<Route>, Error> {
        let _alone = self.listing.lock().await;
        let wanted = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages = self.handle.route().get(wanted).execute();
        let messages: Vec<_> = messages.try_collect().await.map_err(failed("listing routes"))?;
        Ok(messages.iter().filter(|m| m.header.protocol == our_protocol()).filter_map(route_of).collect())
    }

    /// Adds a route, or turns the one to the same network to this gateway.
    pub async fn add_route(&self, route: Route) -> Result<(), Error> {
        let request = self.handle.route().add(message(route)).replace();
        request
            .execute()
            .await
            .map_err(failed(&format!("adding the route to {} via {:?}", route.to, route.via)))
    }

    /// Removes a route; its absence is no error.
    pub async fn remove_route(&self, route: Route) -> Result<(), Error> {
        match self.handle.route().del(message(route)).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if is(&error, libc::ESRCH) => Ok(()),
            other => other.map_err(failed(&format!("removing the route to {}", route.to))),
        }
    }
}

fn our_protocol() -> RouteProtocol {
    RouteProtocol::Other(OUR_ROUTES)
}

fn message(route: Route) -> RouteMessage {
    let to = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.to.network(), route.to.prefix_len())
        .protocol(our_protocol());
    match route.via {
        Some(gateway) => to.gateway(gateway).build(),
        None => to.kind(RouteType::Unreachable).build(),
    }
}

fn route_of(message: &RouteMessage) -> Option<Route> {
    let ipv4 = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(*ip),
        _ => None,
    };
    let find = |pick: &dyn Fn(&RouteAttribute) -> Option<Ipv4Addr>| message.attributes.iter().find_map(pick);
    let to = find(&|a| if let RouteAttribute::Destination(to) = a { ipv4(to) } else { None })?;
    let via = find(&|a| if let RouteAttribute::Gateway(via) = a { ipv4(via) } else { None });
    let nowhere = message.header.kind == RouteType::Unreachable;
    let to = Ipv4Net::new(to, message.header.destination_prefix_length).ok()?;
    (via.is_some() || nowhere).then_some(Route { to, via })
}

pub(super) fn is(error: &ErrorMessage, errno: i32) -> bool {
    error.raw_code() == -errno
}

pub(super) fn failed(what: &str) -> impl FnOnce(rtnetlink::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Request { what, source }
}

/// The gateway of the default route, as the kernel's own table says (/proc/net/route).
pub fn default_gateway() -> Option<Ipv4Addr> {
    gateway_in(&std::fs::read_to_string("/proc/net/route").ok()?)
}

fn gateway_in(table: &str) -> Option<Ipv4Addr> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (to, via) = (words.next()?, words.next()?);
        let via = u32::from_str_radix(via, 16).ok().filter(|via| *via != 0)?;
        // The kernel writes addresses as it has them in memory.
        (to == "00000000").then(|| Ipv4Addr::from(via.to_ne_bytes()))
    })
}

/// Tells the network segment that `address` is at `link` now (a gratuitous ARP reply and request, so that peers update
/// their tables whichever of the two they listen to).
pub fn announce(link: &Link, address: Ipv4Addr) -> Result<(), Error> {
    let announce = |source: io::Error| Error::Announce { address, source };
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)
        .map_err(|errno| announce(errno.into()))?;
    for operation in [1, 2] {
        send(&socket, link.index, &arp(link.mac, address, operation)).map_err(announce)?;
    }
    Ok(())
}

/// An Ethernet frame with an ARP packet in which sender and target are the same address (RFC 5227).
fn arp(mac: [u8; 6], address: Ipv4Addr, operation: u8) -> Vec<u8> {
    const BROADCAST: [u8; 6] = [0xff; 6];
    let fixed: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, operation];
    let target = if operation == 1 { [0; 6] } else { BROADCAST };
    [BROADCAST.as_slice(), &mac, &[0x08, 0x06], &fixed, &mac, &address.octets(), &target, &address.octets()]
        .concat()
}

fn send(socket: &impl AsRawFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all-zero is a valid sockaddr_ll; the fields that count are set below.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
    to.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&frame[..6]);
    // SAFETY: frame and address outlive the call, and their lengths are their own.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_gateway_is_found() {
        let table =
            "Iface Destination Gateway Flags\neth0 000012AC 00000000 0001\neth0 00000000 010012AC 0003\n";
        assert_eq!(gateway_in(table), Some(Ipv4Addr::new(172, 18, 0, 1)));
        assert_eq!(gateway_in("Iface Destination Gateway Flags\n"), None);
    }

    #[test]
    fn an_announcement_is_a_42_byte_broadcast() {
        let frame = arp([2, 66, 172, 18, 0, 2], Ipv4Addr::new(172, 18, 200, 1), 2);
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        assert_eq!(frame[28..32], frame[38..42], "sender and target are the same");
    }
}
