//! Who this machine is: machine id, boot id, kernel and distribution, as node status reports them.

use std::fs;
use std::io;
use std::path::Path;

use ring::digest::{SHA256, digest};

/// Facts about this machine that node status shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub machine_id: String,
    pub boot_id: String,
    pub kernel: String,
    /// `PRETTY_NAME` of /etc/os-release.
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
}

impl Machine {
    /// Reads what the running system says about itself; what cannot be read stays empty.
    pub fn read() -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&line("/etc/os-release")),
            architecture: architecture(),
        }
    }
}

/// The architecture by Go's name, which Kubernetes uses in labels and node status.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn pretty_name(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Makes /etc/machine-id this node's own. Containers of one image would otherwise share one id, or have none; the
/// chosen id is kept in `state` so that a node has the same one after a restart.
pub fn ensure_machine_id(node: &str, state: &Path) -> io::Result<String> {
    let kept = state.join("machine-id");
    let id = match fs::read_to_string(&kept) {
        Ok(id) if id.trim().len() == 32 => id.trim().to_owned(),
        _ => {
            let mut seed = node.as_bytes().to_vec();
            seed.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
            let id = hex::encode(&digest(&SHA256, &seed).as_ref()[..16]);
            fs::create_dir_all(state)?;
            fs::write(&kept, format!("{id}\n"))?;
            id
        }
    };
    fs::write("/etc/machine-id", format!("{id}\n"))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_pretty_name() {
        let check = |text: &str, expect: &str| assert_eq!(pretty_name(text), expect);
        check("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n", "Debian GNU/Linux 13 (trixie)");
        check("", "Linux");
    }
}
