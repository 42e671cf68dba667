//! Transactions on the kernel's tables as it tells of them: who made them, and what they deleted.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::nfnetlink::{find, messages};

const NETLINK_NETFILTER: isize = 12;
/// NFNLGRP_NFTABLES.
const GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES, and messages of that subsystem.
const SUBSYSTEM: u16 = 10;
const DELETE_TABLE: u16 = 2;
const DELETE_CHAIN: u16 = 5;
const DELETE_RULE: u16 = 8;
const DELETE_SET: u16 = 11;
const DELETE_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
/// The table is the first attribute of all that is in one.
const TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const CHAIN_NAME: u16 = 3;
const GENERATION_PROCESS_NAME: u16 = 3;
/// struct nfgenmsg: family, version, resource id.
const FAMILY_BYTES: usize = 4;
/// A transaction of thousands of rules is told at once.
static RECEIVE_BUFFER: libc::c_int = 8 << 20;

/// Something that a transaction deleted; of a rule, its chain is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deleted {
    /// AF_INET for `ip`, and so on; 1 is `inet`.
    pub family: u8,
    pub table: String,
    pub chain: Option<String>,
}

/// A change of the tables that has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The first 15 characters of the program's name.
    pub by: String,
    pub deleted: BTreeSet<Deleted>,
}

/// What a monitor saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Transaction(Transaction),
    /// More than could be kept: anything may have happened.
    Lost,
}

/// A subscription, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
    begun: BTreeSet<Deleted>,
}

impl Monitor {
    /// Subscribes. Fails where the kernel has no nf_tables or does not let us listen.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        grow(&socket);
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        // SAFETY: a socket owns its descriptor and keeps it until it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, begun: BTreeSet::new() })
    }

    /// Waits for the next change. Safe to drop while it waits.
    pub async fn next(&mut self) -> Seen {
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|socket| receive(socket.get_ref()));
            match read {
                Ok(Ok(bytes)) => {
                    if let Some(seen) = take(&mut self.begun, &bytes) {
                        return seen;
                    }
                }
                Ok(Err(_)) => return self.lost(),
                Err(_would_block) => {}
            }
        }
    }

    /// Everything that has happened by now and was not told yet.
    pub fn drain(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            match receive(self.socket.get_ref()) {
                Ok(bytes) => all.extend(take(&mut self.begun, &bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return all,
                Err(_) => all.push(self.lost()),
            }
        }
    }

    fn lost(&mut self) -> Seen {
        self.begun.clear();
        Seen::Lost
    }
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    socket.recv_from_full().map(|(bytes, _)| bytes)
}

/// Without the right to it, the kernel's own limit stays: a storm is then told as lost.
fn grow(socket: &Socket) {
    // SAFETY: the option is an int, read during the call only.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const RECEIVE_BUFFER).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// Reads one datagram; the end of a transaction may be in it. `begun` is what was deleted in the one that goes on.
fn take(begun: &mut BTreeSet<Deleted>, bytes: &[u8]) -> Option<Seen> {
    let mut ended = None::<Transaction>;
    for (kind, body) in messages(bytes) {
        let (Some(family), Some(attributes)) = (body.first(), body.get(FAMILY_BYTES..)) else { continue };
        let text = |kind| {
            let value = find(attributes, kind)?;
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            Some(String::from_utf8_lossy(&value[..end]).into_owned())
        };
        if kind >> 8 != SUBSYSTEM {
            continue;
        }
        let chain = match kind & 0xff {
            DELETE_RULE => text(RULE_CHAIN),
            DELETE_CHAIN => text(CHAIN_NAME),
            DELETE_TABLE | DELETE_SET | DELETE_ELEMENT => None,
            NEW_GENERATION => {
                let all = ended.get_or_insert_default();
                all.by = text(GENERATION_PROCESS_NAME).unwrap_or_default();
                all.deleted.append(begun);
                continue;
            }
            _ => continue,
        };
        begun.insert(Deleted { family: *family, table: text(TABLE).unwrap_or_default(), chain });
    }
    ended.map(Seen::Transaction)
}
