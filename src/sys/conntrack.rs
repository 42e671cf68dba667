//! The kernel's table of tracked connections, over netlink: listing UDP flows and forgetting some of them.

use std::io;
use std::net::Ipv4Addr;

use nix::libc;
use rtnetlink::sys::{Socket, SocketAddr};

use super::nfnetlink::{HEADER, attribute, find, messages};

const NETLINK_NETFILTER: isize = 12;
/// NFNL_SUBSYS_CTNETLINK, with the operations of that subsystem.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// struct nfgenmsg: family, version, resource id.
const FAMILY: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];

/// The table could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("connection tracking: {0}")]
pub struct Error(#[from] io::Error);

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub source: Ipv4Addr,
    /// Where its packets were sent.
    pub to: Ipv4Addr,
    pub port: u16,
    /// Where answers come from: another address than `to` where the flow is translated.
    pub answered_by: Ipv4Addr,
    /// The kernel's own words for it, by which it is deleted.
    tuple: Vec<u8>,
}

/// Forgets the UDP flows that `stale` picks and says how many those were. The next packet of each is judged anew by the
/// rules. Blocks for as long as the kernel takes to list the table.
pub fn forget_udp(stale: impl Fn(&Tracked) -> bool) -> Result<usize, Error> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let picked: Vec<Tracked> = list(&socket)?.into_iter().filter(stale).collect();
    for flow in &picked {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        socket.send(&message(DELETE, flags, &attribute(CTA_TUPLE_ORIG | NESTED, &flow.tuple)), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        match messages(&answer).next().map(|(kind, body)| outcome(kind, body)) {
            // Gone by itself in between.
            Some(Some(error)) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Some(Some(error)) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(picked.len())
}

fn list(socket: &Socket) -> Result<Vec<Tracked>, Error> {
    socket.send(&message(GET, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, &[]), 0)?;
    let mut flows = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&answer) {
            if i32::from(kind) == libc::NLMSG_DONE {
                return Ok(flows);
            }
            if let Some(error) = outcome(kind, body) {
                return Err(error.into());
            }
            flows.extend(body.get(FAMILY.len()..).and_then(tracked_udp));
        }
    }
}

fn message(kind: u16, flags: i32, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + FAMILY.len() + attributes.len()) as u32;
    let sequence_and_port = [0; 8];
    let (length, kind, flags) = (length.to_ne_bytes(), kind.to_ne_bytes(), (flags as u16).to_ne_bytes());
    [length.as_slice(), &kind, &flags, &sequence_and_port, &FAMILY, attributes].concat()
}

/// The error that a message is, if it is one; an error of 0 is an acknowledgement.
fn outcome(kind: u16, body: &[u8]) -> Option<io::Error> {
    if i32::from(kind) != libc::NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

const NESTED: u16 = 1 << 15;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

fn address(tuple: &[u8], kind: u16) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = find(find(tuple, CTA_TUPLE_IP)?, kind)?.try_into().ok()?;
    Some(octets.into())
}

fn tracked_udp(attributes: &[u8]) -> Option<Tracked> {
    let tuple = find(attributes, CTA_TUPLE_ORIG)?;
    let transport = find(tuple, CTA_TUPLE_PROTO)?;
    if i32::from(*find(transport, CTA_PROTO_NUM)?.first()?) != libc::IPPROTO_UDP {
        return None;
    }
    Some(Tracked {
        source: address(tuple, CTA_IP_V4_SRC)?,
        to: address(tuple, CTA_IP_V4_DST)?,
        port: u16::from_be_bytes(find(transport, CTA_PROTO_DST_PORT)?.try_into().ok()?),
        answered_by: address(find(attributes, CTA_TUPLE_REPLY)?, CTA_IP_V4_SRC)?,
        tuple: tuple.to_vec(),
    })
}

impl Tracked {
    /// A flow as the kernel would tell it, for tests of what is done with flows.
    pub fn of(source: Ipv4Addr, to: Ipv4Addr, port: u16, answered_by: Ipv4Addr) -> Self {
        Self { source, to, port, answered_by, tuple: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: [u8; 4], to: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let ip = [attribute(CTA_IP_V4_SRC, &source), attribute(CTA_IP_V4_DST, &to)].concat();
        let transport =
            [attribute(CTA_PROTO_NUM, &[protocol]), attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes())];
        let transport = transport.concat();
        [attribute(CTA_TUPLE_IP | NESTED, &ip), attribute(CTA_TUPLE_PROTO | NESTED, &transport)].concat()
    }

    #[test]
    fn flows_are_read_as_the_kernel_writes_them() {
        let flow = |protocol| {
            let original = tuple([10, 42, 0, 7], [10, 43, 0, 9], protocol, 53);
            let reply = tuple([10, 42, 1, 2], [10, 42, 0, 7], protocol, 4000);
            let body = [attribute(CTA_TUPLE_ORIG | NESTED, &original), attribute(CTA_TUPLE_REPLY, &reply)];
            (tracked_udp(&body.concat()), original)
        };
        let (udp, original) = flow(17);
        let expect = Tracked {
            tuple: original,
            ..Tracked::of([10, 42, 0, 7].into(), [10, 43, 0, 9].into(), 53, [10, 42, 1, 2].into())
        };
        assert_eq!(udp, Some(expect));
        assert_eq!(flow(6).0, None, "TCP is left alone");
    }

    #[test]
    fn what_is_cut_short_is_no_flow() {
        let whole = attribute(CTA_TUPLE_ORIG, &tuple([1; 4], [2; 4], 17, 53));
        for length in 0..whole.len() {
            assert_eq!(tracked_udp(&whole[..length]), None);
        }
        assert_eq!(messages(&[200, 0, 0, 0, 1, 0]).count(), 0);
    }
}
