//! The records that the cluster's names have.

use std::net::Ipv4Addr;

use hickory_server::proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record};

/// Seconds for which clients may keep an answer: Services move.
pub(super) const TTL: u32 = 5;

pub(super) fn a(name: &Name, ip: Ipv4Addr) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::A(A(ip)))
}

pub(super) fn srv(name: &Name, weight: u16, port: u16, target: Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, weight, port, target)))
}

pub(super) fn ptr(name: &Name, target: Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)))
}

pub(super) fn cname(name: &Name, target: Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target)))
}

pub(super) fn txt(name: &Name, text: &str) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::TXT(TXT::new(vec![text.to_owned()])))
}

pub(super) fn ns(name: &Name, target: Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::NS(hickory_server::proto::rr::rdata::NS(target)))
}

/// Says who is responsible for `zone`, and (its last field) how long "no such name" may be kept.
pub(super) fn soa(zone: &Name, server: Name, mailbox: Name) -> Record {
    Record::from_rdata(zone.clone(), TTL, RData::SOA(SOA::new(server, mailbox, 1, 7200, 1800, 86_400, TTL)))
}
