//! Chain names, computed as kube-proxy computes them.

use ring::digest::{SHA256, digest};

use crate::network::Protocol;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// `<prefix><hash>` for a Service port: KUBE-SVC-, KUBE-SVL-, KUBE-EXT-, KUBE-FW-.
pub(super) fn service_chain(prefix: &str, port_name: &str, protocol: Protocol) -> String {
    format!("{prefix}{}", hash(&[port_name, protocol.lower()]))
}

/// `KUBE-SEP-<hash>` for one endpoint (`ip:port`) of a Service port.
pub(super) fn endpoint_chain(port_name: &str, protocol: Protocol, endpoint: &str) -> String {
    format!("KUBE-SEP-{}", hash(&[port_name, protocol.lower(), endpoint]))
}

/// The first 16 characters of the base32 SHA-256: 80 bits, short enough for iptables' 28 characters per chain name.
pub(super) fn hash(parts: &[&str]) -> String {
    let sum = digest(&SHA256, parts.concat().as_bytes());
    sum.as_ref()[..10].chunks(5).flat_map(base32_of).collect()
}

/// Five bytes as eight characters.
fn base32_of(bytes: &[u8]) -> [char; 8] {
    let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    std::array::from_fn(|at| char::from(BASE32[(bits >> (35 - 5 * at)) as usize & 31]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_seen_on_every_cluster() {
        let check = |port: &str, protocol, expect: &str| {
            assert_eq!(service_chain("KUBE-SVC-", port, protocol), expect, "{port}");
        };
        check("default/kubernetes:https", Protocol::Tcp, "KUBE-SVC-NPX46M4PTMTKRN6Y");
        check("kube-system/kube-dns:dns", Protocol::Udp, "KUBE-SVC-TCOU7JCQXEZGVUNU");
        check("kube-system/kube-dns:dns-tcp", Protocol::Tcp, "KUBE-SVC-ERIFXISQEP7F7OF4");
        check("kube-system/kube-dns:metrics", Protocol::Tcp, "KUBE-SVC-JD5MR3NA4I4DYORP");
    }

    #[test]
    fn names_fit() {
        let name = endpoint_chain("a/b", Protocol::Tcp, "10.0.0.1:80");
        assert!(name.len() <= 28, "{name}");
    }
}
