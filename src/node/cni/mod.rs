//! The network plugin's edge: writes the one network every Pod of this node is on, once its address range is known.

use std::fs;
use std::io;
use std::path::Path;

use ipnet::Ipv4Net;
use serde_json::json;

/// Where the runtime looks for networks.
pub const CONF_DIR: &str = "/etc/cni/net.d";
const FILE: &str = "10-minik.conflist";

/// The network: one veth pair per Pod, addresses from the node's range kept on `state`, host ports by portmap.
/// `mtu` is the uplink's: a larger one would lose packets between nodes.
pub fn conflist(pod_cidr: Ipv4Net, mtu: u32, state: &str) -> serde_json::Value {
    json!({
        "cniVersion": "0.3.1",
        "name": "minik",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": state,
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "ranges": [[{ "subnet": pod_cidr.to_string() }]],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// Writes the network for `pod_cidr`; the runtime notices the file by itself. Answers whether it changed.
pub fn write(dir: &Path, pod_cidr: Ipv4Net) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    // Addresses in use are forgotten with the containers that used them: both live until the node restarts.
    let text = format!("{:#}\n", conflist(pod_cidr, uplink_mtu(), "/run/cni-ipam"));
    let path = dir.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    // Renamed into place: the runtime must never read half a file.
    let draft = dir.join(format!(".{FILE}.new"));
    fs::write(&draft, text)?;
    fs::rename(&draft, &path)?;
    Ok(true)
}

fn uplink_mtu() -> u32 {
    fs::read_to_string("/sys/class/net/eth0/mtu")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_once() {
        let dir = tempfile::tempdir().expect("folder");
        let cidr = "10.42.1.0/24".parse().expect("cidr");
        assert!(write(dir.path(), cidr).expect("written"));
        assert!(!write(dir.path(), cidr).expect("unchanged"));
        let text = fs::read_to_string(dir.path().join(FILE)).expect("there");
        assert!(text.contains("10.42.1.0/24"));
        assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 1);
    }
}
