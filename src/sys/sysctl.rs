//! Kernel settings below /proc/sys.

use std::io;
use std::path::{Path, PathBuf};

/// What came of wanting a setting.
#[derive(Debug)]
pub enum Outcome {
    /// It holds, before or since.
    Holds,
    /// It does not hold and could not be set.
    Refused { setting: String, is: String, wanted: String, error: io::Error },
}

fn path(root: &Path, setting: &str) -> PathBuf {
    root.join(setting.replace('.', "/"))
}

/// Makes `setting` (dotted: `net.ipv4.ip_forward`) have the value `wanted`. A read-only /proc is no obstacle where the
/// value is right already.
pub fn set(setting: &str, wanted: &str) -> Outcome {
    set_below(Path::new("/proc/sys"), setting, wanted)
}

fn set_below(root: &Path, setting: &str, wanted: &str) -> Outcome {
    let path = path(root, setting);
    let is = std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
    if is == wanted {
        return Outcome::Holds;
    }
    match std::fs::write(&path, wanted) {
        Ok(()) => Outcome::Holds,
        Err(error) => Outcome::Refused { setting: setting.into(), is, wanted: wanted.into(), error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_hold_are_left_alone_and_others_are_written() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("net/ipv4")).expect("folders");
        let file = root.path().join("net/ipv4/ip_forward");
        std::fs::write(&file, "0\n").expect("written");
        assert!(matches!(set_below(root.path(), "net.ipv4.ip_forward", "1"), Outcome::Holds));
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "1");
        let missing = set_below(root.path(), "net.ipv4.nothing.here", "1");
        assert!(matches!(missing, Outcome::Refused { .. }), "{missing:?}");
    }
}
