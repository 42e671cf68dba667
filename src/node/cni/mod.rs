//! Pods' network: its configuration, written once the node's address range is known, and the plugin that the runtime calls
//! for it.

mod leases;
pub mod plugin;

use std::fs;
use std::io;
use std::path::Path;

use ipnet::Ipv4Net;
use serde_json::json;

use sys::exec::{Exec, ExecError, Invocation};

/// Where the runtime looks for networks.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Where plugins are, as everybody's installers have it.
pub const BIN_DIR: &str = "/opt/cni/bin";
/// All reference plugins, as the node image keeps them.
const PACKED: &str = "/usr/lib/node-image/cni.tar.zst";
const FILE: &str = "10-minik.conflist";

/// The network: one pair of interfaces per Pod, addresses from the node's range, kept on `state`.
/// `mtu` is the uplink's: a larger one would lose packets between nodes.
pub fn conflist(pod_cidr: Ipv4Net, mtu: u32, state: &str) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "minik",
        "plugins": [{
            "type": plugin::NAME,
            "mtu": mtu,
            "dataDir": state,
            "subnets": [pod_cidr.to_string()],
            "capabilities": { "portMappings": true },
        }],
    })
}

/// Makes this program the plugins that a Pod's start calls, among those of others in `dir`.
pub fn install(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let program = std::env::current_exe()?;
    for name in [plugin::NAME, plugin::LOOPBACK] {
        let path = dir.join(name);
        if fs::read_link(&path).is_ok_and(|there| there == program) {
            continue;
        }
        let draft = dir.join(format!(".{name}.new"));
        let _ = fs::remove_file(&draft);
        std::os::unix::fs::symlink(&program, &draft)?;
        fs::rename(&draft, &path)?;
    }
    Ok(())
}

/// Writes the network for `pod_cidr`; the runtime notices the file by itself. Returns whether it changed.
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

/// Unpacks the plugins that minik itself does not use, for those who bring a network of their own.
pub async fn unpack_plugins(exec: &dyn Exec) -> Result<(), ExecError> {
    let args = ["--zstd", "-C", BIN_DIR, "-xf", PACKED];
    exec.run(Invocation::new("tar", args)).await.map(drop)
}

/// Whether a folder holds a network that the runtime can read.
pub fn any(dir: &Path) -> bool {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        let path = file.path();
        path.extension().is_some_and(|end| ["conf", "conflist", "json"].iter().any(|known| end == *known))
    })
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
    fn plugins_are_this_program() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("loopback"), "another one").expect("written");
        install(dir.path()).expect("installed");
        install(dir.path()).expect("again");
        let own = std::env::current_exe().expect("this program");
        for name in ["minik", "loopback"] {
            assert_eq!(fs::read_link(dir.path().join(name)).expect("a link"), own);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 2);
    }

    #[test]
    fn writes_once() {
        let dir = tempfile::tempdir().expect("folder");
        let cidr = "10.42.1.0/24".parse().expect("cidr");
        assert!(!any(dir.path()));
        assert!(write(dir.path(), cidr).expect("written"));
        assert!(any(dir.path()));
        assert!(!write(dir.path(), cidr).expect("unchanged"));
        let text = fs::read_to_string(dir.path().join(FILE)).expect("there");
        assert!(text.contains("10.42.1.0/24"));
        assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 1);
    }
}
