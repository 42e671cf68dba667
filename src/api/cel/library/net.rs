//! IP addresses and blocks of them.

use std::net::{IpAddr, Ipv6Addr};

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

pub const ALL: &[Entry] = &[
    ("ip", "(string) IP; CIDR.() IP", |budget, args| match args {
        [Val::Str(text)] => {
            budget.charge_text(text.len() as u64)?;
            address(text).map(Val::Ip)
        }
        [Val::Cidr(address, _)] => Ok(Val::Ip(*address)),
        _ => Err(Fault::no_overload()),
    }),
    ("isIP", "(string) bool", |_, args| match args {
        [Val::Str(text)] => Ok(Val::Bool(address(text).is_ok())),
        _ => Err(Fault::no_overload()),
    }),
    ("ip.isCanonical", "(string) bool", |_, args| match args {
        [Val::Str(text)] => Ok(Val::Bool(address(text)?.to_string() == **text)),
        _ => Err(Fault::no_overload()),
    }),
    ("cidr", "(string) CIDR", |budget, args| match args {
        [Val::Str(text)] => {
            budget.charge_text(text.len() as u64)?;
            block(text).map(|(address, length)| Val::Cidr(address, length))
        }
        _ => Err(Fault::no_overload()),
    }),
    ("isCIDR", "(string) bool", |_, args| match args {
        [Val::Str(text)] => Ok(Val::Bool(block(text).is_ok())),
        _ => Err(Fault::no_overload()),
    }),
    ("family", "IP.() int", |_, args| {
        of(args, |address| if address.is_ipv4() { 4 } else { 6 }).map(Val::Int)
    }),
    ("isUnspecified", "IP.() bool", |_, args| of(args, |address| address.is_unspecified()).map(Val::Bool)),
    ("isLoopback", "IP.() bool", |_, args| of(args, |address| address.is_loopback()).map(Val::Bool)),
    ("isLinkLocalMulticast", "IP.() bool", |_, args| of(args, link_local_multicast).map(Val::Bool)),
    ("isLinkLocalUnicast", "IP.() bool", |_, args| of(args, link_local).map(Val::Bool)),
    ("isGlobalUnicast", "IP.() bool", |_, args| of(args, global).map(Val::Bool)),
    ("containsIP", "CIDR.(string) bool; CIDR.(IP) bool", |_, args| {
        let (block, other) = match args {
            [Val::Cidr(address, length), Val::Ip(other)] => ((*address, *length), *other),
            [Val::Cidr(own, length), Val::Str(text)] => ((*own, *length), address(text)?),
            _ => return Err(Fault::no_overload()),
        };
        Ok(Val::Bool(
            masked(block.0, block.1) == masked(other, block.1) && block.0.is_ipv4() == other.is_ipv4(),
        ))
    }),
    ("containsCIDR", "CIDR.(string) bool; CIDR.(CIDR) bool", |_, args| {
        let ((own, length), (other, longer)) = match args {
            [Val::Cidr(own, length), Val::Cidr(other, longer)] => ((*own, *length), (*other, *longer)),
            [Val::Cidr(own, length), Val::Str(text)] => ((*own, *length), block(text)?),
            _ => return Err(Fault::no_overload()),
        };
        let within = longer >= length && masked(own, length) == masked(other, length);
        Ok(Val::Bool(within && own.is_ipv4() == other.is_ipv4()))
    }),
    ("masked", "CIDR.() CIDR", |_, args| match args {
        [Val::Cidr(address, length)] => Ok(Val::Cidr(masked(*address, *length), *length)),
        _ => Err(Fault::no_overload()),
    }),
    ("prefixLength", "CIDR.() int", |_: &mut Budget, args| match args {
        [Val::Cidr(_, length)] => Ok(Val::Int(i64::from(*length))),
        _ => Err(Fault::no_overload()),
    }),
];

fn of<T>(args: &[Val<'_>], ask: fn(&IpAddr) -> T) -> Result<T, Fault> {
    match args {
        [Val::Ip(address)] => Ok(ask(address)),
        _ => Err(Fault::no_overload()),
    }
}

/// Neither zones nor IPv4 addresses in IPv6 form are taken.
fn address(text: &str) -> Result<IpAddr, Fault> {
    let parsed: IpAddr = text.parse().map_err(|_| {
        Fault::new(format!(
            "IP Address {text:?} parse error during conversion from string: unable to parse IP"
        ))
    })?;
    match parsed {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(Fault::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        address => Ok(address),
    }
}

fn block(text: &str) -> Result<(IpAddr, u8), Fault> {
    let wrong = || {
        Fault::new(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): invalid CIDR"
        ))
    };
    let (start, length) = text.split_once('/').ok_or_else(wrong)?;
    let start = address(start)?;
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let plain = plain && (length == "0" || !length.starts_with('0'));
    let length: u8 = length.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    let most = if start.is_ipv4() { 32 } else { 128 };
    if length > most { Err(wrong()) } else { Ok((start, length)) }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

fn link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

fn global(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || broadcast
        || link_local(address))
}
